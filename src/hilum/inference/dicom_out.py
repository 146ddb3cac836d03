"""Create DICOM objects from a result: segmentation, structured report, secondary capture, presentation state.

All refer to the image and belong to its study. Their UIDs are functions of the image, the bundle and the predictor's
settings, so that repeated predictions give the same objects and an archive shows which images are already processed.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from pydicom.dataset import Dataset

from hilum.bundle.bundle import Manifest
from hilum.errors import ReadError
from hilum.imaging.decoding import decoding
from hilum.inference.dicom_names import Kind, instance_uid, series_uid
from hilum.inference.dicom_pr import build_presentation, is_gray
from hilum.inference.dicom_sc import build_capture
from hilum.inference.dicom_seg import build_segmentation
from hilum.inference.dicom_source import source_header
from hilum.inference.dicom_sr import build_report
from hilum.inference.result import Prediction, Result

__all__ = [
    "Kind", "capture", "encoded", "instance_uid", "objects_of", "presentation", "report", "segmentation", "series_uid",
    "source_header",
]  # fmt: skip


def objects_of(
    source: Dataset, result: Result, manifest: Manifest, settings: str = "", *, kinds: Collection[Kind]
) -> dict[Kind, Dataset]:
    """Return the objects of a result by kind, the report last: it refers to the segmentation.

    A refused image has a report alone, and an image with color no presentation state.

    Args:
        source: Header of the image, from source_header.
        result: The result for the image.
        manifest: Manifest of the bundle that predicted.
        settings: Predictor.settings of the predictor.
        kinds: Kinds of objects to create; a report of a prediction brings its segmentation.

    Raises:
        DataError: The mask has another size than the source.
        ReadError: An object cannot be created from this header.
    """
    made: dict[Kind, Dataset] = {}
    if isinstance(result, Prediction):
        facts = source, result, manifest, settings
        if {"seg", "sr"} & set(kinds):
            made["seg"] = segmentation(*facts)
        if "sc" in kinds:
            made["sc"] = capture(*facts)
        if "pr" in kinds and is_gray(source):
            made["pr"] = presentation(*facts)
    if "sr" in kinds:
        made["sr"] = report(source, result, manifest, settings)
    return made


def segmentation(source: Dataset, prediction: Prediction, manifest: Manifest, settings: str = "") -> Dataset:
    """Return a binary Segmentation with the rows and columns of the source: right lung, left lung and evidence.

    The last segment is the region where the evidence for the predicted class is at least a quarter of its peak, as
    drawn in overlays (hilum.inference.contour); it is absent without evidence. An empty lung gives an empty frame.

    Args:
        source: Header of the image, from source_header.
        prediction: The prediction for the image, with a mask of (Rows, Columns).
        manifest: Manifest of the bundle that predicted.
        settings: Predictor.settings of the predictor.

    Raises:
        DataError: The mask has another size than the source.
        ReadError: No segmentation can be created from this header.
    """
    with _made_of(source):
        return build_segmentation(source, prediction, manifest, settings)


def report(source: Dataset, result: Result, manifest: Manifest, settings: str = "") -> Dataset:
    """Return a Comprehensive SR, complete and unverified.

    It contains label, probabilities, prediction set and abstention of a prediction, and its segments with their finding
    sites, or the status of a refused image, and for both the findings of the input check and the bundle.

    Args:
        source: Header of the image, from source_header.
        result: The result for the image.
        manifest: Manifest of the bundle that predicted.
        settings: Predictor.settings of the predictor.

    Raises:
        DataError: The mask has another size than the source.
        ReadError: No report can be created from this header.
    """
    with _made_of(source):
        return build_report(source, result, manifest, settings)


def capture(source: Dataset, prediction: Prediction, manifest: Manifest, settings: str = "") -> Dataset:
    """Return a Secondary Capture of the overlay with its legend, marked in the pixels as for research use only.

    Args:
        source: Header of the image, from source_header.
        prediction: The prediction for the image.
        manifest: Manifest of the bundle that predicted.
        settings: Predictor.settings of the predictor.

    Raises:
        ReadError: No secondary capture can be created from this header.
    """
    with _made_of(source):
        return build_capture(source, prediction, manifest, settings)


def presentation(source: Dataset, prediction: Prediction, manifest: Manifest, settings: str = "") -> Dataset:
    """Return a Grayscale Softcopy Presentation State with the outlines of lungs and evidence, and the result in words.

    Args:
        source: Header of the image, from source_header; a gray image.
        prediction: The prediction for the image, with a mask of (Rows, Columns).
        manifest: Manifest of the bundle that predicted.
        settings: Predictor.settings of the predictor.

    Raises:
        DataError: The image has color, or the mask another size than the source.
        ReadError: No presentation state can be created from this header.
    """
    with _made_of(source):
        return build_presentation(source, prediction, manifest, settings)


def encoded(dataset: Dataset) -> bytes:
    """Return the content of a DICOM file (PS3.10) with this object."""
    stream = io.BytesIO()
    with decoding("the DICOM object to write"):
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@contextmanager
def _made_of(source: Dataset) -> Iterator[None]:
    """Convert exceptions of highdicom on unsuitable headers to ReadError, so that one image does not end a run."""
    try:
        with decoding("the header"):
            yield
    except ReadError as error:
        cause = error.__cause__
        if cause is None:
            raise
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:160]
        raise ReadError(
            f"Cannot create a DICOM object from an image of SOP class {source.SOPClassUID} ({reason}).",
            hint="Export the image as an ordinary radiograph (CR, DX).",
        ) from cause
