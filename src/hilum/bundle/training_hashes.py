"""Hashes of training images in a bundle, and whether they are complete. The hash is in hilum.data.image_hash.

An image cannot be reconstructed from its hash, but anyone who has an image can tell whether it was used for training:
``--no-training-hashes`` leaves the hashes out. Images that a bundle was recalibrated on count as training images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.bundle.bundle import TRAINING_HASHES, Bundle, TrainingHashes
from hilum.data.image_hash import HASH_BYTES, METHOD, Hashes, Images, find_known, from_bytes, to_bytes
from hilum.errors import BundleError, DataError
from hilum.progress import Progress

Extent: TypeAlias = Literal["all", "part", "none"]
"""Proportion of a network's training and validation images with a known hash."""


def no_hashes() -> Hashes:
    """Return an empty array (0, 32) uint8."""
    return np.empty((0, HASH_BYTES), np.uint8)


@dataclass(frozen=True)
class KnownImages:
    """Known training and validation images of a network.

    Attributes:
        extent: ``all``, ``part`` or ``none``; ``part`` if the network was fine-tuned from a bundle without hashes, or
            recalibrated without adding those of the calibration images.
        hashes: (N, 32) uint8.
    """

    extent: Extent = "none"
    hashes: Hashes = field(default_factory=no_hashes)

    def find(self, images: Images, progress: Progress | None = None) -> NDArray[np.bool_] | None:
        """Return which fitted images (N, S, S) uint8 are known, (N,) bool; None if the extent is ``none``."""
        return None if self.extent == "none" else find_known(images, self.hashes, progress)

    def files(self, note: str = "") -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the manifest field and the file of a bundle; both are empty without hashes."""
        if not len(self.hashes):
            return {}, {}
        content = to_bytes(self.hashes)
        facts = TrainingHashes(method=METHOD, images=len(from_bytes(content)), complete=self.extent == "all", note=note)
        return {"training_hashes": facts}, {TRAINING_HASHES: content}


def known_images(bundle: Bundle) -> KnownImages:
    """Return the known training images of a bundle.

    Raises:
        BundleError: The hashes cannot be read.
    """
    facts = bundle.manifest.training_hashes
    if facts is None or TRAINING_HASHES not in bundle:
        return KnownImages()
    try:
        return KnownImages("all" if facts.complete else "part", from_bytes(bundle.read(TRAINING_HASHES)))
    except DataError as error:
        raise BundleError(f"Cannot read {TRAINING_HASHES} of the bundle '{bundle.path}'. {error.message}") from error


def united(parts: Iterable[KnownImages]) -> KnownImages:
    """Combine the known images of successive training runs of one network."""
    parts = list(parts)
    extents = {part.extent for part in parts}
    extent = parts[0].extent if len(extents) == 1 else "part"
    return KnownImages(extent, np.concatenate([part.hashes for part in parts]))
