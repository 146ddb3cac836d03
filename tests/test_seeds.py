"""Runs from several seeds: what differs, what is chosen and exported, and that they can be interrupted."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from training_setup import Killed, Killer, make_config

from hilum.bundle.bundle import MODEL_CARD, WEIGHTS, load_bundle
from hilum.config import Config
from hilum.data.split import load_split
from hilum.errors import CheckpointError, ConfigError, OutputError
from hilum.evaluation.results import REPORT_FILE, load_report
from hilum.metrics.table import Key
from hilum.run_folder import RunFolder, read_seeds, seed_run
from hilum.seeds import SEEDS_PAGE, TrainedSeeds, resume_seeds, train_seeds
from hilum.storage import sha256_file

Hilum = Callable[..., str]


def settings(phantoms: Path) -> Config:
    return make_config(phantoms, training={"epochs": 2, "seed": 3})


@pytest.fixture(scope="module")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedSeeds:
    return train_seeds(settings(phantoms), tmp_path_factory.mktemp("seeds") / "runs", 2)


def test_the_seeds_share_the_split_and_differ_in_their_weights(trained: TrainedSeeds) -> None:
    runs = [seed_run(trained.root, seed) for seed in trained.seeds]
    assert trained.seeds == (3, 4)
    assert load_split(runs[0].split).digest == load_split(runs[1].split).digest
    assert sha256_file(runs[0].best) != sha256_file(runs[1].best)


def test_the_run_with_the_lowest_validation_loss_is_exported(trained: TrainedSeeds) -> None:
    losses = [json.loads(seed_run(trained.root, seed).summary.read_text())["best_val_loss"] for seed in trained.seeds]
    assert trained.losses == tuple(losses)
    assert trained.chosen == trained.seeds[losses.index(min(losses))]
    exported = load_bundle(RunFolder(trained.root).bundle)
    assert exported.manifest.files[WEIGHTS] == load_bundle(trained.run.bundle).manifest.files[WEIGHTS]
    assert f"One of 2 trainings from different random seeds; the lowest validation loss has seed {trained.chosen}" in (
        exported.read(MODEL_CARD).decode()
    )
    assert "different random seeds" not in load_bundle(trained.run.bundle).read(MODEL_CARD).decode()


def test_the_spread_is_that_of_the_reports(trained: TrainedSeeds) -> None:
    reports = [load_report(seed_run(trained.root, seed).results("test") / REPORT_FILE) for seed in trained.seeds]
    (entry,) = [entry for entry in trained.spread if entry.key == Key("accuracy")]
    figures = [report.figure("accuracy") for report in reports]
    values = [figure.value for figure in figures if figure is not None and figure.value is not None]
    assert entry.values == tuple(values)
    assert entry.sd == pytest.approx(statistics.stdev(values))
    assert (entry.mean, entry.low, entry.high) == pytest.approx((sum(values) / 2, min(values), max(values)))
    chosen = figures[trained.seeds.index(trained.chosen)]
    assert chosen is not None
    low = float("nan") if chosen.low is None else chosen.low
    assert entry.chosen.value == chosen.value
    assert entry.chosen.low == pytest.approx(low, nan_ok=True)
    assert entry.chosen.n == chosen.n


def test_the_folder_has_a_table_and_a_page(trained: TrainedSeeds) -> None:
    content = read_seeds(trained.root)
    assert content is not None
    assert (content["seeds"], content["chosen"]) == ([3, 4], trained.chosen)
    assert len(content["spread"]) == len(trained.spread) > 10
    page = (trained.root / SEEDS_PAGE).read_text(encoding="utf-8")
    assert "Macro AUROC" in page
    assert f"seed {trained.chosen}, which has the lowest validation loss" in page


def test_interrupted_runs_end_as_uninterrupted_ones(phantoms: Path, trained: TrainedSeeds, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with pytest.raises(Killed):
        train_seeds(settings(phantoms), root, 2, observer=Killer(1, None))
    assert read_seeds(root) == {"seeds": [3, 4], "chosen": None}
    with pytest.raises(OutputError):
        train_seeds(settings(phantoms), root, 2)
    resume_seeds(root)
    assert read_seeds(root) == read_seeds(trained.root)
    for seed in trained.seeds:
        assert sha256_file(seed_run(root, seed).best) == sha256_file(seed_run(trained.root, seed).best)


def test_what_cannot_be_done_is_refused(
    trained: TrainedSeeds, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as several:
        several.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match="single process"):
            train_seeds(settings(phantoms), tmp_path, 2)
        with pytest.raises(ConfigError, match="single process"):
            resume_seeds(trained.root)
    with pytest.raises(ConfigError):
        train_seeds(settings(phantoms), tmp_path, 1)
    with pytest.raises(CheckpointError):
        resume_seeds(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_continues_finished_runs_and_prints_the_spread(hilum: Hilum, trained: TrainedSeeds) -> None:
    before = sha256_file(trained.run.best)
    printed = hilum("train", "--resume", trained.root)
    assert sha256_file(trained.run.best) == before
    assert f"Exported: seed {trained.chosen}," in printed
    assert "Macro AUROC" in printed
