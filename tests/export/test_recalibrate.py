"""A bundle fitted to local images: its numbers change, its network does not, and predictions follow."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.bundle.bundle import MODEL_CARD, ONNX_MODEL, WEIGHTS, Manifest, load_bundle, write_bundle
from hilum.bundle.prediction_sets import LEVELS, prediction_set, softmax
from hilum.bundle.training_hashes import KnownImages, known_images
from hilum.cli.recalibrate import app
from hilum.config import ModelConfig, PreprocessSpec
from hilum.data.image_hash import image_hashes
from hilum.data.index import build_index
from hilum.errors import DataError
from hilum.export.recalibrate import Recalibration, cross_fitted, recalibrate
from hilum.gate import NoGate
from hilum.imaging.preprocess import fit_image, preprocess
from hilum.imaging.read import read_radiograph
from hilum.inference.predictor import Predictor
from hilum.inference.result import Prediction
from hilum.metrics.calibration import fit_temperature
from hilum.phantoms.chest import PHANTOM_CLASSES, write_phantoms
from hilum.progress import Step
from hilum.types import Finding

NAMES = tuple(sorted(PHANTOM_CLASSES))
CARD = "# A model\n\nWords.\n\n## What it cannot tell\n\nMuch.\n"
SPEC = PreprocessSpec(size=32)


def network() -> bytes:
    """Lung where it is bright; each logit a steep line in the image's mean: far too sure of itself."""
    slopes, offsets = np.array([[40.0, -30.0, 20.0, -25.0]], np.float32), np.array([-16, 12, -8, 10], np.float32)
    nodes = [
        helper.make_node("Identity", ["input"], ["segmentation"]),
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
        helper.make_node("Gemm", ["column", "slopes", "offsets"], ["classification"]),
    ]
    square = ["n", 1, 32, 32]
    graph = helper.make_graph(
        nodes,
        "steep",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, square)],
        [
            helper.make_tensor_value_info("segmentation", TensorProto.FLOAT, square),
            helper.make_tensor_value_info("classification", TensorProto.FLOAT, ["n", 4]),
        ],
        [
            onnx.numpy_helper.from_array(slopes, "slopes"),
            onnx.numpy_helper.from_array(offsets, "offsets"),
            onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 phantoms of 32 pixels, in groups of one to three."""
    folder = tmp_path_factory.mktemp("local") / "data"
    write_phantoms(folder, 160, size=32)
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "old.hilum"
    manifest = Manifest(
        name="steep", class_names=NAMES, preprocess=SPEC, model=ModelConfig(), temperature=1.25, index_digest="0" * 64
    )
    write_bundle(path, manifest, {ONNX_MODEL: network(), WEIGHTS: b"weights", MODEL_CARD: CARD.encode()})
    return path


@pytest.fixture(scope="module")
def done(data: Path, old: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recalibration, Path]:
    """What a recalibration gave, and where its bundle is."""
    out = tmp_path_factory.mktemp("new") / "new.hilum"
    return recalibrate(old, data, out, target_accuracy=0.1, resamples=100), out


def logits_of(data: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(N, 4) logits straight from the files, (N,) labels, N groups."""
    records = build_index(data).records
    images = np.stack([preprocess(read_radiograph(record.image_path), SPEC) for record in records])
    labels = np.array([NAMES.index(str(record.label)) for record in records])
    return OnnxRuntimeBackend(network()).run(images).classification, labels, [str(record.group) for record in records]


# What it writes


def test_images_join_the_hashes_of_training_images_and_those_among_them_are_named(
    data: Path, old: Path, tmp_path: Path
) -> None:
    records = build_index(data).records
    chosen = records[::4]
    images = np.stack([fit_image(read_radiograph(record.image_path), SPEC) for record in records])
    known = KnownImages("all", image_hashes(images[::4]))
    facts, files = known.files()
    before = load_bundle(old)
    contents = {name: before.read(name) for name in before.manifest.files}
    write_bundle(tmp_path / "known", before.manifest.model_copy(update=facts), {**contents, **files})
    found: list[Finding] = []
    recalibrate(
        tmp_path / "known", data, tmp_path / "new", target_accuracy=0.1, resamples=100, step=Step(found=found.extend)
    )
    after = load_bundle(tmp_path / "new")
    assert facts["training_hashes"].images < known_images(after).find(images).sum() == len(records)
    assert after.manifest.training_hashes is not None
    assert after.manifest.training_hashes.complete
    assert after.manifest.calibration["in_training_data"] >= len(chosen)
    (said,) = [finding for finding in found if finding.check == "seen_before"]
    assert {Path(name).name for name in said.records} >= {record.image_path.name for record in chosen}


def test_without_hashes_of_these_images_those_of_the_bundle_are_a_part(data: Path, old: Path, tmp_path: Path) -> None:
    before = load_bundle(old)
    facts, files = KnownImages("all", np.zeros((1, 32), np.uint8)).files()
    contents = {name: before.read(name) for name in before.manifest.files}
    write_bundle(tmp_path / "known", before.manifest.model_copy(update=facts), {**contents, **files})
    for number, (bundle, extent) in enumerate([(tmp_path / "known", "part"), (old, "none")]):
        out = tmp_path / f"new-{number}"
        recalibrate(bundle, data, out, training_hashes=False, resamples=10)
        known = known_images(load_bundle(out))
        assert known.extent == extent
        assert len(known.hashes) == (extent == "part")


def test_the_network_stays_and_the_numbers_change(old: Path, done: tuple[Recalibration, Path]) -> None:
    result, out = done
    before, after = load_bundle(old), load_bundle(out)
    assert after.manifest == result.manifest
    for name in (ONNX_MODEL, WEIGHTS):
        assert after.read(name) == before.read(name)
        assert after.manifest.files[name] == before.manifest.files[name]
    changed = {
        name for name in Manifest.model_fields if getattr(after.manifest, name) != getattr(before.manifest, name)
    }
    assert changed == {
        "bundle_id", "temperature", "conformal_quantiles", "abstention_threshold", "calibration", "files",
        "training_hashes",
    }  # fmt: skip
    assert known_images(after).extent == "part"  # the old bundle has no hashes of its own training images


def test_the_numbers_are_those_of_the_files(data: Path, done: tuple[Recalibration, Path]) -> None:
    manifest = done[0].manifest
    logits, labels, groups = logits_of(data)
    assert manifest.temperature == pytest.approx(fit_temperature(logits.astype(np.float64), labels), rel=1e-4)
    assert manifest.temperature > 2
    assert set(manifest.conformal_quantiles) == set(LEVELS)
    facts = manifest.calibration
    assert (facts["images"], facts["groups"], facts["split"]) == (160, len(set(groups)), "all")
    assert facts["digest"] == build_index(data).digest
    assert facts["classes"] == dict.fromkeys(NAMES, 40)
    assert facts["before"]["nll"]["n"] == 160
    wrong = -np.log(softmax(logits, 1.25)[np.arange(160), labels]).mean()
    assert facts["before"]["nll"]["value"] == pytest.approx(wrong, rel=1e-4)


def test_it_gets_better_on_images_that_it_was_not_fitted_on(done: tuple[Recalibration, Path]) -> None:
    result = done[0]
    assert result.after.nll.high < result.before.nll.low
    assert result.after.ece.value < result.before.ece.value
    assert result.after.nll.n == result.calibration.n == 160


def test_the_seed_moves_intervals_and_folds_but_not_what_is_fitted(
    data: Path, old: Path, done: tuple[Recalibration, Path], tmp_path: Path
) -> None:
    out = tmp_path / "moved.hilum"
    command = [str(old), str(data), "-o", str(out), "--target-accuracy", "0.5", "--resamples", "100", "--seed", "7"]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    moved, first = load_bundle(out).manifest, done[0].manifest
    assert moved.temperature == first.temperature
    assert moved.calibration["before"]["nll"]["value"] == first.calibration["before"]["nll"]["value"]
    assert moved.calibration["before"]["nll"]["low"] != first.calibration["before"]["nll"]["low"]
    assert (
        moved.calibration["after_cross_fitted"]["nll"]["value"]
        != first.calibration["after_cross_fitted"]["nll"]["value"]
    )


def test_predictions_use_it(data: Path, done: tuple[Recalibration, Path]) -> None:
    manifest = done[0].manifest
    logits, _, _ = logits_of(data)
    files = [record.image_path for record in build_index(data).records]
    predictor = Predictor(load_bundle(done[1]), gate=NoGate())
    assert manifest.abstention_threshold is not None
    for file, row in zip(files[::16], logits[::16], strict=True):
        prediction = predictor.predict(file)
        assert isinstance(prediction, Prediction)
        expected = softmax(row[None], manifest.temperature)[0]
        np.testing.assert_allclose(list(prediction.probabilities.values()), expected, atol=1e-4)
        assert prediction.prediction_set == prediction_set(
            np.array(list(prediction.probabilities.values())), NAMES, manifest.conformal_quantiles["0.90"]
        )
        assert prediction.abstained == (prediction.probability < manifest.abstention_threshold)


def test_the_model_card_says_it_once(data: Path, done: tuple[Recalibration, Path], tmp_path: Path) -> None:
    card = load_bundle(done[1]).read(MODEL_CARD).decode()
    assert card.startswith(CARD)
    assert card.count("## Calibration") == 1
    assert "temperature 1.250;" in card
    assert f"temperature {done[0].manifest.temperature:.3f};" in card
    again = recalibrate(done[1], data, tmp_path / "again", resamples=10)
    second = load_bundle(tmp_path / "again").read(MODEL_CARD).decode()
    assert second.startswith(CARD)
    assert second.count("## Calibration") == 1
    assert again.manifest.calibration["recalibrated_from"] == done[0].manifest.bundle_id
    assert again.manifest.temperature == done[0].manifest.temperature  # fitted on logits, not on its own result
    assert again.manifest.bundle_id != done[0].manifest.bundle_id


# What it refuses


def test_fewer_than_a_hundred_labeled_images(data: Path, old: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        recalibrate(old, data, tmp_path / "new", classes=NAMES[:2])
    assert caught.value.hint
    assert not (tmp_path / "new").exists()
    assert recalibrate(old, data, tmp_path / "new", classes=NAMES[:2], min_images=80, resamples=10).calibration.n == 80


def test_other_classes_than_the_bundles(old: Path, tmp_path: Path, data: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [[record.image_path, record.label] for record in build_index(data).records]
    rows[0][1] = "Tuberculosis"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "label"], *rows])
    with pytest.raises(DataError) as caught:
        recalibrate(old, table, tmp_path / "new")
    assert "--class" in caught.value.hint


def test_the_training_data(data: Path, old: Path, tmp_path: Path) -> None:
    bundle = load_bundle(old)
    same = bundle.manifest.model_copy(update={"index_digest": build_index(data).digest})
    write_bundle(tmp_path / "trained", same, {name: bundle.read(name) for name in bundle.manifest.files})
    with pytest.raises(DataError):
        recalibrate(tmp_path / "trained", data, tmp_path / "new")


def test_a_split_and_a_class_without_images(data: Path, old: Path, tmp_path: Path) -> None:
    records = build_index(data).records
    kept = [record for record in records if record.label != NAMES[3]]
    held_out = {record.group for record in kept[::2]}
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "group", "split"])
        for record in kept:
            part = "val" if record.group in held_out else "train"
            writer.writerow([record.image_path, record.label, record.group, part])
    said: list[Finding] = []
    result = recalibrate(
        old,
        tmp_path / "table.csv",
        tmp_path / "new",
        split="val",
        min_images=20,
        resamples=10,
        step=Step(found=said.extend),
    )
    assert result.calibration.split == "val"
    assert result.calibration.n == sum(record.group in held_out for record in kept) < len(kept)
    assert result.images[NAMES[3]] == 0
    assert [finding.check for finding in said if NAMES[3] in finding.message] == ["class_without_images"]
    assert all(quantiles[3] == 1 for quantiles in result.manifest.conformal_quantiles.values())


# Cross-fitting


def test_no_image_is_divided_by_a_temperature_that_its_group_had_part_in() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 60, 200)
    labels = rng.integers(0, 3, 200)
    logits = rng.normal(0, 1, (200, 3)) + 2 * np.eye(3)[labels]
    used = (logits / cross_fitted(logits, labels, clusters))[:, 0]
    temperatures = {round(value, 9) for value in used}
    assert len(temperatures) == 5
    by_group = {group: {round(value, 9) for value in used[clusters == group]} for group in clusters}
    assert all(len(values) == 1 for values in by_group.values())
    for value in temperatures:
        others = np.abs(used - value) > 1e-8
        assert fit_temperature(logits[others], labels[others]) == pytest.approx(value, abs=1e-6)


def test_class_temperatures_are_cross_fitted_too() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000)
    logits = rng.normal(0, 1, (2000, 2)) + np.eye(2)[labels]
    logits[logits.argmax(axis=1) == 1] *= 4
    used = (logits / cross_fitted(logits, labels, np.arange(2000), "predicted-class"))[:, 0]
    second = logits.argmax(axis=1) == 1
    assert len({round(value, 9) for value in used[second]}) == 5
    assert used[second].mean() == pytest.approx(4 * used[~second].mean(), rel=0.3)


def test_too_few_groups_are_a_data_error() -> None:
    with pytest.raises(DataError):
        cross_fitted(np.zeros((40, 2)), np.arange(40) % 2, np.arange(40) % 4)


# The command


def test_the_command_prints_before_and_after(data: Path, old: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.hilum"
    result = CliRunner().invoke(
        app, [str(old), str(data), "--output", str(out), "--resamples", "100"], env={"COLUMNS": "140"}
    )
    assert result.exit_code == 0, result.output
    printed = result.output
    manifest = load_bundle(out).manifest
    facts = manifest.calibration
    for column in ("before", "after_cross_fitted"):
        for name in ("ece", "brier", "nll"):
            assert f"{facts[column][name]['value']:.3f} (" in printed
    assert "160 images" in printed
    assert f"Temperature {manifest.temperature:.3f}." in printed
    assert "No abstention threshold" in printed  # this network is mostly wrong
    assert f"Wrote bundle {manifest.bundle_id[:12]}" in printed


def test_a_bundle_for_each_predicted_class(data: Path, old: Path, tmp_path: Path) -> None:
    """Predictions of the written bundle use its temperatures and thresholds."""
    arguments = ["--calibrate-per", "predicted-class", "--target-accuracy", "0.5", "--resamples", "100"]
    result = CliRunner().invoke(
        app, [str(old), str(data), "--output", str(tmp_path / "new"), *arguments], env={"COLUMNS": "140"}
    )
    assert result.exit_code == 0, result.output
    bundle = load_bundle(tmp_path / "new")
    manifest = bundle.manifest
    assert manifest.class_temperatures is not None
    assert manifest.class_thresholds is not None
    assert all(f"{own:.3f}" in result.output for own in manifest.class_temperatures)
    assert all(f"{own:.3f}" in bundle.read(MODEL_CARD).decode() for own in manifest.class_temperatures)
    logits, _, _ = logits_of(data)
    predictor = Predictor(bundle, gate=NoGate())
    for file, row in zip([r.image_path for r in build_index(data).records][::16], logits[::16], strict=True):
        prediction = predictor.predict(file)
        assert isinstance(prediction, Prediction)
        best = int(row.argmax())
        expected = softmax(row[None], manifest.class_temperatures[best])[0]
        np.testing.assert_allclose(list(prediction.probabilities.values()), expected, atol=1e-4)
        threshold = manifest.class_thresholds[best]
        assert prediction.abstained == (threshold is None or prediction.probability < threshold)
