"""Dataset, samplers and loaders that read batches from a cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from hilum.config import PreprocessSpec
from hilum.data.cache import Cache
from hilum.imaging.preprocess import to_input
from hilum.metrics.scores import labels_of
from hilum.training.processes import ALONE, Processes, check_parts
from hilum.types import UNKNOWN_LABEL, Batch, Record

_T = TypeVar("_T")
_RESIDENT_SHARE = 0.25
"""Largest share of a GPU's free memory that decoded images may take."""


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
        self._resident: tuple[torch.Tensor, torch.Tensor] | None = None
        self._spec = spec
        self._gray, self._channels = spec.model_copy(update={"channels": 1}), spec.channels
        self.records = tuple(records)
        self.class_names = tuple(class_names)
        self.num_classes = len(class_names)
        self.labels = labels_of(self.records, self.class_names)

    def __len__(self) -> int:
        return len(self.records)

    def subset(self, rows: Sequence[int]) -> CachedDataset:
        """Return the dataset of some rows, in the given order, over the same cache."""
        part = CachedDataset(self._cache, [self.records[row] for row in rows], self.class_names, self._spec)
        part._rows = self._rows[list(rows)]
        return part

    def resident(self, device: torch.device) -> CachedDataset:
        """Return the dataset with images and masks as uint8 in the memory of ``device``, where its batches are made.

        The batches have the same values as those of this dataset. Labels and rows stay in the memory of the host.
        """
        decoded = self.decoded()
        part = CachedDataset(decoded, self.records, self.class_names, self._spec)
        images, masks = (torch.from_numpy(np.array(array)).to(device) for array in (decoded.images, decoded.masks))
        part._resident = images, masks
        return part

    def fits(self, device: torch.device) -> bool:
        """Return whether the decoded images take no more than a quarter of the free memory of a GPU."""
        if device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(device)
        return self._cache.images.nbytes + self._cache.masks.nbytes <= _RESIDENT_SHARE * free

    def decoded(self) -> Cache:
        """Return the decoded images and masks of the rows, in order; those of a subset are copied into memory."""
        if np.array_equal(self._rows, np.arange(len(self._cache.images))):
            return self._cache
        return replace(self._cache, images=self._cache.images[self._rows], mask_row=self._cache.mask_row[self._rows])

    def __getitems__(self, rows: list[int]) -> Batch:
        """Return the Batch of ``rows``; row + a x N is the a-th repetition of a row, with another augmentation."""
        places = np.asarray(rows) % len(self)
        own = self._rows[places]
        mask_row = self._cache.mask_row[own]
        known = np.flatnonzero(mask_row >= 0)  # (M,)
        gray, masks = self._read(own, mask_row[known])
        return Batch(
            image=gray.expand(-1, self._channels, -1, -1),  # channels repeat without a copy
            mask=masks,
            mask_rows=torch.from_numpy(known),
            label=torch.from_numpy(self.labels[places]),
            row=torch.tensor(rows),
        )

    def _read(self, rows: NDArray[np.int64], mask_rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (N, 1, S, S) in [0, 1] and masks (M, 1, S, S) in {0, 1}, float32."""
        if self._resident is None:
            gray = to_input(self._cache.images[rows], self._gray)
            read = self._cache.masks[mask_rows][:, None].astype(np.float32)
            return torch.from_numpy(gray), torch.from_numpy(read)
        images, masks = self._resident
        chosen = images[torch.from_numpy(rows).to(images.device)]
        return chosen[:, None].float() / 255, masks[torch.from_numpy(mask_rows).to(masks.device)][:, None].float()


class EpochSampler(Sampler[list[int]]):
    """Sampler of training batches as a function of (seed, epoch), so that a resumed run has the same batches.

    An incomplete last batch is dropped, since batch normalization needs at least two images; a dataset smaller than one
    batch is one batch.

    Args:
        labels: (N,) int64, -1 if unknown.
        batch_size: Rows per batch.
        seed: Random seed of the order.
        shares: (N,) float64 with sum 1, probability of each row when drawn with replacement; None uses each row once.
        processes: The processes that share each batch; this one gets its part of the rows.

    Raises:
        ConfigError: The processes cannot have equal parts of a batch.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        batch_size: int,
        seed: int,
        *,
        shares: NDArray[np.float64] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self._size = min(batch_size, len(labels))
        check_parts(self._size, processes)
        self._part = processes.part(self._size)
        self._seed = seed
        self._rows = len(labels)
        self._shares = shares
        self.epoch = 0
        self.start = 0  # batches to skip, in an epoch that is resumed

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
        for batch in range(self.start, len(self)):
            yield order[batch * self._size : (batch + 1) * self._size][self._part].tolist()


def _repetitions(drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of previous occurrences of each value, (N,)."""
    by_value = np.argsort(drawn, kind="stable")
    ordered = drawn[by_value]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    before = np.arange(len(drawn)) - np.repeat(starts, np.diff(np.r_[starts, len(drawn)]))
    found = np.empty_like(before)
    found[by_value] = before
    return found


def sampling_shares(
    labels: NDArray[np.int64], records: Sequence[Record], by: str, power: float
) -> NDArray[np.float64] | None:
    """Return the sampling probability (N,) of each row, or None for ``natural``. Unlabeled rows keep theirs.

    Args:
        labels: Class numbers (N,), -1 if unknown.
        records: The N records, which have the sources.
        by: ``natural``; ``class``: balance classes; ``class-source``: balance classes within sources.
        power: The probability of a class is proportional to its size to the power of 1 - ``power``.
    """
    if by == "natural":
        return None
    known = labels != UNKNOWN_LABEL
    sources = [record.source or "" if by == "class-source" else "" for record in records]
    cells = np.array([f"{label} {source}" for label, source in zip(labels, sources, strict=True)])
    shares = np.full(len(cells), 1 / len(cells))
    _, inverse, counts = np.unique(cells[known], return_inverse=True, return_counts=True)
    raw = (counts ** -float(power))[inverse]
    shares[known] = known.mean() * raw / raw.sum()
    return shares


def training_loader(dataset: CachedDataset, sampler: EpochSampler, workers: int) -> DataLoader[Batch]:
    """Return a loader of batches in the sampler's order."""
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=_as_it_is, num_workers=workers)


def evaluation_loader(
    dataset: CachedDataset, batch_size: int, workers: int, processes: Processes = ALONE
) -> DataLoader[Batch]:
    """Return a loader of all rows, in order; the last batch may be smaller. Each process gets consecutive batches."""
    rows = range(len(dataset))
    batches = [list(rows[start : start + batch_size]) for start in rows[::batch_size]]
    own = batches[processes.part(len(batches))]
    return DataLoader(dataset, batch_sampler=own, collate_fn=_as_it_is, num_workers=workers)


def ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the items in order; each is made in a thread while the one before it is in use."""
    end = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1, "hilum-batches") as pool:
        future = pool.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # not the end


def _as_it_is(batch: Any) -> Any:
    """Return the batch unchanged, since the dataset returns whole batches."""
    return batch
