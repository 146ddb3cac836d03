"""What a bundle tells of the images that it was trained on: their hashes, and whether they are all.

A hash cannot be turned back into an image, but whoever has an image can tell by it that the image was there:
``--no-training-hashes`` leaves them out of a bundle.
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
"""Of how many of a network's training and validation images there is a hash."""


def no_hashes() -> Hashes:
    """An empty array (0, 32)."""
    return np.empty((0, HASH_BYTES), np.uint8)


@dataclass(frozen=True)
class KnownImages:
    """What is known of the images that a network was trained on and validated with.

    Attributes:
        extent: ``part`` where a network was fine-tuned from a bundle whose images are not known.
        hashes: (N, 32) uint8.
    """

    extent: Extent = "none"
    hashes: Hashes = field(default_factory=no_hashes)

    def find(self, images: Images, progress: Progress | None = None) -> NDArray[np.bool_] | None:
        """Which of the fitted images (N, S, S) uint8 are among them: (N,) bool; None where nothing is known."""
        return None if self.extent == "none" else find_known(images, self.hashes, progress)

    def files(self, note: str = "") -> tuple[dict[str, Any], dict[str, bytes]]:
        """The manifest's field and the bundle's file; both empty where there are no hashes."""
        if not len(self.hashes):
            return {}, {}
        content = to_bytes(self.hashes)
        facts = TrainingHashes(method=METHOD, images=len(from_bytes(content)), complete=self.extent == "all", note=note)
        return {"training_hashes": facts}, {TRAINING_HASHES: content}


def known_images(bundle: Bundle) -> KnownImages:
    """What a bundle carries.

    Raises:
        BundleError: Its hashes cannot be read.
    """
    facts = bundle.manifest.training_hashes
    if facts is None or TRAINING_HASHES not in bundle:
        return KnownImages()
    try:
        return KnownImages("all" if facts.complete else "part", from_bytes(bundle.read(TRAINING_HASHES)))
    except DataError as error:
        raise BundleError(f"{TRAINING_HASHES} in the bundle {bundle.path}: {error.message}") from error


def united(parts: Iterable[KnownImages]) -> KnownImages:
    """The images of several trainings in a row, of one network."""
    parts = list(parts)
    extents = {part.extent for part in parts}
    extent = parts[0].extent if len(extents) == 1 else "part"
    return KnownImages(extent, np.concatenate([part.hashes for part in parts]))
