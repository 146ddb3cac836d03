"""Files, folders and patterns in; one row per file out, whatever happens to it."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hilum.backends.base import BackendOutput
from hilum.bundle.bundle import Bundle, Manifest
from hilum.config import ModelConfig, PreprocessSpec
from hilum.data.find import PARTIAL, RUN_MANIFEST, TABLE, find_images
from hilum.errors import ConfigError, OutputError
from hilum.gate import ClassicGate, Thresholds
from hilum.inference.evidence_file import read_evidence
from hilum.inference.folder import predict_folder
from hilum.inference.predictor import Predictor, Source
from hilum.inference.render import class_evidence
from hilum.inference.result import Prediction, Result
from hilum.inference.saving import Wanted
from hilum.inference.table import image_names
from hilum.inference.zones import OUTSIDE, ZONES
from hilum.phantoms.chest import draw_phantom

HEADER = [
    "file",
    "status",
    "predicted_label",
    "prediction_set",
    "abstained",
    "prob_dark",
    "prob_bright",
    "lung_fraction",
    "reason",
]
GATE = ClassicGate(Thresholds(minimum_side=48))


class Bright:
    """Lung where it is bright; the class by the mean."""

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        mean = images.mean((1, 2, 3))
        return BackendOutput(images[:, :1], np.stack([0.3 - mean, mean - 0.3], 1), None)


@pytest.fixture
def predictor() -> Predictor:
    manifest = Manifest(
        name="bright",
        class_names=("dark", "bright"),
        preprocess=PreprocessSpec(size=64),
        model=ModelConfig(),
    )
    return Predictor(Bundle(manifest, {}, Path("bright")), backend=Bright(), gate=GATE, batch_size=2)


class Explaining(Bright):
    """As Bright, with evidence: 8 x 8 cells, the image's for the second class and its opposite for the first."""

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        cells = images[:, 0, ::8, ::8]
        return super().run(images)._replace(evidence=np.stack([-cells, cells], 1))


@pytest.fixture
def explaining(predictor: Predictor) -> Predictor:
    outputs = {"segmentation": "", "classification": "", "evidence": ""}
    manifest = predictor.manifest.model_copy(update={"outputs": outputs})
    return Predictor(Bundle(manifest, {}, Path("bright")), backend=Explaining(), gate=GATE, batch_size=2)


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), draw_phantom(seed, "Normal", size=64).image)
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def rows_of(table: Path) -> list[list[str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


# Names of images


def test_images_keep_their_place_below_the_common_folder(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.jpg", tmp_path / "b" / "c" / "y.dcm"]
    assert list(image_names(files).values()) == ["a/x.png", "b/x.png", "b/c/y.png"]
    assert list(image_names(files[:1]).values()) == ["x.png"]
    assert image_names([]) == {}


def test_two_files_of_one_stem_get_two_images(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("x.png", "x.jpg", "y.png")]
    assert list(image_names(files).values()) == ["x.png.png", "x.jpg.png", "y.png"]
    awkward = [tmp_path / name for name in ("x.png", "x.jpg", "x.jpg.dcm")]
    assert len(set(image_names(awkward).values())) == 3


def test_a_name_that_ends_in_no_images_suffix_is_kept_whole(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("1.2.840.1", "1.2.840.2", "IM000001")]
    assert [*image_names(files).values()] == ["1.2.840.1.png", "1.2.840.2.png", "IM000001.png"]


def test_names_near_the_longest_become_images_and_rows(predictor: Predictor, tmp_path: Path) -> None:
    stems = ["a" * 251, "a" * 250 + "b", "a" * 242, "ö" * 125, "=" + "c" * 240]
    files = [image(tmp_path / "in" / f"{stem}.png", seed=seed) for seed, stem in enumerate(stems)]
    bare = image(tmp_path / "in" / "image.png").rename(tmp_path / "in" / ("d" * 255))
    out = tmp_path / "out"
    found = find_images(tmp_path / "in")
    assert len(found) == 6
    result = predict_folder(predictor, found, out, save=Wanted(masks=True, overlays=True, dicom_sr=True))
    assert result.statuses == {"ok": 6}
    masks = sorted(path.name for path in (out / "masks").iterdir())
    assert len(masks) == 6
    assert max(len(os.fsencode(name)) for name in masks) <= 244
    names = image_names(found)
    assert len({*names.values()}) == 6
    assert names[files[0]] == image_names([*files, bare])[files[0]]  # by the name alone
    assert {*names.values()} == {*masks}


def test_images_never_leave_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    files = [Path("a.png"), Path("../there/b.png"), Path("../there/../c.png")]
    assert list(image_names(files).values()) == ["here/a.png", "there/b.png", "c.png"]


# The table


def test_a_row_for_every_file(predictor: Predictor, tmp_path: Path) -> None:
    good = image(tmp_path / "in" / "good, one.png")
    torn = tmp_path / "in" / "torn.png"
    torn.write_bytes(good.read_bytes()[:200])
    flat = tmp_path / "in" / "flat.png"
    assert cv2.imwrite(str(flat), np.full((64, 64), 90, np.uint8))
    seen: list[tuple[int, int]] = []
    result = predict_folder(
        predictor,
        find_images([tmp_path / "in"]),
        tmp_path / "out",
        progress=lambda done, total: seen.append((done, total)),
    )
    header, *rows = rows_of(result.table)
    assert header == HEADER
    assert result.table == tmp_path / "out" / TABLE
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [row[0] for row in rows] == [str(flat), str(good), str(torn)]
    refused, predicted, unreadable = (dict(zip(header, row, strict=True)) for row in rows)
    assert refused["status"] == "refused"
    assert "contrast: standard deviation 0, expected at least 8" in refused["reason"]
    assert unreadable["status"] == "unreadable"
    assert str(torn) in unreadable["reason"]
    for row in (refused, unreadable):
        assert (
            row["predicted_label"]
            == row["prediction_set"]
            == row["prob_dark"]
            == row["prob_bright"]
            == row["lung_fraction"]
            == ""
        )
    assert predicted["status"] == "ok"
    assert predicted["reason"] == ""
    assert predicted["prediction_set"] == predicted["predicted_label"]
    probabilities = {name: float(predicted[f"prob_{name}"]) for name in ("dark", "bright")}
    assert sum(probabilities.values()) == pytest.approx(1, abs=2e-6)
    assert predicted["predicted_label"] == max(probabilities, key=probabilities.__getitem__)
    answer = predictor.predict(good)
    assert float(predicted["lung_fraction"]) == pytest.approx(answer.lung_fraction, abs=1e-4)  # type: ignore[union-attr]
    assert result.statuses == {"refused": 1, "ok": 1, "unreadable": 1}
    assert result.labels == {predicted["predicted_label"]: 1}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {TABLE, RUN_MANIFEST}


def test_prediction_sets_and_abstention_have_their_cells(tmp_path: Path) -> None:
    manifest = Manifest(
        name="bright",
        class_names=("dark", "bright"),
        preprocess=PreprocessSpec(size=64),
        model=ModelConfig(),
        conformal_quantiles={"0.90": (1.0, 1.0)},
        abstention_threshold=0.99,
    )
    predictor = Predictor(Bundle(manifest, {}, Path("bright")), backend=Bright(), gate=GATE)
    result = predict_folder(predictor, [image(tmp_path / "image.png")], tmp_path / "out")
    header, cells = rows_of(result.table)
    row = dict(zip(header, cells, strict=True))
    assert row["status"] == "ok"
    other = "bright" if row["predicted_label"] == "dark" else "dark"
    assert row["prediction_set"] == f"{row['predicted_label']};{other}"
    assert row["abstained"] == "1"


def test_masks_and_overlays(predictor: Predictor, tmp_path: Path) -> None:
    one, two = image(tmp_path / "in" / "a" / "x.png"), image(tmp_path / "in" / "b" / "x.png", seed=1)
    bad = tmp_path / "in" / "b" / "bad.png"
    bad.write_bytes(b"no image")
    out = tmp_path / "out"
    predict_folder(predictor, [one, two, bad], out, save=Wanted(masks=True, overlays=True))
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert written == ["masks/a/x.png", "masks/b/x.png", "overlays/a/x.png", "overlays/b/x.png"]
    mask = cv2.imread(str(out / "masks" / "b" / "x.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.dtype == np.uint8
    answer = predictor.predict(two)
    assert isinstance(answer, Prediction)
    np.testing.assert_array_equal(mask, answer.mask * np.uint8(255))
    overlay = cv2.imread(str(out / "overlays" / "a" / "x.png"))
    assert overlay is not None
    assert min(overlay.shape[:2]) >= 512


@pytest.mark.parametrize(("kind", "format_name"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_overlays_in_other_formats_and_sizes(
    predictor: Predictor, tmp_path: Path, kind: Literal["jpg", "webp"], format_name: str
) -> None:
    one = image(tmp_path / "in" / "x.1.png")
    predict_folder(predictor, [one], tmp_path / "png", save=Wanted(overlays=True, overlay_size=300))
    predict_folder(predictor, [one], tmp_path / kind, save=Wanted(overlays=True, overlay_format=kind, overlay_size=300))
    exact = cv2.imread(str(tmp_path / "png" / "overlays" / "x.1.png"))
    with Image.open(tmp_path / kind / "overlays" / f"x.1.{kind}") as drawn:
        assert drawn.format == format_name
        lossy = np.asarray(drawn)[:, :, ::-1]
    assert exact is not None
    assert lossy.shape == exact.shape
    assert np.abs(lossy.astype(int) - exact).mean() < 4
    assert (lossy[:300, :300].max(axis=2) > 0).any()
    assert exact.shape[1] == 300 + 360


def test_evidence_is_saved_at_the_files_size_with_its_scale(explaining: Predictor, tmp_path: Path) -> None:
    one, two = image(tmp_path / "in" / "x.png"), image(tmp_path / "in" / "x.jpg", seed=1)
    narrow = tmp_path / "in" / "narrow.png"
    assert cv2.imwrite(str(narrow), cv2.resize(draw_phantom(2, "Normal", size=96).image[:, 8:-8], (60, 72)))
    bad = tmp_path / "in" / "bad.png"
    bad.write_bytes(b"no image")
    out = tmp_path / "out"
    result = predict_folder(explaining, [one, two, narrow, bad], out, save=Wanted(evidence=True))
    header, *rows = rows_of(result.table)
    zones = [f"evidence_{zone}" for zone in (*ZONES, OUTSIDE)]
    assert header == [*HEADER[:-1], *zones, "evidence_step", HEADER[-1]]
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert written == ["evidence/narrow.png", "evidence/x.jpg.png", "evidence/x.png.png"]
    cells = dict(zip(header, rows[2], strict=True))
    values, facts = read_evidence(out / "evidence" / "narrow.png")
    assert values.shape == (72, 60)
    assert float(cells["evidence_step"]) == facts["logits_per_gray_level"]
    assert facts["class"] == cells["predicted_label"]
    answer = explaining.predict(narrow)
    expected = class_evidence(answer, (72, 60), explaining.manifest.preprocess)  # type: ignore[arg-type]
    assert expected is not None
    assert np.abs(values - expected).max() <= facts["logits_per_gray_level"] / 2
    assert answer.evidence_zones is not None
    assert {zone: float(cells[f"evidence_{zone}"]) for zone in answer.evidence_zones} == pytest.approx(
        dict(answer.evidence_zones), abs=5e-5
    )
    unread = dict(zip(header, rows[3], strict=True))
    assert {unread[column] for column in (*zones, "evidence_step")} == {""}


def test_evidence_of_a_network_without_any_is_refused_before_any_work(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "process", lambda *_, **__: pytest.fail("an image was read"))
    with pytest.raises(ConfigError, match="evidence") as caught:
        predict_folder(predictor, [image(tmp_path / "a.png")], tmp_path / "out", save=Wanted(evidence=True))
    assert "encoder-unet" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_not_utf_8_gets_its_row(predictor: Predictor, tmp_path: Path) -> None:
    odd = tmp_path / "in" / os.fsdecode(b"r\xf6ntgen.png")
    try:
        shutil.copy(image(tmp_path / "in" / "a.png"), odd)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    result = predict_folder(predictor, find_images([tmp_path / "in"]), tmp_path / "out", save=Wanted(masks=True))
    assert [row[0] for row in rows_of(result.table)[1:]] == [f"{tmp_path}/in/a.png", f"{tmp_path}/in/r\\udcf6ntgen.png"]
    assert result.statuses == {"ok": 2}


def test_no_files_give_an_empty_table(predictor: Predictor, tmp_path: Path) -> None:
    assert rows_of(predict_folder(predictor, [], tmp_path).table) == [HEADER]


def test_rows_are_on_the_disk_as_they_come(predictor: Predictor, tmp_path: Path) -> None:
    files = [image(tmp_path / "in" / f"{number}.png", seed=number) for number in range(3)]
    lengths = []
    predict_folder(
        predictor, files, tmp_path, progress=lambda done, total: lengths.append(len(rows_of(tmp_path / PARTIAL)))
    )
    assert lengths == [2, 3, 4]


# Where it cannot write


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_folder_that_is_a_file_is_an_output_error(predictor: Predictor, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="Cannot write") as caught:
        predict_folder(predictor, [image(tmp_path / "a.png")], tmp_path / place)
    assert caught.value.hint
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unwritable_place_is_found_before_any_image_is_read(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")

    def unexpected(sources: Iterable[Source], work: object) -> Iterator[Result]:
        pytest.fail("an image was read")

    monkeypatch.setattr(predictor, "process", unexpected)
    with pytest.raises(OutputError):
        predict_folder(predictor, [tmp_path / "a.png"], tmp_path / "file")


def test_a_table_that_is_a_folder_is_an_output_error(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "out" / TABLE).mkdir(parents=True)
    with pytest.raises(OutputError, match=TABLE):
        predict_folder(predictor, [image(tmp_path / "a.png")], tmp_path / "out")
    assert (tmp_path / "out" / TABLE).is_dir()


def test_an_image_that_cannot_be_written_is_an_output_error(predictor: Predictor, tmp_path: Path) -> None:
    touch(tmp_path / "out" / "masks")  # a file where the folder should be
    with pytest.raises(OutputError, match="masks"):
        predict_folder(predictor, [image(tmp_path / "a.png")], tmp_path / "out", save=Wanted(masks=True))
    assert rows_of(tmp_path / "out" / PARTIAL) == [HEADER]  # so that the next run tries again
