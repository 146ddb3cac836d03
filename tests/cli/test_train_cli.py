"""`hilum train`: options, `--set`, the list of settings, and which settings reach the training."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.cli import train as command
from hilum.config import INDIFFERENT, Config, list_settings, load_config, save_config, show_value
from hilum.errors import OutputError
from hilum.run_folder import RunFolder
from hilum.storage import sha256_file

SOURCE = Path(command.__file__).parents[1]

Hilum = Callable[..., str]
Started = list[tuple[Config, Path, bool]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What the command hands to the training: (settings, the run's folder, whether it resumes); nothing is trained."""
    calls: Started = []

    def record(settings: Config, root: Path, resume: bool) -> None:
        calls.append((settings, root, resume))

    monkeypatch.setattr(command, "_train", record)
    return calls


# The list of settings


def test_every_setting_is_listed_in_80_columns(hilum: Hilum) -> None:
    shown = hilum("train", "--help-settings")
    assert max(map(len, shown.splitlines())) <= 80
    listed = dict(re.findall(r"^([a-z]+\.[a-z_]+) = (.*)$", shown, re.MULTILINE))
    assert list(listed) == list(list_settings())
    assert listed["training.epochs"].split() == ["30", "(original:", "100)"]
    assert listed["training.device"] == "auto"
    assert "Integer in [32, 2048], a multiple of 32." in shown
    assert "\x1b" not in shown


def test_the_listed_values_are_those_of_the_presets() -> None:
    for preset in ("default", "original"):
        config = load_config(preset)
        for name, setting in list_settings().items():
            section, _, key = name.partition(".")
            assert setting.values[preset] == getattr(getattr(config, section), key), name
            assert setting.description, name


def test_settings_that_messages_name_exist() -> None:
    """Trap: help and errors named --lesion-p and --normal-class, which no command had. Options: test_help.py."""
    named = {
        name for path in SOURCE.rglob("*.py") for name in re.findall(r"--set ([a-z_]+\.[a-z_]+)", path.read_text())
    }
    assert {"training.accumulate", "shortcuts.normal_class"} <= named <= list_settings().keys() | {"section.key"}


# Several processes


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({}, ["--devices", "2", "--dry-run"]),
        ({}, ["--num-nodes", "2", "--seeds", "2"]),
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["--seeds", "2"]),
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["--devices", "2"]),
    ],
)
def test_options_that_need_one_process(
    phantoms: Path, tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str],
    options: list[str],
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    outcome = CliRunner().invoke(app, ["train", str(phantoms), "--output", str(tmp_path / "run"), *options])
    assert (outcome.exit_code, started) == (2, [])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"WORLD_SIZE": "2", "RANK": "0"}, True),
        ({"WORLD_SIZE": "2", "RANK": "1"}, False),
        ({"WORLD_SIZE": "1", "RANK": "1"}, True),
        ({"RANK": "x"}, True),
    ],
)
def test_the_first_process_shows_progress(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], first: bool
) -> None:
    """Trap: a RANK without a WORLD_SIZE, which another program had set, trained in silence."""
    given: list[set[str]] = []

    def record(*_: object, **options: object) -> None:
        given.append(options.keys() & {"observer", "step"})
        raise OutputError("Enough.")

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hilum.pipeline.train", record)
    with pytest.raises(OutputError, match="Enough"):
        command._launch(load_config(overrides={"data": phantoms}), tmp_path / "run", resume=False, devices=1, nodes=1)
    assert given == [{"observer", "step"} if first else set()]


# Settings


def test_options_and_set_reach_the_training(hilum: Hilum, started: Started, tmp_path: Path) -> None:
    hilum(
        "train", tmp_path, "-o", tmp_path / "run", "--size", "64", "--epochs", "3", "--network", "unet",
        "--threads", "1", "--set", "augment.flip_p=0.25", "--set", "model.decoder_channels=16,8,8,4,4",
        "--set", "training.epochs=4", "--set", "shortcuts.normal_class=No finding", "--set", "loss.keep_prior=false",
        "--set", "preprocess.channels=3",
    )  # fmt: skip
    ((config, root, resume),) = started
    assert (root, resume, config.data) == (tmp_path / "run", False, tmp_path)
    assert (config.preprocess.size, config.preprocess.channels, config.model.name) == (64, 3, "unet")
    assert config.training.epochs == 4  # --set overrides the option
    assert config.training.threads == 1
    assert config.augment.flip_p == 0.25
    assert config.model.decoder_channels == (16, 8, 8, 4, 4)
    assert config.shortcuts.normal_class == "No finding"
    assert config.loss.keep_prior is False


def test_one_seed_is_that_of_split_and_training(hilum: Hilum, started: Started, tmp_path: Path) -> None:
    hilum("train", tmp_path, "--seed", "7")
    hilum("train", tmp_path, "--seed", "7", "--set", "split.seed=42")
    hilum("train", tmp_path)
    assert [(config.training.seed, config.split.seed) for config, _, _ in started] == [(7, 7), (7, 42), (0, 42)]


def test_set_overrides_the_file_and_the_file_the_preset(hilum: Hilum, started: Started, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'data = "{tmp_path}"\n[training]\nepochs = 7\nbatch_size = 3\n')
    hilum("train", "--config", file, "--preset", "original", "--set", "training.batch_size=5")
    ((config, _, _),) = started
    assert (config.training.epochs, config.training.batch_size, config.model.name) == (7, 5, "unet")


def test_what_is_shown_can_be_set(hilum: Hilum, started: Started, tmp_path: Path) -> None:
    words: list[str] = []
    for name, setting in list_settings().items():
        if name not in ("training.from_bundle", "augment.noise_std"):  # a bundle; a value that is shown rounded
            words += ["--set", f"{name}={show_value(setting.values['default'])}"]
    hilum("train", tmp_path, *words)
    ((config, _, _),) = started
    assert config == load_config(overrides={"data": tmp_path})


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("training.epoch=3", "did you mean `training.epochs`"),
        ("trainig.epochs=3", "did you mean `training.epochs`"),
        ("training.flip_p=0", "did you mean `augment.flip_p`"),
        ("zzz.qqq=1", "unknown setting `zzz.qqq`"),
        ("training.epochs=0", "`training.epochs`: expected integer >= 1, got '0'"),
        ("training.epochs=many", "got 'many'"),
        ("augment.flip_p=1.5", "expected number in [0, 1]"),
        ("preprocess.size=50", "a multiple of 32"),
        ("preprocess.channels=2", "one of 1, 3"),
        ("model.name=vit", "one of evidence, encoder-unet, unet"),
        ("model.lung_gate=perhaps", "true or false"),
        ("model.decoder_channels=16,x", "integers separated by commas"),
        ("training=3", "section.key=value"),
        ("training.epochs", "section.key=value"),
        ("=", "section.key=value"),
    ],
)
def test_a_bad_assignment_is_named(hilum: Hilum, assignment: str, told: str, started: Started, tmp_path: Path) -> None:
    output = hilum("train", tmp_path, "--set", assignment, code=2)
    assert told in output
    assert len([line for line in output.splitlines() if line.startswith("Error: ")]) == 1
    assert not started


# Resuming


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    save_config(load_config(overrides={"data": tmp_path}), root / "config.toml")
    return root


def test_a_resumed_run_has_its_own_settings(hilum: Hilum, started: Started, run: Path) -> None:
    hilum("train", "--resume", run)
    hilum("train", "--resume", run, "--device", "cpu", "--workers", "2")
    first, second = (config for config, _, _ in started)
    assert first == load_config("default", run / "config.toml")
    assert (second.training.device, second.training.workers) == ("cpu", 2)
    changes = {"device": "auto", "workers": 0}
    assert second.model_copy(update={"training": second.training.model_copy(update=changes)}) == first
    assert [(root, resume) for _, root, resume in started] == [(run, True), (run, True)]


@pytest.mark.parametrize(
    "words",
    [
        ("--epochs", "9"), ("--set", "training.epochs=9"), ("--seed", "1"), ("--preset", "original"), ("--output", "b"),
        ("--class", "a"), ("--config", "a.toml"), ("--dry-run",), ("--from-bundle", "default"), ("data",),
    ],
)  # fmt: skip
def test_other_settings_beside_resume_are_refused(
    hilum: Hilum, words: tuple[str, ...], started: Started, run: Path
) -> None:
    assert "--device" in hilum("train", "--resume", run, *words, code=2)  # the hint names what may be changed
    assert not started


def test_runs_of_earlier_versions_open(hilum: Hilum, started: Started, run: Path) -> None:
    file = run / "config.toml"
    file.write_text(
        file.read_text()
        .replace("[split]\nval_fraction = 0.15\ntest_fraction = 0.15\nseed = 42", "[split]\nsplit_seed = 5")
        .replace("localization_weight = 1.0", "localisation_weight = 0.5")
        .replace('threads = "auto"\n', "")
    )
    assert "split_seed" in file.read_text()
    assert "localisation_weight" in file.read_text()
    hilum("train", "--resume", run)
    ((config, _, _),) = started
    assert config.split.seed == 5
    assert config.shortcuts.localization_weight == 0.5


def test_a_folder_that_cannot_be_written_is_named_before_anything_else(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: a training into a read-only folder said nothing for a minute."""

    def refuse(**given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("hilum.run_folder.tempfile.TemporaryFile", refuse)
    monkeypatch.setitem(sys.modules, "hilum.pipeline", None)  # importing it fails
    for resume in (True, False):
        with pytest.raises(OutputError, match="Permission denied"):
            command._launch(load_config(overrides={"data": run}), run, resume=resume, devices=1, nodes=1)


def test_what_may_change_changes_no_weights() -> None:
    assert {name.partition(".")[2] for name in command._RESUMABLE} <= INDIFFERENT


# Threads


def test_the_command_line_keeps_waiting_threads_from_spinning() -> None:
    code = "import hilum.cli, os; print(os.environ['OMP_WAIT_POLICY'])"
    free = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for own, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run([sys.executable, "-c", code], env={**free, **own}, capture_output=True, text=True)
        assert done.stdout.strip() == expected


# A whole run, killed


def _command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from hilum.cli import main; main()", *map(str, words)]


@pytest.mark.slow
def test_a_run_that_was_killed_is_resumed_to_the_same_weights(hilum: Hilum, phantoms: Path, tmp_path: Path) -> None:
    words: tuple[Any, ...] = (
        "train", phantoms, "--size", "32", "--epochs", "3", "--batch-size", "8", "--device", "cpu", "--threads", "1",
        "--encoder", "mobilenetv3_small_050", "--set", "model.decoder_channels=16,8,8,4,4", "--set",
        "model.pretrained=false",
    )  # fmt: skip
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    hilum(*words, "-o", whole.root)
    with subprocess.Popen(_command(*words, "-o", killed.root), stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 900  # most of it is the import of torch, on a busy machine
        while not killed.state.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert killed.state.exists()
    assert not killed.summary.exists()
    assert f"hilum train --resume {killed.root}" in hilum(*words, "-o", killed.root, code=2)
    assert subprocess.run(_command("train", "--resume", killed.root), stdout=subprocess.DEVNULL).returncode == 0
    assert sha256_file(killed.best) == sha256_file(whole.best)
    assert (killed.bundle / "bundle.json").is_file()
    assert "--resume" not in hilum(*words, "-o", killed.root, code=2)
