"""Connected components: their places, and masks with more of them than 16 bits count."""

from __future__ import annotations

import numpy as np

from hilum.imaging.components import connected_components


def test_areas_and_columns_of_components_that_touch_at_corners() -> None:
    mask = np.zeros((6, 9), np.bool_)
    mask[0:2, 1:3] = mask[2, 3] = True  # one component: its parts touch at a corner
    mask[4:6, 6:9] = True
    found = connected_components(mask)
    np.testing.assert_array_equal(found.areas[1:], [5, 6])
    np.testing.assert_array_equal(found.lefts[1:], [1, 6])
    np.testing.assert_array_equal(found.rights[1:], [4, 9])
    np.testing.assert_allclose(found.centers[1:], [1.8, 7.0])
    np.testing.assert_array_equal(found.numbers > 0, mask)


def test_a_mask_with_more_components_than_16_bits_count() -> None:
    mask = np.zeros((516, 516), np.bool_)
    mask[::2, ::2] = True
    found = connected_components(mask)
    assert len(found.areas) == 1 + 258 * 258 > 2**16
    assert found.numbers.max() == 258 * 258


def test_the_largest_mask_that_has_16_bits() -> None:
    mask = np.zeros((510, 510), np.bool_)
    mask[::2, ::2] = True
    found = connected_components(mask)
    assert found.numbers.dtype == np.uint16
    assert found.numbers.max() == 255 * 255
