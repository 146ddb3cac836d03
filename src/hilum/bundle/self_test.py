"""The self-test of a bundle: one synthetic radiograph with the outputs expected for it. Running it is elsewhere."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.arrays import read_archive
from hilum.bundle.bundle import SELF_TEST, Bundle
from hilum.bundle.container import DAMAGED
from hilum.errors import BundleError

TOLERANCE = 1e-4
"""Maximum difference in float32 of probabilities, and of other values (relative for those above 1)."""
REDUCED_TOLERANCE = 0.5
"""The same for bf16 and int8, whose predicted class must also be the expected one."""

_IMAGE = "image"


@dataclass(frozen=True)
class SelfTest:
    """A synthetic radiograph and the outputs of the float32 network for it.

    Attributes:
        image: (S, S) uint8, the output of hilum.imaging.preprocess.fit_image.
        expected: Outputs by the names of the ONNX graph, float32, without the batch axis: ``segmentation`` (1, S, S),
            ``classification`` (K,) and, if the network has them, ``evidence`` (K, h, w) and ``features`` (F,).
    """

    image: NDArray[np.uint8]
    expected: Mapping[str, NDArray[np.float32]]

    def content(self) -> bytes:
        """Return the content of the bundle's file, a compressed NumPy archive."""
        stream = io.BytesIO()
        arrays: dict[str, NDArray[Any]] = {_IMAGE: self.image, **self.expected}
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # it takes a bool for an array
        return stream.getvalue()


def self_test_of(bundle: Bundle) -> SelfTest | None:
    """Return the self-test of a bundle, or None if it has none.

    Raises:
        BundleError: The file is no archive of arrays with these shapes.
    """
    if SELF_TEST not in bundle:
        return None
    manifest = bundle.manifest
    side, classes = manifest.preprocess.size, len(manifest.class_names)
    try:
        arrays = read_archive(bundle.read(SELF_TEST))
        image = arrays.pop(_IMAGE)
        if image.dtype != np.uint8 or any(values.dtype != np.float32 for values in arrays.values()):
            raise ValueError("the image is not uint8, or an output not float32")
        shapes = image.shape, arrays["segmentation"].shape, arrays["classification"].shape
        if shapes != ((side, side), (1, side, side), (classes,)):
            raise ValueError(f"the arrays have shapes {shapes}")
    except (ValueError, KeyError) as error:
        raise BundleError(f"{SELF_TEST} in '{bundle.path}' cannot be read: {error}.", hint=DAMAGED) from error
    return SelfTest(image, arrays)
