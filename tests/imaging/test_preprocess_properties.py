"""Properties of preprocessing, and of the way back from the network's square to the image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hilum.config import PreprocessSpec
from hilum.imaging.preprocess import (
    content_of,
    fit_image,
    fit_mask,
    placement,
    preprocess,
    restore_probability,
    to_uint8,
)
from hilum.types import Radiograph

_shapes = st.tuples(st.integers(1, 300), st.integers(1, 300))
_specs = st.builds(
    PreprocessSpec,
    size=st.sampled_from([32, 64, 128]),
    channels=st.sampled_from([1, 3]),
    fit=st.sampled_from(["pad", "stretch"]),
)


@st.composite
def radiographs(draw: st.DrawFn) -> Radiograph:
    bits = draw(st.integers(1, 16))
    kind = np.uint8 if bits <= 8 else np.uint16
    shape = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    pixels = draw(hnp.arrays(kind, shape, elements=st.integers(0, 2**bits - 1)))
    return Radiograph(pixels, bits, pixel_aspect=draw(st.sampled_from([1.0, 0.5, 1.7, 10.0])))


@given(_shapes, _specs)
def test_the_image_lies_inside_the_square(shape: tuple[int, int], spec: PreprocessSpec) -> None:
    top, left, height, width = placement(shape, spec)
    assert min(top, left) >= 0
    assert min(height, width) >= 1
    assert top + height <= spec.size
    assert left + width <= spec.size
    assert max(height, width) == spec.size
    if spec.fit == "pad":
        assert abs(spec.size - height - 2 * top) <= 1
        assert abs(spec.size - width - 2 * left) <= 1


@given(radiographs(), _specs)
def test_the_input_is_in_range_and_black_outside(radiograph: Radiograph, spec: PreprocessSpec) -> None:
    values = preprocess(radiograph, spec)
    assert values.shape == (spec.channels, spec.size, spec.size)
    assert values.dtype == np.float32
    levels = to_uint8(radiograph)
    top, left, height, width = placement(radiograph.square_shape, spec)
    inside = values[:, top : top + height, left : left + width]
    assert round(float(inside.max()) * 255) <= levels.max()
    assert round(float(inside.min()) * 255) >= levels.min()
    outside = values.copy()
    outside[:, top : top + height, left : left + width] = 0
    assert not outside.any()


@given(_shapes, _specs, st.integers(1, 16), st.data())
def test_a_constant_image_stays_constant(
    shape: tuple[int, int], spec: PreprocessSpec, bits: int, data: st.DataObject
) -> None:
    level = data.draw(st.integers(0, 2**bits - 1))
    image = Radiograph(np.full(shape, level, np.uint8 if bits <= 8 else np.uint16), bits)
    fitted = fit_image(image, spec)
    top, left, height, width = placement(shape, spec)
    assert {*np.unique(fitted[top : top + height, left : left + width]).tolist()} == {
        *np.unique(to_uint8(image)).tolist()
    }


@given(_shapes, _specs, st.data())
def test_a_mask_comes_back_to_its_place(shape: tuple[int, int], spec: PreprocessSpec, data: st.DataObject) -> None:
    """The edges of a rectangle move by at most one pixel of the coarser grid."""
    top, left = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    bottom, right = data.draw(st.integers(top + 1, shape[0])), data.draw(st.integers(left + 1, shape[1]))
    mask = np.zeros(shape, np.bool_)
    mask[top:bottom, left:right] = True
    fitted = fit_mask(mask, spec)
    restored = restore_probability(fitted.astype(np.float32), shape, spec)
    assert restored.shape == shape
    assert restored.min() >= 0
    assert restored.max() <= 1
    _, _, height, width = placement(shape, spec)
    steps = max(1, -(-shape[0] // height)), max(1, -(-shape[1] // width))
    if not (restored > 0.5).any():  # thinner than a pixel of the square
        assert bottom - top <= steps[0] or right - left <= steps[1]
        return
    rows, columns = content_of((restored > 0.5).astype(np.uint8))
    found = (rows.start, rows.stop), (columns.start, columns.stop)
    for (low, high), expected, step in zip(found, ((top, bottom), (left, right)), steps, strict=True):
        assert abs(low - expected[0]) <= step
        assert abs(high - expected[1]) <= step


@given(_shapes, _specs, st.booleans())
def test_a_full_and_an_empty_mask_come_back(shape: tuple[int, int], spec: PreprocessSpec, full: bool) -> None:
    fitted = fit_mask(np.full(shape, full), spec)
    assert np.array_equal(restore_probability(fitted.astype(np.float32), shape, spec) > 0.5, np.full(shape, full))
