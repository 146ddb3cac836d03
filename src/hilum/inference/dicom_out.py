"""What an archive gets of an answer: a segmentation and a structured report that refer to the image.

Both are made of the image's own header, belong to its study, and have UIDs that follow from the image, the bundle
and the predictor's settings: made again, they are the same objects, so that an archive shows what is already done.
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
    """A Segmentation of the source's rows and columns, binary: segment 1 is lung, 2 the evidence region.

    The evidence region is where the evidence for the predicted class is at least a quarter of its peak, which is where
    overlays draw it (hilum.inference.contour); without any there is segment 1 alone. An empty mask has an empty frame.

    Args:
        source: From source_header, of the image that was predicted on.
        prediction: Its answer; the mask is (Rows, Columns).
        manifest: Of the bundle that answered.
        settings: Of the predictor that answered, Predictor.settings.

    Raises:
        DataError: The mask is not of the source's size.
        ReadError: The header is of a kind that no segmentation can be made of.
    """
    with _made_of(source):
        return build_segmentation(source, prediction, manifest, settings)


def report(source: Dataset, result: Result, manifest: Manifest, settings: str = "") -> Dataset:
    """A Comprehensive SR, complete and unverified: label, probabilities, prediction set and abstention of a prediction,
    or the status of a refusal; for both what the gate found, and the bundle.

    Args:
        source: From source_header, of the image that was predicted on.
        result: The answer.
        manifest: Of the bundle that answered.
        settings: Of the predictor that answered, Predictor.settings.

    Raises:
        ReadError: The header is of a kind that no report can be made of.
    """
    with _made_of(source):
        return build_report(source, result, manifest, settings)


def encoded(dataset: Dataset) -> bytes:
    """The content of a DICOM file (PS3.10) with this object."""
    stream = io.BytesIO()
    with decoding("the object to be written"):
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@contextmanager
def _made_of(source: Dataset) -> Iterator[None]:
    """What highdicom raises on a header it cannot use becomes a ReadError; an image must not end a run."""
    try:
        with decoding("the header"):
            yield
    except ReadError as error:
        cause = error.__cause__
        if cause is None:
            raise
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:160]
        raise ReadError(
            f"Expected the header of an image as the standard has it, got one of SOP class {source.SOPClassUID} that no"
            f" object can be made of ({reason}).",
            hint="Export the image as an ordinary radiograph (CR, DX).",
        ) from cause
