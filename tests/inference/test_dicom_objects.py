"""The DICOM Segmentation and structured report of an answer, opened again with highdicom."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from dicom_images import content_of, errors_in, phantom_image, with_stored
from dicom_results import LONG, SIZE, small_manifest, small_prediction
from highdicom.sr.utils import find_content_items
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from hilum._version import __version__
from hilum.bundle.bundle import Manifest
from hilum.errors import DataError, ReadError
from hilum.imaging.read import read_radiograph
from hilum.inference.contour import LEVELS
from hilum.inference.dicom_codes import class_code, long_string
from hilum.inference.dicom_out import Kind, encoded, instance_uid, report, segmentation, series_uid, source_header
from hilum.inference.render import class_evidence
from hilum.inference.result import Prediction, Result
from hilum.types import Finding

COPIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip


@pytest.fixture
def manifest() -> Manifest:
    return small_manifest()


@pytest.fixture
def prediction(manifest: Manifest) -> Prediction:
    return small_prediction(manifest)


@pytest.fixture
def refusal() -> Result:
    findings = (
        Finding("kind", "error", "no frontal radiograph: 0.1"),
        Finding("color", "warning", "colored: 30 — zu viel"),
    )
    return Result(origin="image.dcm", status="refused", findings=findings)


def header_of(**elements: Any) -> Dataset:
    return source_header(content_of(phantom_image(0, size=SIZE, **elements)))


def reopened_seg(dataset: Dataset) -> hd.seg.Segmentation:
    return hd.seg.segread(io.BytesIO(encoded(dataset)))


def reopened_sr(dataset: Dataset) -> hd.sr.ComprehensiveSR:
    return hd.sr.srread(io.BytesIO(encoded(dataset)))


def masks_of(seg: hd.seg.Segmentation, source: Dataset) -> NDArray[np.bool_]:
    """(segments, H, W)."""
    pixels = seg.get_pixels_by_source_instance([source.SOPInstanceUID])
    assert pixels.shape[0] == 1
    return np.moveaxis(pixels[0] > 0, -1, 0)


def items_of(document: hd.sr.ComprehensiveSR, name: Any) -> list[Any]:
    root = document.content[0]
    return list(find_content_items(root, name=name, recursive=True))


# Segmentation


@pytest.mark.parametrize("kind", ["DX", "CR"])
def test_segments_are_the_mask_and_the_evidence_as_drawn(
    manifest: Manifest, prediction: Prediction, kind: str, tmp_path: Path
) -> None:
    source = header_of(kind=kind)
    dataset = segmentation(source, prediction, manifest)
    seg = reopened_seg(dataset)
    right, left, evidence = masks_of(seg, source)
    np.testing.assert_array_equal(right, prediction.mask & (np.arange(SIZE) < 32))
    np.testing.assert_array_equal(left, prediction.mask & (np.arange(SIZE) > 32))
    values = class_evidence(prediction, (SIZE, SIZE), manifest.preprocess)
    assert values is not None
    np.testing.assert_array_equal(evidence, values >= LEVELS[0] * values.max())
    assert 0 < evidence.sum() < SIZE * SIZE / 4
    assert evidence[3 * 8 + 4, 6 * 8 + 4]
    assert not evidence[:8, :8].any()  # that is another class's
    assert (seg.Rows, seg.Columns, seg.SegmentationType, seg.NumberOfFrames) == (SIZE, SIZE, "BINARY", 3)
    assert seg.SegmentsOverlap == "YES"
    (tmp_path / "seg.dcm").write_bytes(encoded(dataset))
    assert errors_in(tmp_path / "seg.dcm") == []


def test_segments_say_what_they_are_and_who_made_them(manifest: Manifest, prediction: Prediction) -> None:
    seg = reopened_seg(segmentation(header_of(), prediction, manifest))
    right, left, evidence = (seg.get_segment_description(number) for number in (1, 2, 3))
    assert right.segmented_property_type == hd.sr.CodedConcept("3341006", "SCT", "Right lung")
    assert left.segmented_property_type == hd.sr.CodedConcept("44029006", "SCT", "Left lung")
    assert right.segmented_property_category.meaning == "Anatomical Structure"
    assert evidence.segmented_property_type == hd.sr.CodedConcept("130402", "DCM", "Class activation")
    (modifier,) = evidence.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert modifier.CodeValue == class_code("bright").value
    assert [part.segment_label for part in (right, left, evidence)] == [
        "Right lung", "Left lung", "Evidence for bright",
    ]  # fmt: skip
    for segment in (right, left, evidence):
        assert segment.algorithm_type.value == "AUTOMATIC"
        algorithm = segment.algorithm_identification
        assert algorithm is not None
        assert algorithm.name == "hilum"
        assert algorithm.version == f"{__version__} bundle {manifest.bundle_id[:16]}"
        assert algorithm.parameters["bundle_id"] == manifest.bundle_id
        assert UID(segment.tracking_uid).is_valid
    assert len({part.tracking_uid for part in (right, left, evidence)}) == 3
    assert seg.DeviceSerialNumber == manifest.bundle_id
    assert "not a medical device" in seg.ContentDescription
    assert seg.ManufacturerModelName == "small/one"


def test_patient_study_and_reference_are_those_of_the_image(
    manifest: Manifest, prediction: Prediction, refusal: Result
) -> None:
    image = phantom_image(0, size=SIZE)
    source = source_header(content_of(image))
    seg = reopened_seg(segmentation(source, prediction, manifest))
    documents = [reopened_sr(report(source, result, manifest)) for result in (prediction, refusal)]
    for made in (seg, *documents):
        assert {keyword: str(made[keyword].value) for keyword in COPIED} == {
            keyword: str(image[keyword].value) for keyword in COPIED
        }
        assert made.SeriesInstanceUID != image.SeriesInstanceUID
    referenced = [(image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID)]
    assert seg.get_source_image_uids() == referenced
    made_of = (*referenced[0], image.SOPClassUID)
    reported = (seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.SOPInstanceUID, seg.SOPClassUID)
    assert [set(document.get_evidence()) for document in documents] == [{made_of, reported}, {made_of}]
    assert seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPClassUID == image.SOPClassUID


def test_without_evidence_the_lungs_stand_alone(manifest: Manifest, prediction: Prediction) -> None:
    against = np.minimum(np.asarray(prediction.evidence), 0) - 1
    source = header_of()
    for evidence in (None, np.zeros((3, 8, 8), np.float32), against.astype(np.float32)):
        seg = reopened_seg(segmentation(source, replace(prediction, evidence=evidence), manifest))
        assert seg.number_of_segments == 2
        np.testing.assert_array_equal(masks_of(seg, source).any(axis=0), prediction.mask)


@pytest.mark.parametrize("with_evidence", [True, False])
def test_an_image_without_lungs_has_empty_segments(
    manifest: Manifest, prediction: Prediction, with_evidence: bool, tmp_path: Path
) -> None:
    evidence = prediction.evidence if with_evidence else None
    empty = replace(prediction, mask=np.zeros((SIZE, SIZE), np.bool_), evidence=evidence)
    source = header_of()
    dataset = segmentation(source, empty, manifest)
    assert dataset.NumberOfFrames == 2 + with_evidence
    masks = masks_of(reopened_seg(dataset), source)
    assert not masks[:2].any()
    assert len(masks) == 2 + with_evidence
    (tmp_path / "seg.dcm").write_bytes(encoded(dataset))
    assert errors_in(tmp_path / "seg.dcm") == []


def test_rows_and_columns_are_not_exchanged(manifest: Manifest, prediction: Prediction) -> None:
    mask = np.zeros((40, 56), np.bool_)
    mask[3, 50] = True
    image = phantom_image(0, size=SIZE)
    image.Rows, image.Columns, image.PixelData = 40, 56, image.pixel_array[:40, :56].tobytes()
    source = source_header(content_of(image))
    seg = reopened_seg(segmentation(source, replace(prediction, mask=mask), manifest))
    assert (seg.Rows, seg.Columns) == (40, 56)
    np.testing.assert_array_equal(masks_of(seg, source)[1], mask)
    with pytest.raises(DataError, match=r"40 rows and 56 columns, got \(56, 40\)"):
        segmentation(source, replace(prediction, mask=mask.T), manifest)


# Report


def test_the_report_has_label_probabilities_prediction_set_and_findings(
    manifest: Manifest, prediction: Prediction, tmp_path: Path
) -> None:
    dataset = report(header_of(), prediction, manifest)
    document = reopened_sr(dataset)
    (group,) = document.content.get_image_measurement_groups()
    assert len(document.content.get_planar_roi_measurement_groups()) == 3
    measured = {item.name.meaning: item.value for item in group.get_measurements()}
    assert measured == {
        "Probability of dark": 0.2,
        "Probability of bright": 0.712346,
        long_string(f"Probability of {LONG}"): 0.087654,
        "Lung as a share of the image area": round(prediction.lung_fraction, 6),
    }
    evaluated = [(item.name.meaning, item.value.meaning) for item in group.get_qualitative_evaluations()]
    assert evaluated == [
        ("Status of the answer", "ok"),
        ("Predicted class, the most probable one", "bright"),
        ("Class that is not ruled out", "bright"),
        ("Class that is not ruled out", "dark"),
        ("Abstained: a person should decide", "Yes"),
    ]
    texts = [str(item.value) for item in find_content_items(group[0], value_type="TEXT")]
    assert prediction.findings[0].message in texts
    assert f"bundle_id={manifest.bundle_id}" in texts
    (comment,) = items_of(document, hd.sr.CodedConcept("121106", "DCM", "Comment"))
    assert "not a medical device" in comment.value
    assert (document.CompletionFlag, document.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert document.SOPClassUID.name == "Comprehensive SR Storage"
    (tmp_path / "sr.dcm").write_bytes(encoded(dataset))
    assert errors_in(tmp_path / "sr.dcm") == []


def test_an_answer_that_does_not_abstain_says_so(manifest: Manifest, prediction: Prediction) -> None:
    document = reopened_sr(report(header_of(), replace(prediction, abstained=False), manifest))
    (group,) = document.content.get_image_measurement_groups()
    assert group.get_qualitative_evaluations()[-1].value.meaning == "No"


def test_the_report_of_a_refusal_says_why_and_has_no_probability(
    manifest: Manifest, refusal: Result, tmp_path: Path
) -> None:
    dataset = report(header_of(), refusal, manifest)
    content = reopened_sr(dataset).content
    (group,) = content.get_image_measurement_groups()
    assert content.get_planar_roi_measurement_groups() == []
    assert group.get_measurements() == []
    (status,) = group.get_qualitative_evaluations()
    assert (status.name.meaning, status.value.meaning) == ("Status of the answer", "refused")
    texts = [str(item.value) for item in find_content_items(group[0], value_type="TEXT")]
    assert [finding.message for finding in refusal.findings] == texts[-2:]
    (tmp_path / "sr.dcm").write_bytes(encoded(dataset))
    assert errors_in(tmp_path / "sr.dcm") == []


def test_each_segment_has_a_group_with_its_finding_sites(manifest: Manifest, prediction: Prediction) -> None:
    source = header_of()
    seg = reopened_seg(segmentation(source, prediction, manifest))
    groups = reopened_sr(report(source, prediction, manifest)).content.get_planar_roi_measurement_groups()
    for number, group in enumerate(groups, start=1):
        segment = seg.get_segment_description(number)
        assert (group.tracking_uid, group.tracking_identifier) == (segment.tracking_uid, segment.tracking_id)
        (reference,) = group.referenced_segmentation_frame[0].ReferencedSOPSequence
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert (reference.ReferencedSOPClassUID, reference.ReferencedSegmentNumber) == (seg.SOPClassUID, number)
    sites = [[(site.value.value, site.laterality.value) for site in group.finding_sites] for group in groups]
    right, left = "24028007", "7771000"
    assert sites == [[("39607008", right)], [("39607008", left)], [("281394001", left), ("281393007", right)]]
    assert groups[2].finding_type == class_code("bright")
    lungs = [group.get_measurements()[0].value for group in groups[:2]]
    assert lungs == [round(float(lung.mean()), 6) for lung in prediction.lungs]
    shares = [
        (item.name.value, item.value, [site.value.value for site in item.finding_sites])
        for item in groups[2].get_measurements()
    ]
    assert len(shares) == 7
    assert ("evidence-share", 0.62, ["281394001"]) in shares
    assert shares[-1] == ("evidence-outside", 0.08, [])


# Both


def test_uids_follow_from_image_bundle_and_kind(manifest: Manifest, prediction: Prediction) -> None:
    source = header_of()
    made = [segmentation(source, prediction, manifest) for _ in range(2)]
    assert made[0].SOPInstanceUID == made[1].SOPInstanceUID
    image, bundle = str(source.SOPInstanceUID), manifest.bundle_id
    assert made[0].SOPInstanceUID == instance_uid(image, bundle, "seg") == made[0].file_meta.MediaStorageSOPInstanceUID
    assert made[0].SeriesInstanceUID == series_uid(image, bundle, "seg")
    document = report(source, prediction, manifest)
    assert document.SOPInstanceUID == instance_uid(image, bundle, "sr")
    images, bundles = (image, image[:-1]), (bundle, "1" + bundle)
    kinds: tuple[Kind, ...] = ("seg", "sr", "sc", "pr")
    uids = [
        make(one, other, kind)
        for make in (instance_uid, series_uid)
        for one in images
        for other in bundles
        for kind in kinds
    ]
    assert len(set(uids)) == 32
    assert all(UID(uid).is_valid for uid in uids)
    assert instance_uid("1.2", "3", "seg") != instance_uid("1.23", "", "seg")
    # Pinned: archives hold objects by these.
    assert instance_uid("1.2.3", "abc", "seg") == "1.2.826.0.1.3680043.8.498.10350014852700161062043118412069454670"
    assert instance_uid("1.2.3", "abc", "sr") == "1.2.826.0.1.3680043.8.498.11618260302770173762133073076474078895"


def test_other_settings_of_the_predictor_make_other_objects_that_say_so(
    manifest: Manifest, prediction: Prediction
) -> None:
    source, words = header_of(), "gate:classic"
    usual = [segmentation(source, prediction, manifest), report(source, prediction, manifest)]
    seg, document = segmentation(source, prediction, manifest, words), report(source, prediction, manifest, words)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({made[keyword].value for made in (*usual, seg, document)}) == 4
    assert seg.SOPInstanceUID == instance_uid(str(source.SOPInstanceUID), manifest.bundle_id, "seg", words)
    algorithm = reopened_seg(seg).get_segment_description(1).algorithm_identification
    assert algorithm is not None
    assert algorithm.parameters["settings"] == words
    (group,) = reopened_sr(document).content.get_image_measurement_groups()
    assert f"settings={words}" in [str(item.value) for item in find_content_items(group[0], value_type="TEXT")]


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        ("ISO_IR 100", "Förster^Jürgen"),
    ],
)
def test_names_in_any_script(
    manifest: Manifest, prediction: Prediction, character_set: Any, name: str, tmp_path: Path
) -> None:
    source = header_of(SpecificCharacterSet=character_set, PatientName=name)
    for made in (segmentation(source, prediction, manifest), report(source, prediction, manifest)):
        path = tmp_path / "made.dcm"
        path.write_bytes(encoded(made))
        again = dcmread(path)
        assert again.SpecificCharacterSet == "ISO_IR 192"
        assert str(again.PatientName) == name
        assert errors_in(path) == []


def test_an_image_that_says_nothing_of_patient_and_study(
    manifest: Manifest, prediction: Prediction, refusal: Result, tmp_path: Path
) -> None:
    absent = (*(keyword for keyword in COPIED if keyword != "StudyInstanceUID"), "PatientOrientation", "Modality")
    source = header_of(**dict.fromkeys((*absent, "SpecificCharacterSet")))
    for made in (
        segmentation(source, prediction, manifest),
        report(source, prediction, manifest),
        report(source, refusal, manifest),
    ):
        (tmp_path / "made.dcm").write_bytes(encoded(made))
        assert errors_in(tmp_path / "made.dcm") == []
        assert dcmread(tmp_path / "made.dcm").PatientID == ""


@pytest.mark.parametrize(
    ("keyword", "stored"),
    [
        ("PatientID", b"x" * 80),
        ("StudyInstanceUID", b"study no 1"),
        ("SOPInstanceUID", b"1.2.03"),
        ("StudyDate", b"soon"),
        ("PatientName", b"\xff\xfe^\x1b$B\xe9"),
        ("PatientAge", b"old "),
        ("PatientWeight", b"heavy "),
        ("LossyImageCompression", b""),
        ("AccessionNumber", b"1\\2 "),
    ],
)
@pytest.mark.filterwarnings("ignore:.*value:UserWarning")  # of reading them again
def test_odd_values_stop_nothing(manifest: Manifest, prediction: Prediction, keyword: str, stored: bytes) -> None:
    source = source_header(content_of(with_stored(phantom_image(0, size=SIZE), keyword, stored)))
    for made in (segmentation(source, prediction, manifest), report(source, prediction, manifest)):
        again = dcmread(io.BytesIO(encoded(made)))
        assert again.StudyInstanceUID == source.StudyInstanceUID
        if keyword in ("PatientID", "StudyInstanceUID"):
            assert again[keyword].value == stored.decode()


def test_an_image_of_no_known_kind_is_a_read_error(manifest: Manifest, prediction: Prediction) -> None:
    image = phantom_image(0, size=SIZE)
    image.SOPClassUID = "1.2.840.999.1"
    source = source_header(content_of(image))
    for make in (segmentation, report):
        with pytest.raises(ReadError, match=r"SOP class 1\.2\.840\.999\.1") as caught:
            make(source, prediction, manifest)
        assert "CR, DX" in caught.value.hint


def test_a_bundle_that_is_not_sealed_has_objects_too(manifest: Manifest, prediction: Prediction) -> None:
    unsealed = manifest.model_copy(update={"bundle_id": "", "name": ""})
    source = header_of()
    assert reopened_seg(segmentation(source, prediction, unsealed)).DeviceSerialNumber == "unsealed"
    assert reopened_sr(report(source, prediction, unsealed)).ManufacturerModelName == "hilum"


def test_a_segmentation_is_not_taken_for_an_image(manifest: Manifest, prediction: Prediction) -> None:
    for evidence in (None, prediction.evidence):  # one frame, which could be decoded as an image of one bit, and two
        made = segmentation(header_of(), replace(prediction, evidence=evidence), manifest)
        with pytest.raises(ReadError, match="image is a segmentation"):
            read_radiograph(encoded(made), origin="image")
