"""Batches from the cache: which rows, in which order, and how they become a Batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from hilum.config import PreprocessSpec
from hilum.data.cache import Cache
from hilum.models.losses import UNKNOWN_LABEL
from hilum.preprocess import to_input
from hilum.types import Batch, Record


class CachedDataset(Dataset[Batch]):
    """The rows of a cache, read a batch at a time.

    Args:
        cache: images and masks, already fitted into the square.
        records: the records behind the cache's rows, in the same order.
        class_names: K names; a label's place in them is its number.
        spec: the spec the cache was built with.
    """

    def __init__(
        self, cache: Cache, records: Sequence[Record], class_names: Sequence[str], spec: PreprocessSpec
    ) -> None:
        self._cache, self._rows = cache, np.arange(len(records))
        self._class_names, self._spec = class_names, spec
        self._grey, self._channels = spec.model_copy(update={"channels": 1}), spec.channels
        self.records = tuple(records)
        self.num_classes = len(class_names)
        number = {name: position for position, name in enumerate(class_names)}
        self.labels: NDArray[np.int64] = np.array(
            [UNKNOWN_LABEL if record.label is None else number[record.label] for record in records], np.int64
        )

    def __len__(self) -> int:
        return len(self.records)

    def subset(self, rows: Sequence[int]) -> CachedDataset:
        """The data set of these rows alone, in their order, over the same cache."""
        part = CachedDataset(self._cache, [self.records[row] for row in rows], self._class_names, self._spec)
        part._rows = self._rows[list(rows)]
        return part

    def __getitems__(self, rows: list[int]) -> Batch:
        """The Batch of ``rows``; ``row`` in it numbers them as they stand in this data set."""
        own = self._rows[rows]
        grey = torch.from_numpy(to_input(self._cache.images[own], self._grey))  # (N, 1, S, S)
        mask_row = self._cache.mask_row[own]
        known = np.flatnonzero(mask_row >= 0)  # (M,)
        masks = self._cache.masks[mask_row[known]][:, None].astype(np.float32)  # (M, 1, S, S)
        return Batch(
            image=grey.expand(-1, self._channels, -1, -1),  # channels repeat without a copy
            mask=torch.from_numpy(masks),
            mask_rows=torch.from_numpy(known),
            label=torch.from_numpy(self.labels[rows]),
            row=torch.tensor(rows),
        )


class EpochSampler(Sampler[list[int]]):
    """The rows of each training batch, a function of (seed, epoch) alone, so that a resumed run sees the same.

    An incomplete last batch is dropped, since batch normalisation cannot take a batch of one; a data set
    smaller than one batch is taken whole.

    Args:
        labels: (N,) int64, -1 where unknown.
        batch_size: rows in a batch.
        seed: of the order.
        balanced: draw with replacement so that every class comes equally often; unlabelled rows keep their share.
    """

    def __init__(self, labels: NDArray[np.int64], batch_size: int, seed: int, *, balanced: bool = False) -> None:
        self._size = min(batch_size, len(labels))
        self._seed = seed
        self._labels = labels
        self._balanced = balanced
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._labels) // self._size

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self._seed, self.epoch])
        n = len(self._labels)
        order = random.choice(n, n, p=self._shares()) if self._balanced else random.permutation(n)
        for batch in range(len(self)):
            yield order[batch * self._size : (batch + 1) * self._size].tolist()

    def _shares(self) -> NDArray[np.float64]:
        known = self._labels != UNKNOWN_LABEL
        shares = np.full(len(self._labels), 1 / len(self._labels))
        _, inverse, counts = np.unique(self._labels[known], return_inverse=True, return_counts=True)
        shares[known] = known.mean() / (len(counts) * counts[inverse])
        return shares


def training_loader(dataset: CachedDataset, sampler: EpochSampler, workers: int) -> DataLoader[Batch]:
    """Batches in the sampler's order."""
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=_as_it_is, num_workers=workers)


def evaluation_loader(dataset: CachedDataset, batch_size: int, workers: int) -> DataLoader[Batch]:
    """All rows once, in order, the last batch as large as it comes."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, collate_fn=_as_it_is, num_workers=workers)


def _as_it_is(batch: Any) -> Any:
    """The data set already gives whole batches, so there is nothing to collate."""
    return batch
