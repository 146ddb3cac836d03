"""benchmarks/finetune.py: which images are drawn, what is measured, and a whole small round on phantoms."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save

from hilum.bundle.bundle import WEIGHTS, Manifest, write_bundle
from hilum.config import ModelConfig, PreprocessSpec
from hilum.models.build import build_model


@pytest.fixture(scope="module")
def finetune(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("finetune")


def test_equal_rankings_differ_by_nothing_and_others_by_the_mean_over_seeds(finetune: ModuleType) -> None:
    positive = np.arange(40) % 2 == 1
    perfect, noise = positive.astype(float), np.random.default_rng(0).normal(size=40)
    clusters = np.arange(40)
    same = finetune.measured({"a": [noise, perfect], "b": [perfect, noise]}, positive, clusters, 50)["difference"]
    assert (same.value, same.high, -same.low) == pytest.approx((0, 1 - 0.025 ** (1 / 40), 1 - 0.025 ** (1 / 40)))
    found = finetune.measured({"a": [perfect, perfect], "b": [perfect, 1 - perfect]}, positive, clusters, 50)
    assert (found["a"].value, found["b"].value, found["difference"].value) == (1.0, 0.5, 0.5)


def test_a_whole_round_on_phantoms(
    finetune: ModuleType, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (phantoms / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["label"] in ("Normal", "COVID")]
    places = {"COVID": 0, "Normal": 0}
    table = tmp_path / "metadata.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["image", "label", "source", "split"])
        writer.writeheader()
        for row in rows:
            number = places[row["label"]] = places[row["label"]] + 1
            split = "train" if number <= 6 else "val" if number <= 9 else "test"
            image = phantoms / row["image"]
            writer.writerow({"image": image, "label": row["label"], "source": "here", "split": split})
    model = ModelConfig(name="encoder-unet", encoder="mobilenetv3_small_050", decoder_channels=(16, 8, 8, 4, 4))
    preprocess = PreprocessSpec(size=64)
    manifest = Manifest(name="theirs", class_names=("COVID", "Normal", "x"), preprocess=preprocess, model=model)
    torch.manual_seed(0)
    write_bundle(tmp_path / "bundle", manifest, {WEIGHTS: save(build_model(model, preprocess, 3).state_dict())})
    arguments = (
        f"finetune.py {table} --bundle {tmp_path / 'bundle'} --source here --positive COVID --per-class 4 --seeds 2 "
        f"--epochs 1 --per-epoch 16 --size 32 --resamples 20 --json {tmp_path / 'result.json'}"
    )
    monkeypatch.setattr(sys, "argv", arguments.split())
    finetune.main()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["images"]["test"] == {"Normal": 3, "COVID": 3}
    assert result["image_passes"] == 16
    assert result["bundle_saw_source"] is None
    assert 0 <= result["untouched"]["value"] <= 1
    (row,) = result["rows"]
    for way in ("finetuned", "imagenet"):
        assert row[way]["value"] == pytest.approx(np.mean(row["by_seed"][way]))
        assert row[way]["n"] == 6
    assert row["difference"]["value"] == pytest.approx(row["finetuned"]["value"] - row["imagenet"]["value"])


def test_draws_are_of_both_classes_repeated_and_the_same_for_both_ways(finetune: ModuleType) -> None:
    class Rows:
        labels = np.array([0] * 20 + [1] * 10)
        num_classes = 2

        def subset(self, rows: list[int]) -> list[int]:
            return rows

    rows = finetune.drawn(Rows(), 4, 32, 1)
    assert rows == finetune.drawn(Rows(), 4, 32, 1) != finetune.drawn(Rows(), 4, 32, 2)
    assert np.bincount(rows, minlength=30).tolist().count(4) == 8
    assert sum(Rows.labels[rows]) == 16
    with pytest.raises(SystemExit):
        finetune.drawn(Rows(), 11, 32, 1)
