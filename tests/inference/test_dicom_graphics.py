"""The Secondary Capture and the presentation state of a prediction, opened again, and displayed by DCMTK."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dicom_images import content_of, errors_in, phantom_image, with_stored
from dicom_results import SIZE, small_manifest, small_prediction
from dicom_writing import lut_item
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from hilum.bundle.bundle import Manifest
from hilum.errors import DataError
from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import read_radiograph
from hilum.inference.dicom_names import RESEARCH_ONLY
from hilum.inference.dicom_out import capture, encoded, instance_uid, objects_of, presentation, segmentation
from hilum.inference.dicom_pr import closed_lines
from hilum.inference.dicom_source import source_header
from hilum.inference.legend import NOTICE, draw_notice
from hilum.inference.render import draw_overlay
from hilum.inference.result import Prediction, Result


@pytest.fixture
def manifest() -> Manifest:
    return small_manifest()


@pytest.fixture
def prediction(manifest: Manifest) -> Prediction:
    return small_prediction(manifest)


def image_of(**elements: Any) -> Dataset:
    return phantom_image(0, size=SIZE, **elements)


def header_of(**elements: Any) -> Dataset:
    return source_header(content_of(image_of(**elements)))


def reopened(dataset: Dataset, folder: Path) -> Dataset:
    """The object as read again, after the validator found no error in it."""
    path = folder / "made.dcm"
    path.write_bytes(encoded(dataset))
    assert errors_in(path) == []
    return dcmread(path)


# Secondary Capture


@pytest.mark.parametrize("kind", ["DX", "CR"])
def test_a_capture_is_the_overlay_above_the_notice(
    manifest: Manifest, prediction: Prediction, kind: str, tmp_path: Path
) -> None:
    source = header_of(kind=kind)
    made = reopened(capture(source, prediction, manifest), tmp_path)
    expected = draw_overlay(prediction, longest_side=2048)
    height, width = expected.shape[:2]
    np.testing.assert_array_equal(made.pixel_array[:height], expected)
    band = made.pixel_array[height:]
    np.testing.assert_array_equal(band, draw_notice(RESEARCH_ONLY, width))
    assert tuple(band[0, 0]) == NOTICE
    assert (np.abs(band.astype(int) - NOTICE).sum(axis=2) > 200).any()  # the words
    assert (made.Modality, made.BurnedInAnnotation, made.ConversionType) == ("OT", "YES", "DI")
    assert made.SOPClassUID.name == "Secondary Capture Image Storage"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert (made.PatientID, made.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert made.SOPInstanceUID == instance_uid(str(source.SOPInstanceUID), manifest.bundle_id, "sc")


def test_the_notice_fits_every_width() -> None:
    for width in (360, 872, 3000):
        band = draw_notice(RESEARCH_ONLY, width)
        assert band.shape[1] == width
        written = (np.abs(band.astype(int) - NOTICE).sum(axis=2) > 0).any(axis=0)
        assert written.any()
        assert not written[:2].any()
        assert not written[-2:].any()


# Presentation state


def graphics_of(state: Dataset, layer: str) -> list[NDArray[np.float64]]:
    return [
        np.array(graphic.GraphicData, np.float64).reshape(-1, 2)
        for annotation in state.GraphicAnnotationSequence
        if annotation.GraphicLayer == layer
        for graphic in annotation.get("GraphicObjectSequence", [])
    ]


def test_outlines_and_words_are_in_layers_of_their_own(
    manifest: Manifest, prediction: Prediction, tmp_path: Path
) -> None:
    source = header_of()
    state = reopened(presentation(source, prediction, manifest), tmp_path)
    layers = [(layer.GraphicLayer, layer.GraphicLayerOrder) for layer in state.GraphicLayerSequence]
    assert layers == [("LUNGS", 1), ("EVIDENCE", 2), ("TEXT", 3)]
    assert state.SOPClassUID.name == "Grayscale Softcopy Presentation State Storage"
    for item in (state.ReferencedSeriesSequence[0], *state.GraphicAnnotationSequence):
        assert item.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    right, left = graphics_of(state, "LUNGS")
    # the middles of the pixels at the edges of mask[10:50, 5:25] and mask[12:50, 40:60]
    assert (right.min(0).tolist(), right.max(0).tolist()) == ([5.5, 10.5], [24.5, 49.5])
    assert (left.min(0).tolist(), left.max(0).tolist()) == ([40.5, 12.5], [59.5, 49.5])
    (region,) = graphics_of(state, "EVIDENCE")
    drawn = cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [np.floor(region).astype(np.int32)], 1)
    expected = np.asarray(segmentation(source, prediction, manifest).pixel_array[2] > 0)
    assert np.mean(drawn != expected) < 0.02
    (text,) = state.GraphicAnnotationSequence[2].TextObjectSequence
    lines = text.UnformattedTextValue.split("\r\n")
    assert (lines[0], *lines[2:]) == ("bright 71.2%", prediction.evidence_summary, RESEARCH_ONLY)
    assert lines[1].startswith("Uncertain")


def test_without_evidence_and_lungs_the_words_remain(
    manifest: Manifest, prediction: Prediction, tmp_path: Path
) -> None:
    none = replace(
        prediction, abstained=False, mask=np.zeros((SIZE, SIZE), np.bool_), evidence=None, evidence_zones=None
    )
    state = reopened(presentation(header_of(), none, manifest), tmp_path)
    assert [layer.GraphicLayer for layer in state.GraphicLayerSequence] == ["TEXT"]
    text = state.GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue
    assert text.split("\r\n") == ["bright 71.2%", RESEARCH_ONLY]


@pytest.mark.parametrize("shape", [(300, 200), (2500, 2000)])
def test_closed_lines_follow_the_mask(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, (shape[1] // 2, shape[0] // 2), (shape[1] // 3, shape[0] // 3), 20, 0, 360, 1, -1)
    cv2.circle(mask, (shape[1] // 2, shape[0] // 2), 20, 0, -1)
    lines = closed_lines(mask > 0)
    assert len(lines) == 2  # the hole, too
    assert all(np.array_equal(line[0], line[-1]) for line in lines)
    drawn = cv2.fillPoly(np.zeros_like(mask), [np.floor(line).astype(np.int32) for line in lines], 1)
    assert np.mean(drawn != mask) < 0.01


def test_a_ragged_outline_is_thinned() -> None:
    comb = np.zeros((40, 10_000), np.bool_)
    comb[20:] = comb[:20, np.arange(10_000) // 3 % 2 == 0] = True  # 1,667 teeth of four corners each
    (line,) = closed_lines(comb)
    assert 4 < len(line) <= 4001
    assert (line.min(0).tolist(), line.max(0).tolist()) == ([0.5, 0.5], [9999.5, 39.5])


COLORED = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}
ENTRIES = np.rint(np.linspace(0, 1, 256) ** 2 * 4095)
SHOWN: dict[str, dict[str, Any]] = {
    "window": {"WindowCenter": 100, "WindowWidth": 80},
    "several windows": {"WindowCenter": [90, 30], "WindowWidth": [120, 10]},
    "no window": {"WindowCenter": None, "WindowWidth": None},
    "impossible window": {"WindowCenter": 10, "WindowWidth": 0},
    "half a window": {"WindowWidth": None},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    "rescaled": {"RescaleSlope": 2, "RescaleIntercept": -40, "WindowCenter": 200, "WindowWidth": 300},
    "slope alone": {"RescaleSlope": 2, "RescaleIntercept": None, "WindowCenter": 200, "WindowWidth": 300},
    "lookup table": {"VOILUTSequence": [lut_item(ENTRIES, 0, 12)], "WindowCenter": None, "WindowWidth": None},
    "lookup table and window": {"VOILUTSequence": [lut_item(ENTRIES, 0, 12)]},
    "negative lookup table": {
        "RescaleSlope": 1, "RescaleIntercept": -100, "VOILUTSequence": [lut_item(ENTRIES, -100, 12)],
    },
    "modality lookup table": {
        "ModalityLUTSequence": [lut_item(ENTRIES * 16, 0, 16)], "WindowCenter": None, "WindowWidth": None,
        "RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None,
    },
    "modality lookup table and window": {
        "ModalityLUTSequence": [lut_item(ENTRIES * 16, 0, 16)], "WindowCenter": 32000, "WindowWidth": 16000,
        "RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None,
    },
    "table of 8 bits": {"VOILUTSequence": [lut_item(np.rint(ENTRIES / 4095 * 255), 0, 8)]},
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_the_image_is_displayed_as_it_is_decoded(
    manifest: Manifest, prediction: Prediction, name: str, tmp_path: Path
) -> None:
    image = image_of(**SHOWN[name])
    (tmp_path / "image.dcm").write_bytes(content_of(image))
    reopened(presentation(source_header(content_of(image)), prediction, manifest), tmp_path)
    if not shutil.which("dcmp2pgm"):
        pytest.skip("no dcmp2pgm on the path")
    command = ["dcmp2pgm", "--pstate", tmp_path / "made.dcm", tmp_path / "image.dcm", tmp_path / "shown.pgm"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    shown = cv2.imread(str(tmp_path / "shown.pgm"), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    expected = to_uint8(read_radiograph(tmp_path / "image.dcm"))
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= 2


def test_the_function_of_a_window_is_kept(manifest: Manifest, prediction: Prediction, tmp_path: Path) -> None:
    source = header_of(WindowCenter=100, WindowWidth=80, VOILUTFunction="SIGMOID")  # DCMTK 3.6.7 ignores it
    (item,) = reopened(presentation(source, prediction, manifest), tmp_path).SoftcopyVOILUTSequence
    assert (item.WindowCenter, item.WindowWidth, item.VOILUTFunction) == (100, 80, "SIGMOID")


def test_dcmtk_accepts_the_presentation_state(manifest: Manifest, prediction: Prediction, tmp_path: Path) -> None:
    reopened(presentation(header_of(), prediction, manifest), tmp_path)
    if not shutil.which("dcmpschk"):
        pytest.skip("no dcmpschk on the path")
    done = subprocess.run(["dcmpschk", str(tmp_path / "made.dcm")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Test passed" in done.stdout + done.stderr


def test_pixels_that_are_not_square_are_declared(manifest: Manifest, prediction: Prediction, tmp_path: Path) -> None:
    square = reopened(presentation(header_of(), prediction, manifest), tmp_path)
    assert square.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio == [1, 1]
    tall = reopened(presentation(header_of(ImagerPixelSpacing=[0.2, 0.1]), prediction, manifest), tmp_path)
    assert tall.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio == [2000, 1000]


# All kinds


def test_an_image_with_color_has_no_presentation_state(manifest: Manifest, prediction: Prediction) -> None:
    source = header_of()
    for keyword, value in COLORED.items():
        setattr(source, keyword, value)
    with pytest.raises(DataError, match="gray"):
        presentation(source, prediction, manifest)
    made = objects_of(source, prediction, manifest, kinds=("seg", "sc", "pr", "sr"))
    assert list(made) == ["seg", "sc", "sr"]


def test_kinds_of_objects(manifest: Manifest, prediction: Prediction) -> None:
    source = header_of()
    assert list(objects_of(source, prediction, manifest, kinds=("sr",))) == ["seg", "sr"]
    assert list(objects_of(source, prediction, manifest, kinds=("pr", "sc"))) == ["sc", "pr"]
    refused = Result(origin="image.dcm", status="refused")
    assert list(objects_of(source, refused, manifest, kinds=("seg", "sr", "sc", "pr"))) == ["sr"]


@pytest.mark.parametrize(
    ("keyword", "stored"),
    [("PatientID", b"x" * 80), ("StudyDate", b"soon"), ("PatientAge", b"old "), ("WindowCenter", b"wide")],
)
@pytest.mark.filterwarnings("ignore:.*value:UserWarning")  # of reading them again
def test_odd_values_stop_nothing(manifest: Manifest, prediction: Prediction, keyword: str, stored: bytes) -> None:
    source = source_header(content_of(with_stored(image_of(), keyword, stored)))
    for make in (capture, presentation):
        again = dcmread(io.BytesIO(encoded(make(source, prediction, manifest))))
        assert again.StudyInstanceUID == source.StudyInstanceUID


def test_an_image_that_says_nothing_of_patient_and_study(
    manifest: Manifest, prediction: Prediction, tmp_path: Path
) -> None:
    absent = (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
        "AccessionNumber", "ReferringPhysicianName", "PatientOrientation", "Modality", "SpecificCharacterSet",
    )  # fmt: skip
    source = header_of(**dict.fromkeys(absent))
    for make in (capture, presentation):
        assert reopened(make(source, prediction, manifest), tmp_path).PatientID == ""
