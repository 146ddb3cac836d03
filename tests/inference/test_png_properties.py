"""Images and masks are the same after they are written and read: as PNG, and as run lengths."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from hilum.imaging.read import read_mask, read_radiograph
from hilum.inference.png import png_bytes
from hilum.service.encode import run_lengths

_shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)


@given(hnp.arrays(np.bool_, _shapes))
def test_a_mask(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(read_mask(png_bytes(mask)), mask)


@given(st.sampled_from([np.uint8, np.uint16]).flatmap(lambda kind: hnp.arrays(kind, _shapes)))
def test_gray_levels(image: NDArray[Any]) -> None:
    read = read_radiograph(png_bytes(image))
    assert np.array_equal(read.pixels, image)
    assert (read.pixels.dtype, read.bits_stored) == (image.dtype, 8 * image.dtype.itemsize)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3))))
def test_colors(image: NDArray[np.uint8]) -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(image)))), image)


@given(hnp.arrays(np.bool_, _shapes))
def test_run_lengths(mask: NDArray[np.bool_]) -> None:
    encoded = run_lengths(mask)
    values = np.repeat(np.arange(len(encoded.counts)) % 2 == 1, encoded.counts)
    assert np.array_equal(values.reshape(encoded.size, order="F"), mask)
    assert all(count > 0 for count in encoded.counts[1:])
