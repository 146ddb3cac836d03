"""`hilum predict --dicom-seg --dicom-sr`: what is written, what is said, and what a second run makes of it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import pytest
from dicom_images import dicom_image, errors_in, phantom_image, write_image
from pydicom import dcmread

from hilum.inference.dicom_out import instance_uid
from hilum.phantoms.chest import draw_phantom

SIZE = 256
MISSING = dict.fromkeys(
    ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
     "AccessionNumber", "ReferringPhysicianName", "PatientOrientation", "ViewPosition")
)  # fmt: skip
SOURCES: dict[str, dict[str, Any]] = {
    "DX": {},
    "CR": {"kind": "CR"},
    "bare": {"kind": "CR", **MISSING},
    "japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
}


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return {Path(row["file"]).name: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def predicted(hilum: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Images, their predictions and what the command printed; a PNG and a damaged file are among them."""
    folder = tmp_path_factory.mktemp("images")
    for seed, (name, elements) in enumerate(SOURCES.items()):
        write_image(folder / "in" / name / "image.dcm", phantom_image(seed, size=SIZE, **elements))
    assert cv2.imwrite(str(folder / "in" / "image.png"), draw_phantom(1, "Normal", size=SIZE).image)
    (folder / "in" / "torn.dcm").write_bytes((folder / "in" / "DX" / "image.dcm").read_bytes()[:900])
    said = hilum(
        "predict", folder / "in", "--output", folder / "in" / "out", "--save-masks", "--dicom-sr", "--dicom-sc",
        "--dicom-pr"
    )  # fmt: skip
    return folder / "in", said


@pytest.mark.parametrize("name", SOURCES)
def test_objects_open_again_and_pass_the_validator(predicted: tuple[Path, str], name: str) -> None:
    folder, _ = predicted
    image = dcmread(folder / name / "image.dcm")
    report = folder / "out" / "dicom" / name / "image.sr.dcm"
    assert errors_in(folder / name / "image.dcm") == [] or name == "bare"
    assert errors_in(report) == []
    document = hd.sr.srread(report)
    assert document.get_evidence()[0][2] == image.SOPInstanceUID
    assert document.StudyInstanceUID == image.StudyInstanceUID
    assert str(document.PatientName) == str(image.get("PatientName", ""))
    (group,) = document.content.get_image_measurement_groups()
    status = group.get_qualitative_evaluations()[0].value.meaning
    segmentation = report.with_name("image.seg.dcm")
    if name == "inverted":  # told to be MONOCHROME1, it is shown inverted, and the gate refuses it
        assert status == "refused"
        assert not segmentation.exists()
        return
    assert status == "ok"
    assert errors_in(segmentation) == []
    seg = hd.seg.segread(segmentation)
    lungs = seg.get_pixels_by_source_instance([image.SOPInstanceUID], segment_numbers=[1, 2])
    mask = cv2.imread(str(folder / "out" / "masks" / name / "image.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert (mask > 0).any()
    np.testing.assert_array_equal(lungs[0].any(axis=-1), mask > 0)
    for kind in ("sc", "pr"):
        assert errors_in(report.with_name(f"image.{kind}.dcm")) == []


def test_uids_are_those_that_a_client_can_ask_for(predicted: tuple[Path, str]) -> None:
    folder, _ = predicted
    image = dcmread(folder / "DX" / "image.dcm")
    for kind in ("seg", "sr", "sc", "pr"):
        made = dcmread(folder / "out" / "dicom" / "DX" / f"image.{kind}.dcm")
        assert made.SOPInstanceUID == instance_uid(image.SOPInstanceUID, made.DeviceSerialNumber, kind)  # type: ignore[arg-type]


def test_what_has_no_object_is_said(predicted: tuple[Path, str]) -> None:
    folder, said = predicted
    rows = rows_of(folder / "out" / "predictions.csv")
    assert "no DICOM object: " in rows["image.png"]["reason"]
    assert rows["image.png"]["status"] == "ok"
    assert rows["torn.dcm"]["status"] == "unreadable"
    assert "no DICOM object" not in rows["image.dcm"]["reason"]
    assert "DICOM segmentations: 4, reports: 5, secondary captures: 4, presentation states: 4." in said
    assert "without a requested DICOM object: 1." in said
    assert not list((folder / "out" / "dicom").glob("*.dcm"))


def test_a_folder_without_dicom_is_predicted_and_told(hilum: Callable[..., str], tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "image.png"), draw_phantom(1, "Normal", size=SIZE).image)
    said = hilum("predict", tmp_path / "image.png", "--output", tmp_path / "out", "--dicom-sr")
    assert "without a requested DICOM object: 1." in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "predictions.json"}


def test_objects_of_an_earlier_run_are_passed_over_and_refused_when_named(
    predicted: tuple[Path, str], hilum: Callable[..., str], tmp_path: Path
) -> None:
    folder, _ = predicted
    hilum("predict", folder, "--output", tmp_path / "again")
    rows = rows_of(tmp_path / "again" / "predictions.csv")
    assert not [name for name in rows if name.endswith((".seg.dcm", ".sr.dcm", ".sc.dcm", ".pr.dcm"))]
    named = folder / "out" / "dicom" / "DX"
    assert {path.name for path in named.iterdir()} == {f"image.{kind}.dcm" for kind in ("seg", "sr", "sc", "pr")}
    hilum("predict", *sorted(named.iterdir()), "--output", tmp_path / "named", "--dicom-seg", "--dicom-sr", code=1)
    rows = rows_of(tmp_path / "named" / "predictions.csv")
    assert {name: row["status"] for name, row in rows.items()} == {
        "image.pr.dcm": "unreadable",
        "image.sc.dcm": "refused",
        "image.seg.dcm": "unreadable",
        "image.sr.dcm": "unreadable",
    }
    assert "is a segmentation" in rows["image.seg.dcm"]["reason"]
    assert "(SR)" in rows["image.sr.dcm"]["reason"]


def test_pixels_that_are_not_square(hilum: Callable[..., str], tmp_path: Path) -> None:
    image = draw_phantom(3, "Viral Pneumonia", size=512).image
    squeezed = np.asarray(cv2.resize(image, (512, 256), interpolation=cv2.INTER_AREA))
    declared, silent = dicom_image(squeezed, name="declared"), dicom_image(squeezed, name="silent")
    declared.ImagerPixelSpacing = [0.8, 0.4]
    for name, dataset in {"square": dicom_image(image), "declared": declared, "silent": silent}.items():
        write_image(tmp_path / "in" / f"{name}.dcm", dataset)
    hilum("predict", tmp_path / "in", "-o", tmp_path / "out", "--save-masks", "--save-overlays", "--dicom-seg")
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    columns = [name for name in rows["square.dcm"] if name.startswith(("prob_", "evidence_"))]
    square, told, untold = (
        np.array([float(rows[f"{name}.dcm"][column]) for column in columns])
        for name in ("square", "declared", "silent")
    )
    np.testing.assert_allclose(told, square, atol=0.06)
    assert np.abs(untold - square).max() > 0.2
    mask = cv2.imread(str(tmp_path / "out" / "masks" / "declared.png"), cv2.IMREAD_UNCHANGED)
    seg = hd.seg.segread(tmp_path / "out" / "dicom" / "declared.seg.dcm")
    assert mask is not None
    assert mask.shape == (seg.Rows, seg.Columns) == squeezed.shape
    overlays = [cv2.imread(str(tmp_path / "out" / "overlays" / f"{name}.png")) for name in ("square", "declared")]
    assert overlays[0] is not None
    assert overlays[1] is not None
    assert np.abs(overlays[0][:512, :512].astype(int) - overlays[1][:512, :512]).mean() < 10
    errors = errors_in(tmp_path / "out" / "dicom" / "declared.seg.dcm")
    assert errors == []


def test_a_contradicting_header_is_refused_and_an_unusual_one_is_told(
    hilum: Callable[..., str], tmp_path: Path
) -> None:
    write_image(tmp_path / "in" / "high.dcm", phantom_image(1, size=SIZE, HighBit=6))
    unusual = {"BodyPartExamined": "HAND", "BurnedInAnnotation": "YES"}
    write_image(tmp_path / "in" / "hand.dcm", phantom_image(0, size=SIZE, **unusual))
    hilum("predict", tmp_path / "in", "-o", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert {name: row["status"] for name, row in rows.items()} == {"high.dcm": "unreadable", "hand.dcm": "ok"}
    assert "high bit 6" in rows["high.dcm"]["reason"]
    assert all(value in rows["hand.dcm"]["reason"] for value in ("body part HAND", "annotation YES"))
