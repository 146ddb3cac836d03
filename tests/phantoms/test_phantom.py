"""Phantoms: exact masks, classes that only the opacity tells apart, and the folder that holds them."""

from __future__ import annotations

import csv
import itertools
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from hilum.errors import ConfigError, DataError, OutputError
from hilum.phantoms.chest import METADATA_COLUMNS, PHANTOM_CLASSES, Phantom, draw_phantom, write_phantoms

SIZE = 64
DISEASES = ("COVID", "Lung_Opacity", "Viral Pneumonia")


def _read(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "metadata.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def _halves(phantom: Phantom) -> tuple[np.ndarray, np.ndarray]:
    """The two lungs, image left first."""
    count, labels = cv2.connectedComponents(phantom.lung_mask.astype(np.uint8))
    assert count == 3
    lungs = sorted((labels == 1, labels == 2), key=lambda lung: np.nonzero(lung)[1].mean())
    return lungs[0], lungs[1]


@pytest.mark.parametrize("label", PHANTOM_CLASSES)
@pytest.mark.parametrize("size", [32, 64, 100])
def test_shapes_and_types(label: str, size: int) -> None:
    phantom = draw_phantom(3, label, size=size)
    assert phantom.image.shape == phantom.lung_mask.shape == phantom.region_mask.shape == (size, size)
    assert phantom.image.dtype == np.uint8
    assert phantom.lung_mask.dtype == phantom.region_mask.dtype == np.bool_
    assert phantom.label == label
    assert phantom.image.max() > 180
    assert len(_halves(phantom)) == 2


@pytest.mark.parametrize("label", PHANTOM_CLASSES)
def test_same_arguments_same_phantom(label: str) -> None:
    first, second, other = (draw_phantom(seed, label, size=SIZE) for seed in (5, 5, 6))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.lung_mask, second.lung_mask)
    assert np.array_equal(first.region_mask, second.region_mask)
    assert not np.array_equal(first.image, other.image)
    assert first.group != other.group


def test_drawing_is_the_same_at_every_size() -> None:
    small, large = draw_phantom(8, "COVID", size=64), draw_phantom(8, "COVID", size=256)
    for name in ("lung_mask", "region_mask"):
        mask = getattr(small, name)
        shrunk = cv2.resize(getattr(large, name).astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA) > 0.5
        dice = 2 * (mask & shrunk).sum() / (mask.sum() + shrunk.sum())
        assert dice > 0.93, name
    shrunk_image = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(small.image.ravel(), shrunk_image.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("seed", range(12))
def test_lungs_are_darker_than_what_surrounds_them(seed: int) -> None:
    phantom = draw_phantom(seed, "Normal", size=SIZE)
    lungs = phantom.lung_mask.astype(np.uint8)
    ring = (cv2.dilate(lungs, np.ones((7, 7), np.uint8)) - cv2.dilate(lungs, np.ones((3, 3), np.uint8))) > 0
    assert np.median(phantom.image[phantom.lung_mask]) < np.median(phantom.image[ring]) - 20


@pytest.mark.parametrize("seed", range(12))
def test_anatomy_has_its_sides(seed: int) -> None:
    """The heart takes from the patient's left lung, at the image's right; the patient's right dome is higher."""
    left, right = _halves(draw_phantom(seed, "Normal", size=128))
    assert left.sum() > right.sum()
    assert 0.12 < (left | right).mean() < 0.35
    rows = np.nonzero(left | right)[0]
    assert rows.min() > 0
    assert rows.max() < 127


@pytest.mark.parametrize("label", DISEASES)
@pytest.mark.parametrize("seed", range(6))
def test_region_is_the_exact_support_of_the_opacity(label: str, seed: int) -> None:
    sick, well = draw_phantom(seed, label, size=SIZE), draw_phantom(seed, "Normal", size=SIZE)
    changed = sick.image != well.image
    reach = cv2.dilate(sick.lung_mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert np.array_equal(sick.lung_mask, well.lung_mask)
    assert not (changed & ~sick.region_mask).any()
    assert changed[sick.region_mask].mean() > 0.7
    assert not (sick.region_mask & ~reach).any()
    brighter = sick.image[sick.region_mask].astype(int) - well.image[sick.region_mask]
    assert brighter.mean() > 4


@pytest.mark.parametrize("seed", range(12))
def test_each_class_has_its_pattern(seed: int) -> None:
    share = {}
    for label in PHANTOM_CLASSES:
        phantom = draw_phantom(seed, label, size=SIZE)
        share[label] = sorted(float((phantom.region_mask & lung).sum() / lung.sum()) for lung in _halves(phantom))
    assert share["Normal"] == [0, 0]
    assert not draw_phantom(seed, "Normal", size=SIZE).region_mask.any()
    assert share["Lung_Opacity"][0] < 0.02 < 0.1 < share["Lung_Opacity"][1]
    assert share["COVID"][0] > 0.04
    assert share["Viral Pneumonia"][0] > 0.4


def test_covid_is_peripheral_and_viral_pneumonia_central() -> None:
    reach = defaultdict(list)
    for seed, label in itertools.product(range(10), ("COVID", "Viral Pneumonia")):
        phantom = draw_phantom(seed, label, size=SIZE)
        middle = np.nonzero(phantom.lung_mask)[1].mean()
        away = np.abs(np.arange(SIZE) - middle)[None, :] * np.ones((SIZE, 1))
        spared = phantom.lung_mask & ~phantom.region_mask
        reach[label].append(away[phantom.region_mask].mean() - away[spared].mean())
    assert min(reach["COVID"]) > 0
    assert max(reach["Viral Pneumonia"]) < 0


def test_mean_brightness_does_not_tell_the_class() -> None:
    means = {
        label: np.array([draw_phantom(1000 * k + i, label, size=SIZE).image.mean() for i in range(50)])
        for k, label in enumerate(PHANTOM_CLASSES)
    }
    for first, second in itertools.combinations(PHANTOM_CLASSES, 2):
        a, b = means[first][:, None], means[second][None, :]
        auc = float((a < b).mean() + 0.5 * (a == b).mean())
        assert 0.3 < auc < 0.7, (first, second)
    assert np.concatenate(list(means.values())).std() > 8


def test_images_of_one_patient_differ_but_share_the_group() -> None:
    first, second = (draw_phantom(seed, "Normal", size=SIZE, patient=4) for seed in (10, 11))
    assert first.group == second.group == draw_phantom(4, "COVID", size=SIZE).group
    assert not np.array_equal(first.image, second.image)
    assert first.group != draw_phantom(10, "Normal", size=SIZE).group


@pytest.mark.parametrize(
    ("seed", "label", "size", "patient"),
    [(0, "covid", 64, None), (0, "COVID", 31, None), (-1, "COVID", 64, None), (0, "COVID", 64, -1)],
)
def test_bad_arguments_are_refused(seed: int, label: str, size: int, patient: int | None) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        draw_phantom(seed, label, size=size, patient=patient)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "new"
    assert write_phantoms(out, 42, size=SIZE, seed=1) == out / "metadata.csv"
    return out


def test_folder_layout(folder: Path) -> None:
    rows = _rows(folder)
    assert tuple(rows[0]) == METADATA_COLUMNS == ("image", "mask", "label", "group", "source", "region")
    named = {row[column] for row in rows for column in ("image", "mask", "region")} - {""}
    assert named | {"metadata.csv"} == set(_files(folder))
    for row in rows:
        stem = Path(row["image"]).stem
        assert row["image"] == f"{row['label']}/images/{stem}.png"
        assert row["mask"] in ("", f"{row['label']}/masks/{stem}.png")
        assert row["region"] == f"{row['label']}/regions/{stem}.png"
        assert row["source"] == "phantom"
        assert _read(folder / row["image"]).shape == (SIZE, SIZE)
        if row["mask"]:
            assert set(np.unique(_read(folder / row["mask"]))) == {0, 255}
        assert set(np.unique(_read(folder / row["region"]))) == ({0} if row["label"] == "Normal" else {0, 255})


def test_classes_masks_and_patients_are_shared_out(folder: Path) -> None:
    rows = _rows(folder)
    assert Counter(row["label"] for row in rows) == {
        "COVID": 11, "Lung_Opacity": 11, "Normal": 10, "Viral Pneumonia": 10,
    }  # fmt: skip
    assert Counter(row["label"] for row in rows if row["mask"]) == {
        "COVID": 9, "Lung_Opacity": 9, "Normal": 8, "Viral Pneumonia": 8,
    }  # fmt: skip
    radiographs = Counter(row["group"] for row in rows)
    assert set(radiographs.values()) == {1, 2, 3}
    labels = defaultdict(set)
    for row in rows:
        labels[row["group"]].add(row["label"])
    assert all(len(found) == 1 for found in labels.values())
    images = [_read(folder / row["image"]).tobytes() for row in rows]
    assert len(set(images)) == len(images)


def test_writing_is_deterministic_and_seeds_share_nothing(folder: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "again", 42, size=SIZE, seed=1)
    assert _files(tmp_path / "again") == _files(folder)
    write_phantoms(tmp_path / "other", 8, size=SIZE, seed=2)
    assert not {row["group"] for row in _rows(tmp_path / "other")} & {row["group"] for row in _rows(folder)}


def test_mask_share_classes_and_progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    tmp_path.joinpath("empty").mkdir()
    write_phantoms(
        tmp_path / "empty", 4, size=32, classes=("Normal", "COVID"), mask_share=0, progress=lambda *c: calls.append(c)
    )
    rows = _rows(tmp_path / "empty")
    assert [row["label"] for row in rows] == ["Normal", "Normal", "COVID", "COVID"]
    assert not any(row["mask"] for row in rows)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    write_phantoms(tmp_path / "all", 4, size=32, mask_share=1)
    assert all(row["mask"] for row in _rows(tmp_path / "all"))


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (DataError, {"n": 3}),
        (DataError, {"n": 0}),
        (ConfigError, {"n": 8, "size": 16}),
        (ConfigError, {"n": 8, "classes": ("Normal", "Tuberculosis")}),
        (ConfigError, {"n": 8, "classes": ("Normal", "Normal")}),
        (ConfigError, {"n": 8, "classes": ()}),
        (ConfigError, {"n": 8, "mask_share": 1.5}),
        (ConfigError, {"n": 8, "seed": -1}),
    ],
)
def test_bad_requests_write_nothing(error: type[Exception], arguments: dict, tmp_path: Path) -> None:
    with pytest.raises(error, match="Expected"):
        write_phantoms(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "kept.txt").write_text("mine")
    (tmp_path / "file").write_text("a file")
    for out in (tmp_path / "used", tmp_path / "file"):
        with pytest.raises(OutputError):
            write_phantoms(out, 4, size=32)
    assert _files(tmp_path) == {"file": b"a file", "used/kept.txt": b"mine"}


def test_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError):
        write_phantoms(tmp_path / "file" / "below", 4, size=32)
