"""A second run makes the same DICOM objects, but for the time."""

from __future__ import annotations

from dicom_images import content_of, phantom_image
from pydicom import DataElement, Dataset

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.inference.dicom_out import objects_of, source_header
from hilum.inference.predictor import Predictor, Upload

TIMES = {"ContributionDateTime", "ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime"} | {
    "DateOfSecondaryCapture", "TimeOfSecondaryCapture", "PresentationCreationDate", "PresentationCreationTime",
}  # fmt: skip


def without_times(dataset: Dataset) -> Dataset:
    def remove(inside: Dataset, element: DataElement) -> None:
        if element.keyword in TIMES:
            del inside[element.tag]

    dataset.walk(remove)
    return dataset


def test_a_second_run_makes_the_same_objects() -> None:
    """Trap: the UID of a segmentation's dimensions was drawn at random."""
    predictor = Predictor(load_bundle(resolve_bundle()))
    content = content_of(phantom_image(4_000_001, size=128))
    image = Upload(content, "image.dcm")
    one, two = (
        objects_of(
            source_header(content), predictor.predict(image), predictor.manifest, predictor.settings,
            kinds=("seg", "sr", "sc", "pr"),
        )
        for _ in range(2)
    )  # fmt: skip
    assert {*one} == {*two} == {"seg", "sr", "sc", "pr"}
    for kind, made in one.items():
        assert without_times(made) == without_times(two[kind]), kind
