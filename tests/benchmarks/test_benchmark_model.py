"""The tables of the shipped model beside its baseline, and the card that is made from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from score_making import scores_of
from sklearn.metrics import roc_auc_score

from hilum.backends.base import BackendOutput, Floats
from hilum.bundle.bundle import MODEL_CARD, ONNX_MODEL, WEIGHTS, Bundle, Manifest, load_bundle, write_bundle
from hilum.bundle.default import resolve_bundle
from hilum.bundle.prediction_sets import softmax
from hilum.config import ModelConfig, PreprocessSpec
from hilum.data.index import build_index
from hilum.evaluation.localization_table import LocalizationRow, LocalizationTable
from hilum.metrics.scores import Scores
from hilum.phantoms.chest import write_phantoms
from hilum.types import Record

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
ORIGINAL = {"Lung_Opacity": "Bacterial Pneumonia"}

Open = Callable[[str], ModuleType]


def _scores(seed: int, n: int = 240) -> tuple[Scores, list[dict[str, str]]]:
    """Images of kermany (no COVID), then of ieee8023 (COVID alone); a quarter has a mask."""
    random = np.random.default_rng(0)  # the same images for every seed
    labels = np.where(np.arange(n) < n - 40, random.integers(1, 4, n), 0)
    sources = ["kermany" if label else "ieee8023" for label in labels]
    logits = 1.5 * np.eye(4)[labels] + np.random.default_rng(seed).normal(size=(n, 4))
    dice = np.where(np.arange(n) % 4 == 0, random.uniform(0.8, 0.9, n) + 0.01 * seed, np.nan)
    pairings = ["gap" if row % 8 else "anchor" for row in range(n)]
    metas = [
        {
            "source": s, "original_label": ORIGINAL.get(NAMES[k], NAMES[k]),
            "mask_pairing": p if s == "kermany" else "file name",
        }
        for s, k, p in zip(sources, labels, pairings, strict=True)
    ]  # fmt: skip
    scores = scores_of(labels, softmax(logits), logits=logits, class_names=NAMES, sources=tuple(sources), dice=dice)
    return scores, metas


def test_kinds_of_two_classes_are_ranked_by_both_together(benchmark: Open) -> None:
    (a, metas), (b, _) = _scores(1), _scores(2)
    first, second, nih, covid = benchmark("model").within_source_rows(a, b, metas, 100)
    p, inside = b.probabilities, np.array(b.sources) == "kermany"
    both = np.log(p[inside, 1] + p[inside, 3]) - np.log(p[inside, 2])
    assert first["model"]["value"] == pytest.approx(roc_auc_score(b.labels[inside] != 2, both))
    pneumonia = inside & (b.labels != 2)
    viral = b.labels[pneumonia] == 3
    assert second["model"]["value"] == pytest.approx(roc_auc_score(viral, np.log(p[pneumonia, 3] / p[pneumonia, 1])))
    assert second["model"]["n"] == pneumonia.sum()
    for line in (first, second):
        difference = line["difference"]
        assert difference["value"] == pytest.approx(line["model"]["value"] - line["baseline"]["value"])
        assert difference["low"] < difference["value"] < difference["high"]
    assert covid["model"] is None
    assert covid["note"] == "the test split has no other pneumonia of it"
    assert nih["model"] is None


def test_dice_of_children_and_adults_by_pairing(benchmark: Open) -> None:
    (a, metas), (b, _) = _scores(1), _scores(2)
    lines = {line["figure"]: line for line in benchmark("model").dice_rows(a, b, metas, 100)}
    assert list(lines) == [
        "children (kermany), exact and inferred pairings", "children (kermany), exact pairings",
        "children (kermany), inferred pairings", "adults (ieee8023), exact pairings",
    ]  # fmt: skip
    every, exact, inferred, adults = lines.values()
    assert (every["model"]["n"], exact["model"]["n"], inferred["model"]["n"], adults["model"]["n"]) == (50, 25, 25, 10)
    assert exact["model"]["value"] == pytest.approx(np.mean(b.dice[:200:8]))
    assert every["difference"]["value"] == pytest.approx(0.01)


def _table(hits: dict[str, list[float]]) -> LocalizationTable:
    images = range(len(next(iter(hits.values()))))
    rest = (0.5, 0.4, 0.3, 0.9)
    return LocalizationTable(
        tuple(
            LocalizationRow(
                f"{image}.png", str(image), "COVID", "boxes" if image % 2 else "region", method, own[image], *rest
            )
            for image in images
            for method, own in hits.items()
        )
    )


def test_the_pointing_game_is_paired_also_with_the_baseline(benchmark: Open) -> None:
    a = _table({"grad-cam": [0, 0, 1, 0], "random in lung": [0.3] * 4})
    b = _table(
        {
            "evidence, predicted class": [0, 1, 1, 0],
            "evidence": [1, 1, 1, 0],
            "grad-cam": [1, 0, 0, 0],
            "location prior": [1, 0, 1, 0],
            "random in lung": [0.4] * 4,
        }
    )
    lines = benchmark("model").pointing_rows(a, b, 100)
    found = {(line["section"], line["figure"]): line for line in lines}
    every = "pointing game, regions and boxes"
    assert found[every, "evidence"]["baseline"] is None
    assert found[every, "grad-cam"]["baseline"]["value"] == found[every, "grad-cam"]["model"]["value"] == 0.25
    assert found[every, "evidence less grad-cam"]["model"]["value"] == 0.5
    assert found[every, "evidence less random in lung"]["model"]["value"] == pytest.approx(0.35)
    assert found[every, "evidence less grad-cam of the baseline"]["model"]["value"] == 0.5
    assert found[every, "location prior"]["model"]["value"] == 0.5
    assert found[every, "evidence less location prior"]["model"]["value"] == 0.25
    assert found[every, "evidence, predicted class less location prior"]["model"]["value"] == 0
    assert (every, "evidence, predicted class less random in lung") not in found
    assert found["pointing game, boxes", "evidence"]["model"]["value"] == 0.5
    assert found["pointing game, region", "evidence less grad-cam of the baseline"]["model"]["n"] == 2
    with pytest.raises(SystemExit):
        benchmark("model").pointing_rows(LocalizationTable(a.rows[:-2]), b, 100)
    assert benchmark("model").pointing_rows(None, b, 100) == []


def _images() -> tuple[list[Record], dict[Path, dict[str, str]]]:
    """60 images of two classes; one source and one class are small."""
    records, meta_of = [], {}
    for row in range(60):
        label, source = ("COVID", "b") if row < 6 else ("Normal", "b" if row < 20 else "a")
        mask = Path(f"{row}-mask.png") if row % 10 == 0 else None
        split = ("train", "val", "test")[row % 3]
        records.append(Record(Path(f"{row}.png"), mask, label, source=source, split=split))
        meta_of[records[-1].image_path] = {
            "source": source, "label": label, "split": split, "mask_pairing": "gap" if mask else "",
            "license": "" if source == "b" else "CC BY-NC 4.0", "original_repository": f"someone/{source}",
        }  # fmt: skip
    return records, meta_of


def test_facts_of_the_data_are_counts_of_the_table(benchmark: Open) -> None:
    facts = benchmark("model_data").data_facts(*_images())
    assert facts["classes"] == {
        "COVID": {"train": 2, "val": 2, "test": 2}, "Normal": {"train": 18, "val": 18, "test": 18},
    }  # fmt: skip
    assert list(facts["sources"]) == ["a", "b"]
    assert facts["sources"]["b"] == {
        "images": 20,
        "classes": {"COVID": 6, "Normal": 14},
        "repositories": ["someone/b"],
        "licenses": {"none stated": 20},
    }
    assert [(mask["source"], mask["pairing"], mask["images"]) for mask in facts["masks"]] == [
        ("a", "gap", 4),
        ("b", "gap", 2),
    ]
    assert facts["masks_by_split"] == {"train": 2, "val": 2, "test": 2}


def test_images_are_drawn_as_they_are_shared_out(benchmark: Open) -> None:
    records, _ = _images()
    drawn = benchmark("shortcuts_of_models").drawn
    chosen = drawn(records, 30)
    assert chosen == drawn(records, 30)
    assert chosen != drawn(records, 30, seed=1)
    assert [records.index(r) for r in chosen] == sorted(records.index(r) for r in chosen)
    assert len(chosen) == 30
    assert sum(r.label == "COVID" for r in chosen) == 3
    assert sum(r.source == "b" for r in chosen) == 10
    assert drawn(records, 100) == records


class _Reader:
    """Class 1 where a part of the image is bright."""

    def __init__(self, *part: slice) -> None:
        self.part = part

    def run(self, images: Floats) -> BackendOutput:
        bright = images[(slice(None), 0, *self.part)].mean(axis=(1, 2))
        return BackendOutput(images, np.stack([np.zeros_like(bright), bright - 0.55], axis=1), None)


def test_a_model_that_reads_lungs_beside_one_that_reads_the_border(benchmark: Open) -> None:
    shortcuts, random = benchmark("shortcuts_of_models"), np.random.default_rng(0)
    labels = np.repeat([0, 1], [36, 24])
    tone = np.where(labels == 1, 200, 60).astype(np.uint8)[:, None, None]
    images = random.integers(98, 103, (60, 32, 32)).astype(np.uint8)
    images[:, 8:24, 7:14] = images[:, 8:24, 18:25] = images[:, :2] = tone
    lungs = np.zeros((60, 32, 32), bool)
    lungs[:, 8:24, 7:14] = lungs[:, 8:24, 18:25] = True
    lungs[0] = False  # left out
    scores = scores_of(labels, np.full((60, 2), 0.5))
    radiographs, spec = shortcuts.Images(images, lungs, scores), PreprocessSpec(size=32)
    readers = _Reader(slice(0, 2), slice(0, 32)), _Reader(slice(14, 18), slice(8, 12))
    (one, a), (two, b) = (shortcuts.audited(reader, spec, 1.0, radiographs, 100, "reader") for reader in readers)
    for result, answers in ((one, a), (two, b)):  # what was recorded is what was scored
        assert [score.treatment for score in result.scores] == list(answers)
        for score in result.scores:
            own = answers[score.treatment]
            assert score.accuracy.value == pytest.approx((own.predicted == own.labels).mean())
    apart = shortcuts.differences(a, b, 100)
    assert apart["erased_mean index"].value == pytest.approx(-1)
    assert apart["erased_mean index ratio"].value == pytest.approx(0)
    same = shortcuts.differences(a, a, 100)
    assert (same["erased_mean index"].value, same["erased_mean index"].no_interval) == (0, "no_spread")
    lines = shortcuts.rows_of((one, two), apart)
    assert lines[0]["figure"] == "erased inpaint"
    assert (lines[0]["baseline"]["value"], lines[0]["model"]["value"]) == (1, 0)
    assert lines[0]["model"]["n"] == 59
    assert {line["section"] for line in lines} == {"shortcut index", "AUROC", "AUROC, refitted", "accuracy"}
    (border,) = (one for one in lines if one["section"] == "AUROC, refitted" and one["figure"] == "border only")
    assert (border["baseline"]["value"], border["model"]["value"], border["difference"]["value"]) == (1, 0.5, -0.5)


def test_lungs_stand_in_the_square_of_each_model(benchmark: Open, tmp_path: Path) -> None:
    shortcuts = benchmark("shortcuts_of_models")
    write_phantoms(tmp_path, 4)
    records = build_index(tmp_path, check=False).records
    specs = [PreprocessSpec(size=size) for size in (32, 64)]
    lungs = np.zeros((4, 32, 32), bool)
    lungs[1:, 8:24, 4:14] = lungs[1:, 8:24, 18:28] = True
    scores, _ = _scores(1)
    small, large = shortcuts.in_squares(shortcuts.Images(np.zeros((4, 32, 32)), lungs, scores), specs, records)
    assert (small.images.shape, large.images.shape) == ((4, 32, 32), (4, 64, 64))
    assert np.array_equal(small.lungs, lungs)
    assert large.lungs.any(axis=(1, 2)).tolist() == [False, True, True, True]
    assert np.argwhere(large.lungs[1]).min(axis=0).tolist() == [16, 8]


def test_ratios_of_time_are_taken_within_rounds(benchmark: Open) -> None:
    taken = {"ours": [(0.01, 0.01), (0.03, 0.02)], "original": [(0.1, 0.1), (0.2, 0.2)]}
    ours, original = benchmark("cpu_time").summary(taken, 1)["rows"]
    assert (ours["ratio"]["min"], ours["ratio"]["max"]) == pytest.approx((0.1, 0.15))
    assert ours["wall_ms"]["median"] == pytest.approx(20)
    assert original["ratio"]["median"] == 1


def _gate_rows() -> list[tuple[str, str]]:
    rows = json.loads((ROOT / "benchmarks" / "results" / "gate.json").read_text(encoding="utf-8"))["rows"]
    return [(row["section"], row["figure"]) for row in rows]


def _results(benchmark: Open) -> dict[str, dict[str, Any]]:
    """Result files as the benchmarks write them, of the images above."""
    (a, metas), (b, _) = _scores(1), _scores(2)
    model, facts = benchmark("model"), benchmark("model_data").data_facts
    identity = {
        "name": "ours", "network": "evidence", "encoder": "an_encoder", "temperature": 1.5, "weights": "ab" * 32,
        "preprocess": {"size": 64, "channels": 1, "fit": "pad"},
        "parameters": 1234, "weights_dtype": "float16 storage", "imagenet": True,
        "trainings": [{"epochs": 5, "size": 64}, {"epochs": 2, "size": 96}],
    }  # fmt: skip
    interval = {"value": 0.75, "low": 0.5, "high": 0.875, "n": 9}
    lines = [*model.within_source_rows(a, b, metas, 100), *model.overall_rows(a, b, 100)]
    lines = [line | {"model": interval} if line["figure"].startswith("nih") else line for line in lines]
    maps = ("evidence", "evidence, predicted class", "location prior", "random in lung",
            "evidence, predicted class less location prior")  # fmt: skip
    lines += [_line("pointing game, regions and boxes", figure, interval) for figure in maps]
    treatments = ("erased_blur", "erased_mean", "border_only", "background_other_class")
    erased = [
        _line(section, name.replace("_", " "), interval) for section in ("AUROC", "accuracy") for name in treatments
    ]
    spread = {"median": 0.1, "min": 0.05, "max": 0.2}
    row = {"way": "evidence, ONNX Runtime", "wall_ms": spread, "ratio": spread}
    finding = {"severity": "error", "records": [], "message": "not shown"}
    table = {
        "command": "model", "split": {"digest": "cd" * 32}, "class_names": ["COVID", "Normal"], "rows": lines,
        "models": {"baseline": {**identity, "network": "unet"}, "model": identity}, "calibration": None,
        "held_out": {"baseline": [], "model": [
            {"source": "ieee8023", "accuracy": interval, "accuracy_with": interval, "fall": interval},
        ]},
        "data": facts(*_images()), "other_masks": facts([], {}),
    }  # fmt: skip
    return json.loads(json.dumps({
        "model": table, "model_equal": table,
        "shortcuts": {
            "command": "shortcuts", "split": {"digest": "cd" * 32, "images": 60}, "images": 59, "reference_masks": 6,
            "majority_share": 0.625, "rows": erased, "models": {},
        },
        "ablation": {
            "passes": 6400, "planned": ["as shipped", "encoder-unet, none of these"],
            "variants": {"as shipped": {
                "figures": {"macro_f1": interval, "kermany_normal_opacity": interval},
                "pointing_test": {"evidence": interval},
            }},
        },
        "cpu_time": {
            "command": "time", "size": 64, "rounds": 3, "processors": 2, "processor": "one of ours",
            "results": [{"threads": 1, "rows": [row]}],
        },
        "training_hashes": {
            "split": "test",
            "by_sides": [
                {"hashed_at": 224, "looked_for_at": 128, "found": {}, "false": {}},
                {
                    "hashed_at": 128,
                    "looked_for_at": 128,
                    "found": {"all": interval | {"hits": 3}},
                    "false": interval | {"hits": 0},
                },
            ],
            "packaged": {"method": "dct-256", "images": 1234, "complete": True, "note": "Made by hand."},
        },
        "gate": {
            "command": "gate", "split": {"digest": "cd" * 32}, "learned_from": {"slice": 70},
            "rows": [
                {"section": section, "figure": figure, "must": "", "classic": interval, "learned": interval}
                for section, figure in _gate_rows()
            ],
        },
        "audit": {
            "command": "audit", "data": {"images": 7},
            "model": {
                "scores": [{"treatment": name, "auc": interval, "accuracy": interval} for name in treatments],
            },
            "duplicates": {
                "near_pairs": 7, "split_names": ["train", "val", "test"], "by_split": [[1, 2, 3], [2, 0, 1], [3, 1, 0]],
            },
            "probes": [{"positive": "Normal", "negative": "COVID", "probe": "border", "auc": interval}],
            "findings": [
                {**finding, "check": "shortcut_border"},
                {**finding, "check": "shortcut_file", "severity": "info"},
                {**finding, "check": "probe_thumbnail"},
            ],
        },
    }))  # fmt: skip


def _line(section: str, figure: str, interval: dict[str, float]) -> dict[str, Any]:
    return {"section": section, "figure": figure, "baseline": None, "model": interval, "difference": None, "note": ""}


@pytest.fixture(scope="module")
def packaged() -> Bundle:
    return load_bundle(resolve_bundle(None))


def test_the_card_is_made_of_the_results(benchmark: Open, packaged: Bundle) -> None:
    results = _results(benchmark)
    card = benchmark("model_card").card(results, packaged)
    for value in ("an_encoder", "1,234 parameters", "100 image passes at 64 pixels, then 40 image passes at 96 pixels",
                  "40 images have", "one of ours"):  # fmt: skip
        assert value in card
    assert "| Normal | 18 | 18 | 18 | 54 |" in card
    assert "| COVID, Normal | b |  | 0.75 (0.50–0.88) |" in card
    first = results["model"]["rows"][0]["model"]
    assert f"{first['value']:.3f} ({first['low']:.3f}–{first['high']:.3f})" in card
    assert "train–val 2, train–test 3, val–test 1" in card
    assert "1 of the probes" in card
    precisions = packaged.manifest.agreement
    assert all(
        f"| {precision}, {own.backend} | {own.split}, {own.n:,} |" in card for precision, own in precisions.items()
    )
    none = Bundle(packaged.manifest.model_copy(update={"agreement": {}}), {}, packaged.path)
    assert "Reduced precision" not in benchmark("model_card").card(results, none)
    assert "not shown" not in card


def test_the_card_says_what_the_plainer_network_does_as_well(benchmark: Open, packaged: Bundle) -> None:
    results = _results(benchmark)
    pairs = (("accuracy", "background other class"), ("pointing game, regions and boxes", "location prior"))
    for section, figure in pairs:
        row = next(r for r in (*results["shortcuts"]["rows"], *results["model"]["rows"])
                   if (r["section"], r["figure"]) == (section, figure))  # fmt: skip
        row["model"] = {"value": 0.125, "low": 0.0625, "high": 0.25, "n": 9}
        card = benchmark("model_card").card(results, packaged)
        assert "0.125 (0.062–0.250)" in card[card.index("## Trade-off") : card.index("## What the recipe")]


def test_the_card_that_is_shipped_is_that_of_the_result_files(benchmark: Open, packaged: Bundle) -> None:
    module = benchmark("model_card")
    text = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    results = {name: module.load(name) for name in module.NEEDED}
    assert module.card(results, packaged) == text, "run: python benchmarks/model_card.py --write"
    assert packaged.read(MODEL_CARD).decode() == text, "run it with --seal, too"


def test_a_card_is_sealed_into_the_bundle_of_its_weights_alone(benchmark: Open, tmp_path: Path) -> None:
    manifest = Manifest(
        name="ours", class_names=("a", "b"), preprocess=PreprocessSpec(size=64), model=ModelConfig(name="unet")
    )
    files = {MODEL_CARD: b"old", WEIGHTS: b"weights", ONNX_MODEL: b"graph"}
    first = write_bundle(tmp_path / "bundle", manifest, files)
    benchmark("model_card").seal(tmp_path / "bundle", f"new, of {first.files[WEIGHTS]}")
    sealed = load_bundle(tmp_path / "bundle")
    assert sealed.read(MODEL_CARD).startswith(b"new, of ")
    assert (sealed.read(WEIGHTS), sealed.read(ONNX_MODEL)) == (b"weights", b"graph")
    assert sealed.manifest.bundle_id != first.bundle_id
    with pytest.raises(SystemExit):
        benchmark("model_card").seal(tmp_path / "bundle", "of 0123")
    assert load_bundle(tmp_path / "bundle").manifest == sealed.manifest
