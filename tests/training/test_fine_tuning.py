"""`hilum train DATA --from-bundle`: from one run's bundle to another run, killed and resumed without the bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from training_setup import SMALL, Killed, Killer, same_tensors

from hilum.bundle.bundle import MODEL_CARD, load_bundle
from hilum.config import Config, load_config
from hilum.data.split import load_split
from hilum.evaluation.results import REPORT_FILE, load_report
from hilum.pipeline import train
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.training.from_bundle import settings_from_bundle
from hilum.training.runs import open_run
from hilum.types import Finding

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three classes; one epoch."""
    settings: dict[str, Any] = {
        **SMALL,
        "data": phantoms,
        "classes": ["COVID", "Lung_Opacity", "Normal"],
        "model": {**SMALL["model"], "name": "encoder-unet", "pretrained": True},
        "training": {**SMALL["training"], "epochs": 1},
    }
    return train(load_config(overrides=settings), RunFolder(tmp_path_factory.mktemp("base") / "run")).run.bundle


def finetuning(base: Path, phantoms: Path) -> Config:
    overrides = {
        "data": phantoms,
        "classes": ["Normal", "Viral Pneumonia"],
        "split": {"seed": 3},  # not the base's, so that images which it was trained on are tested
        "training": {"epochs": 2, "batch_size": 8},
    }
    return settings_from_bundle(str(base), "default", None, overrides)


@pytest.fixture(scope="module")
def tuned(base: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(finetuning(base, phantoms), RunFolder(tmp_path_factory.mktemp("tuned") / "run")).run


def test_run_manifest_and_card_name_the_bundle(base: Path, tuned: RunFolder) -> None:
    theirs = load_bundle(base).manifest
    started = json.loads(tuned.summary.read_text())["started_from"]
    assert started["bundle_id"] == theirs.bundle_id
    assert (started["classes_kept"], started["classes_new"]) == (["Normal"], ["Viral Pneumonia"])
    made = load_bundle(tuned.bundle)
    assert made.manifest.started_from == theirs.bundle_id
    first, second = made.manifest.training
    assert (first,) == theirs.training
    assert (first["training"]["epochs"], second["training"]["epochs"]) == (1, 2)
    assert (first["classes"], second["classes"]) == (["COVID", "Lung_Opacity", "Normal"], ["Normal", "Viral Pneumonia"])
    assert "data" not in first  # a path of the training machine, as is
    assert "from_bundle" not in second["training"]
    assert made.manifest.model == theirs.model
    assert made.manifest.preprocess == theirs.preprocess
    assert f"Started from bundle {theirs.bundle_id}" in made.read(MODEL_CARD).decode()


def test_images_that_the_bundle_was_trained_on_are_said_before_training_and_in_the_report(
    base: Path, tuned: RunFolder, phantoms: Path, tmp_path: Path
) -> None:
    before, split = load_split(base.parent / "split.json"), load_split(tuned.split)
    test = [name for name, part in split.assignment.items() if part == "test"]
    seen = [name for name in test if before.assignment.get(name) in ("train", "val")]
    assert len(seen) > 0
    overlap = load_report(tuned.results("test") / REPORT_FILE).training_overlap
    assert overlap is not None
    assert (overlap.known, overlap.seen) == ("all", len(seen))
    manifest = load_bundle(tuned.bundle).manifest
    assert manifest.training_hashes is not None
    assert manifest.training_hashes.complete
    theirs = load_bundle(base).manifest.training_hashes
    assert theirs is not None
    assert manifest.training_hashes.images > theirs.images
    assert manifest.metrics["test"] == [figure.model_dump(mode="json") for figure in overlap.figures]
    found: list[Finding] = []

    def stop(findings: Sequence[Finding]) -> None:
        found.extend(findings)
        if any(finding.check == "seen_before" for finding in findings):
            raise Killed

    run = RunFolder(tmp_path / "run")
    with pytest.raises(Killed):
        train(finetuning(base, phantoms), run, step=Step(found=stop))
    assert not run.state.exists()  # not an epoch before it is said
    said = next(finding for finding in found if finding.check == "seen_before")
    assert {Path(name).name for name in said.records} == {Path(name).name for name in seen}


def test_validation_images_of_the_same_split_are_not_called_training_images(
    base: Path, phantoms: Path, tmp_path: Path
) -> None:
    found: list[Finding] = []
    overrides = {
        "data": phantoms,
        "classes": ["COVID", "Lung_Opacity", "Normal"],
        "split": {"split_file": base.parent / "split.json"},
        "training": {"epochs": 1, "batch_size": 8},
    }
    settings = settings_from_bundle(str(base), "default", None, overrides)
    with pytest.raises(Killed):
        train(settings, RunFolder(tmp_path / "run"), observer=Killer(1, 1), step=Step(found=found.extend))
    assert "seen_before" not in {finding.check for finding in found}


def test_a_run_of_its_own_started_from_no_bundle(base: Path) -> None:
    assert json.loads(RunFolder(base.parent).summary.read_text())["started_from"] is None
    assert load_bundle(base).manifest.started_from is None


def test_it_goes_on_without_the_bundle_to_the_same_weights(
    base: Path, phantoms: Path, tuned: RunFolder, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "bundle"))
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Killed):
        train(finetuning(copy, phantoms), run, observer=Killer(2, 2))
    shutil.rmtree(copy)
    train(open_run(run.root)[1], run, resume=True)
    assert same_tensors(load_file(run.best), load_file(tuned.best))
    ours, theirs = (json.loads(one.summary.read_text())["started_from"] for one in (run, tuned))
    assert ours == theirs


def test_the_command_says_what_contradicts_the_bundle(hilum: Callable[..., str], base: Path, phantoms: Path) -> None:
    said = hilum("train", phantoms, "--from-bundle", base, "--network", "unet", code=2)
    assert "model.name is unet, in the bundle encoder-unet" in " ".join(said.split())


def test_a_dry_run_is_of_the_bundles_network(hilum: Callable[..., str], base: Path, phantoms: Path) -> None:
    said = hilum("train", phantoms, "--from-bundle", base, "--class", "Normal", "--class", "COVID", "--dry-run")
    assert "Network: encoder-unet" in said
    assert "for 10 epochs" in " ".join(said.split())
