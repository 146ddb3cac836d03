"""The masks of a DICOM Segmentation are those of the prediction after it is written and read."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from dicom_images import content_of, dicom_image
from dicom_results import SIZE, small_manifest, small_prediction
from hypothesis import given, settings
from hypothesis import strategies as st
from image_writing import gray
from numpy.typing import NDArray
from pydicom import dcmread

from hilum.inference.dicom_out import objects_of, source_header
from hilum.inference.dicom_seg import segment_masks

_MANIFEST = small_manifest()
_HEADER = source_header(content_of(dicom_image(gray(SIZE, SIZE))))


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Up to four rectangles."""
    mask = np.zeros((SIZE, SIZE), np.bool_)
    for _ in range(draw(st.integers(0, 4))):
        top, left = draw(st.integers(0, SIZE - 1)), draw(st.integers(0, SIZE - 1))
        mask[top : draw(st.integers(top, SIZE)), left : draw(st.integers(left, SIZE))] = True
    return mask


@settings(max_examples=10)
@given(masks())
def test_masks_of_a_segmentation(mask: NDArray[np.bool_]) -> None:
    prediction = replace(small_prediction(_MANIFEST), mask=mask)
    made = objects_of(_HEADER, prediction, _MANIFEST, kinds=("seg",))["seg"]
    read = dcmread(io.BytesIO(content_of(made)))
    expected = segment_masks(_HEADER, prediction, _MANIFEST)
    frames = np.asarray(read.pixel_array).reshape(-1, SIZE, SIZE)
    assert len(frames) == len(expected)
    for frame, own in zip(frames, expected.values(), strict=True):
        assert np.array_equal(frame.astype(np.bool_), own)
    assert not (frames[0] & frames[1]).any()
    assert np.array_equal((frames[0] | frames[1]).astype(np.bool_), mask)
