from __future__ import annotations

import numpy as np
import pytest

from hilum.gate import OrientationFix, Reading, Verdict
from hilum.types import Radiograph


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_mend_undoes_what_was_done(turn: int, inverted: bool, bits: int) -> None:
    top = 2**bits - 1
    image = np.random.default_rng(turn).integers(0, top + 1, (30, 50)).astype(np.uint8 if bits == 8 else np.uint16)
    wrong = np.rot90(top - image if inverted else image, -turn)  # clockwise
    fixed = OrientationFix(turn, inverted).apply(Radiograph(wrong, bits_stored=bits, origin="image.png"))
    np.testing.assert_array_equal(fixed.pixels, image)
    assert fixed.pixels.dtype == image.dtype
    assert fixed.pixels.flags["C_CONTIGUOUS"]
    assert (fixed.bits_stored, fixed.origin) == (bits, "image.png")


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_what_is_found_on_the_mended_image_comes_back_to_the_file(turn: int) -> None:
    upright = np.arange(2 * 30 * 50).reshape(2, 30, 50)
    back = OrientationFix(turn).back(upright)
    np.testing.assert_array_equal(np.rot90(back, turn, axes=(1, 2)), upright)
    assert back.shape == ((2, 50, 30) if turn % 2 else (2, 30, 50))


@pytest.mark.parametrize(("value", "least", "most"), [(0.49, False, True), (0.5, True, True), (0.51, True, False)])
def test_a_value_on_its_bound_passes(value: float, least: bool, most: bool) -> None:
    assert Reading.at_least("one", "share", value, 0.5).passed is least
    assert Reading.at_most("one", "share", value, 0.5).passed is most


def test_a_finding_has_the_reason_the_value_and_the_bound() -> None:
    finding = Reading.at_most("cut", "probability", 0.75, 0.5, "warning", "lungs cut off").finding("image.png")
    assert all(word in finding.message for word in ("lungs cut off", "0.75", "0.5"))
    assert (finding.check, finding.severity, finding.records) == ("cut", "warning", ("image.png",))
    assert Reading.at_least("too_dark", "mean", 1, 2).finding("").records == ()


def test_errors_refuse_and_give_the_reason_and_warnings_do_not() -> None:
    good = Reading.at_least("one", "x", 1, 0)
    warned = Reading.at_least("two", "x", 0, 1, "warning")
    wrong = Reading.at_least("three", "x", 0, 1, reason="really wrong")
    passed = Verdict.of((good, warned), "a")
    assert passed.accepted
    assert passed.reason == "accepted"
    assert [finding.check for finding in passed.findings] == ["two"]
    refused = passed.followed_by((wrong, good), "a")
    assert not refused.accepted
    assert refused.reason == "really wrong"
    assert refused.readings == (good, warned, wrong, good)
    assert refused.followed_by((Reading.at_most("four", "x", 1, 0),), "a").reason == "really wrong, four"
