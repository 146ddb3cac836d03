"""Create DICOM objects from a result: a segmentation and a structured report that refer to the image.

Both belong to the study of the image. Their UIDs are functions of the image, the bundle and the predictor's settings,
so that repeated predictions give the same objects and an archive shows which images are already processed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.dataset import Dataset

from hilum.bundle.bundle import Manifest
from hilum.errors import ReadError
from hilum.imaging.decoding import decoding
from hilum.inference.dicom_names import Kind, instance_uid, series_uid
from hilum.inference.dicom_seg import build_segmentation
from hilum.inference.dicom_source import source_header
from hilum.inference.dicom_sr import build_report
from hilum.inference.result import Prediction, Result

__all__ = ["Kind", "encoded", "instance_uid", "report", "segmentation", "series_uid", "source_header"]


def segmentation(source: Dataset, prediction: Prediction, manifest: Manifest, settings: str = "") -> Dataset:
    """Return a binary Segmentation with the rows and columns of the source: segment 1 is lung, segment 2 evidence.

    Segment 2 is the region where the evidence for the predicted class is at least a quarter of its peak, as drawn in
    overlays (hilum.inference.contour); it is absent without evidence. An empty mask gives an empty frame.

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

    It contains label, probabilities, prediction set and abstention of a prediction, or the status of a refused image,
    and for both the findings of the input check and the bundle.

    Args:
        source: Header of the image, from source_header.
        result: The result for the image.
        manifest: Manifest of the bundle that predicted.
        settings: Predictor.settings of the predictor.

    Raises:
        ReadError: No report can be created from this header.
    """
    with _made_of(source):
        return build_report(source, result, manifest, settings)


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
