"""The changes of radiographs that a network is scored on: lungs erased, alone, or on another background.

The changes of one image are in hilum.audit.erasure, the scores in hilum.audit.model_shortcuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.audit import erasure
from hilum.audit.erasure import Image, Mask
from hilum.backends.base import Backend, BackendOutput
from hilum.config import PreprocessSpec
from hilum.errors import DataError
from hilum.imaging.preprocess import to_input

Rows: TypeAlias = NDArray[np.int64]

ERASURES = {
    "erased_inpaint": erasure.erase_inpaint,
    "erased_mean": erasure.erase_mean,
    "erased_fill": erasure.erase_fill,
    "erased_blur": erasure.erase_blur,
}
HEADLINE, CHECK = "erased_inpaint", "erased_fill"
BLURRED = "erased_blur"
"""The way of erasing that leaves the mean density of the lungs."""
PARTS = {"lungs_only": erasure.lungs_only, "border_only": erasure.border_only}
SWAPPED, SWAPPED_SAME = "background_other_class", "background_same_class"
TREATMENTS = ("intact", *ERASURES, *PARTS, SWAPPED, SWAPPED_SAME)


class Labeled(NamedTuple):
    """M images that count; a rank is a place among them."""

    images: NDArray[np.uint8]  # (N, S, S)
    lungs: Mask  # (N, S, S)
    rows: Rows  # (M,) of the N
    labels: NDArray[np.int64]  # (M,)
    partners: dict[str, Rows]  # (M,) ranks, per swap

    @property
    def treatments(self) -> tuple[str, ...]:
        """TREATMENTS, less the swaps where they have no partners."""
        swaps = (SWAPPED, SWAPPED_SAME)
        return tuple(name for name in TREATMENTS if name in self.partners or name not in swaps)

    def pair(self, rank: int) -> tuple[Image, Mask]:
        """The image and its lungs."""
        return self.images[self.rows[rank]], self.lungs[self.rows[rank]]

    def treat(self, name: str) -> Callable[[int], Image]:
        """From the rank of an image to the treated image."""
        if name == "intact":
            return lambda rank: self.pair(rank)[0]
        if name in self.partners:
            givers = self.partners[name]
            return lambda rank: erasure.swap_background(*self.pair(rank), *self.pair(givers[rank]))
        treat = {**ERASURES, **PARTS}[name]
        return lambda rank: treat(*self.pair(rank))


def partners_of(labels: NDArray[np.int64], generator: np.random.Generator) -> dict[str, Rows]:
    """Per swap, the image that gives each image its background; another class is drawn evenly, then one of its images.

    Empty where there is one class alone.
    """
    members = {int(k): np.flatnonzero(labels == k) for k in np.unique(labels)}
    if len(members) < 2:
        return {}
    other, same = np.zeros_like(labels), np.zeros_like(labels)
    for row, label in enumerate(labels.tolist()):
        other[row] = generator.choice(members[int(generator.choice([k for k in members if k != label]))])
        mates = members[label][members[label] != row]
        same[row] = generator.choice(mates) if mates.size else row
    return {SWAPPED: other, SWAPPED_SAME: same}


def trained_treatments(runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """Return which of TREATMENTS the training used, from the settings of its runs; None where there are none.

    Args:
        runs: The settings of each training run, as in hilum.bundle.bundle.Manifest.training.
    """
    if not runs:
        return None
    used = {key for run in runs for key, share in run.get("shortcuts", {}).items() if key.endswith("_p") and share}
    erased = {"erased_mean", "erased_fill"} if "erase_p" in used else set()
    swapped = {SWAPPED, SWAPPED_SAME} if "background_p" in used else set()
    return tuple(name for name in TREATMENTS if name in erased | swapped)


def run_changed(
    backend: Backend, count: int, change: Callable[[int], Image], spec: PreprocessSpec, classes: int, batch_size: int
) -> Iterator[tuple[slice, BackendOutput]]:
    """Yield the network's output for ``change(0)``, ..., ``change(count - 1)``, images (S, S) uint8 made as needed.

    Raises:
        DataError: The logits are not (n, ``classes``) or not finite.
    """
    for start in range(0, count, batch_size):
        batch = slice(start, min(start + batch_size, count))
        output = backend.run(to_input(np.stack([change(row) for row in range(batch.start, batch.stop)]), spec))
        logits = output.classification
        if logits.shape[1:] != (classes,) or not np.isfinite(logits).all():
            raise DataError(
                f"Expected {classes} finite logits per image, got an array {logits.shape} with "
                f"{np.count_nonzero(~np.isfinite(logits))} that are not finite.",
                hint="Check that the model belongs to these classes.",
            )
        yield batch, output
