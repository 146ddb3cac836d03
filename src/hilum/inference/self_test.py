"""Run the self-test of a bundle in an engine, and report where its outputs differ most from the expected ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend, precision_of
from hilum.bundle.bundle import Bundle
from hilum.bundle.self_test import REDUCED_TOLERANCE, TOLERANCE, self_test_of
from hilum.errors import SelfTestError
from hilum.imaging.preprocess import to_input


class Mismatch(NamedTuple):
    """The largest difference in one output of the self-test.

    Attributes:
        output: Name of the output.
        difference: |found - expected| / max(1, |expected|): absolute for probabilities and values up to 1, relative
            above. Infinite if the output is missing or has another shape.
        place: Index of the value in the output, without the batch axis.
        expected: The expected value there.
        found: The value there.
    """

    output: str
    difference: float
    place: tuple[int, ...]
    expected: float
    found: float

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.place))}]"
        return f"{self.output}{where} is {self.found:.6g}, expected {self.expected:.6g}"


class Replay(NamedTuple):
    """Result of a self-test.

    Attributes:
        mismatches: The largest difference of each expected output.
        tolerance: Maximum difference.
        label: Whether the predicted class is the expected one.
    """

    mismatches: tuple[Mismatch, ...]
    tolerance: float
    label: bool

    @property
    def worst(self) -> Mismatch:
        """The output with the largest difference."""
        return max(self.mismatches, key=lambda own: np.nan_to_num(own.difference, nan=np.inf))

    @property
    def passed(self) -> bool:
        """Whether all differences are within the tolerance and the predicted class is the expected one."""
        return self.label and all(own.difference <= self.tolerance for own in self.mismatches)  # False for NaN


def replay(bundle: Bundle, backend: Backend) -> Replay | None:
    """Run the self-test of a bundle in an engine; return None if the bundle has none.

    Args:
        bundle: The bundle.
        backend: The engine, opened on that bundle.

    Raises:
        BundleError: The bundle's file cannot be read.
        DeviceError: The device is out of memory.
    """
    test = self_test_of(bundle)
    if test is None:
        return None
    output = backend.run(to_input(test.image[None], bundle.manifest.preprocess))._asdict()
    mismatches = tuple(_mismatch(name, expected, output[name]) for name, expected in test.expected.items())
    label = int(output["classification"][0].argmax()) == int(test.expected["classification"].argmax())
    return Replay(mismatches, TOLERANCE if precision_of(backend) == "fp32" else REDUCED_TOLERANCE, label)


def require_self_test(bundle: Bundle, backend: Backend) -> Replay | None:
    """Run the self-test of a bundle in an engine, if it has one, and check the result.

    Raises:
        SelfTestError: An output differs from the expected one by more than the tolerance, or the class differs.
        BundleError: As for replay.
        DeviceError: As for replay.
    """
    result = replay(bundle, backend)
    if result is not None and not result.passed:
        raise SelfTestError(
            f"The self-test of bundle {bundle.manifest.bundle_id[:12]} failed: {result.worst}.",
            hint="Compare the engines with hilum info BUNDLE --test, and use one that passes.",
        )
    return result


def _mismatch(name: str, expected: NDArray[np.float32], found: NDArray[np.float32] | None) -> Mismatch:
    if found is None or found.shape[1:] != expected.shape:
        return Mismatch(name, float("inf"), (), float("nan"), float("nan"))
    difference = np.abs(found[0].astype(np.float64) - expected) / np.maximum(1, np.abs(expected))
    place = np.unravel_index(int(difference.argmax()), expected.shape)  # argmax is the first NaN, if any
    return Mismatch(
        name, float(difference[place]), tuple(map(int, place)), float(expected[place]), float(found[0][place])
    )
