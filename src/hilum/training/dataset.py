"""Dataset, samplers and loaders that read batches from a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from hilum.config import PreprocessSpec
from hilum.data.cache import Cache
from hilum.imaging.preprocess import to_input
from hilum.types import UNKNOWN_LABEL, Batch, Record


class CachedDataset(Dataset[Batch]):
    """Dataset of the rows of a cache, read one batch at a time.

    Args:
        cache: Fitted images and masks.
        records: The records of the cache's rows, in the same order.
        class_names: The K class names; the index of a label is its class number.
        spec: The preprocessing of the cache.
    """

    def __init__(
        self, cache: Cache, records: Sequence[Record], class_names: Sequence[str], spec: PreprocessSpec
    ) -> None:
        self._cache, self._rows = cache, np.arange(len(records))
        self._spec = spec
        self._gray, self._channels = spec.model_copy(update={"channels": 1}), spec.channels
        self.records = tuple(records)
        self.class_names = tuple(class_names)
        self.num_classes = len(class_names)
        number = {name: position for position, name in enumerate(class_names)}
        self.labels: NDArray[np.int64] = np.array(
            [UNKNOWN_LABEL if record.label is None else number[record.label] for record in records], np.int64
        )

    def __len__(self) -> int:
        return len(self.records)

    def subset(self, rows: Sequence[int]) -> CachedDataset:
        """Return the dataset of some rows, in the given order, over the same cache."""
        part = CachedDataset(self._cache, [self.records[row] for row in rows], self.class_names, self._spec)
        part._rows = self._rows[list(rows)]
        return part

    def decoded(self) -> Cache:
        """Return the decoded images and masks of the rows, in order; those of a subset are copied into memory."""
        if np.array_equal(self._rows, np.arange(len(self._cache.images))):
            return self._cache
        return replace(self._cache, images=self._cache.images[self._rows], mask_row=self._cache.mask_row[self._rows])

    def __getitems__(self, rows: list[int]) -> Batch:
        """Return the Batch of ``rows``; row + a x N is the a-th repetition of a row, with another augmentation."""
        places = np.asarray(rows) % len(self)
        own = self._rows[places]
        gray = torch.from_numpy(to_input(self._cache.images[own], self._gray))  # (N, 1, S, S)
        mask_row = self._cache.mask_row[own]
        known = np.flatnonzero(mask_row >= 0)  # (M,)
        masks = self._cache.masks[mask_row[known]][:, None].astype(np.float32)  # (M, 1, S, S)
        return Batch(
            image=gray.expand(-1, self._channels, -1, -1),  # channels repeat without a copy
            mask=torch.from_numpy(masks),
            mask_rows=torch.from_numpy(known),
            label=torch.from_numpy(self.labels[places]),
            row=torch.tensor(rows),
        )


class EpochSampler(Sampler[list[int]]):
    """Sampler of training batches as a function of (seed, epoch), so that a resumed run has the same batches.

    An incomplete last batch is dropped, since batch normalization needs at least two images; a dataset smaller than one
    batch is one batch.

    Args:
        labels: (N,) int64, -1 if unknown.
        batch_size: Rows per batch.
        seed: Random seed of the order.
        shares: (N,) float64 with sum 1, probability of each row when drawn with replacement; None uses each row once.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        batch_size: int,
        seed: int,
        *,
        shares: NDArray[np.float64] | None = None,
    ) -> None:
        self._size = min(batch_size, len(labels))
        self._seed = seed
        self._rows = len(labels)
        self._shares = shares
        self.epoch = 0

    def __len__(self) -> int:
        return self._rows // self._size

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self._seed, self.epoch])
        n = self._rows
        if self._shares is None:
            order = random.permutation(n)
        else:
            order = random.choice(n, n, p=self._shares)
            order = order + n * _repetitions(order)
        for batch in range(len(self)):
            yield order[batch * self._size : (batch + 1) * self._size].tolist()


def _repetitions(drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of previous occurrences of each value, (N,)."""
    by_value = np.argsort(drawn, kind="stable")
    ordered = drawn[by_value]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    before = np.arange(len(drawn)) - np.repeat(starts, np.diff(np.r_[starts, len(drawn)]))
    found = np.empty_like(before)
    found[by_value] = before
    return found


def sampling_shares(dataset: CachedDataset, by: str, power: float) -> NDArray[np.float64] | None:
    """Return the sampling probability (N,) of each row, or None for ``natural``. Unlabeled rows keep theirs.

    Args:
        dataset: The dataset with N rows.
        by: ``natural``; ``class``: balance classes; ``class-source``: balance classes within sources.
        power: The probability of a class is proportional to its size to the power of 1 - ``power``.
    """
    if by == "natural":
        return None
    known = dataset.labels != UNKNOWN_LABEL
    sources = [record.source or "" if by == "class-source" else "" for record in dataset.records]
    cells = np.array([f"{label} {source}" for label, source in zip(dataset.labels, sources, strict=True)])
    shares = np.full(len(cells), 1 / len(cells))
    _, inverse, counts = np.unique(cells[known], return_inverse=True, return_counts=True)
    raw = (counts ** -float(power))[inverse]
    shares[known] = known.mean() * raw / raw.sum()
    return shares


def training_loader(dataset: CachedDataset, sampler: EpochSampler, workers: int) -> DataLoader[Batch]:
    """Return a loader of batches in the sampler's order."""
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=_as_it_is, num_workers=workers)


def evaluation_loader(dataset: CachedDataset, batch_size: int, workers: int) -> DataLoader[Batch]:
    """Return a loader of all rows, in order; the last batch may be smaller."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, collate_fn=_as_it_is, num_workers=workers)


def _as_it_is(batch: Any) -> Any:
    """Return the batch unchanged, since the dataset returns whole batches."""
    return batch
