"""Batches from the cache: what is in them, their order, and that loader processes change nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.data.cache import open_cache
from hilum.training.dataset import (
    CachedDataset,
    EpochSampler,
    ahead,
    evaluation_loader,
    sampling_shares,
    training_loader,
)
from hilum.types import Batch, Record

CLASSES = ("COVID", "Normal", "Viral Pneumonia")
N = 11
SPEC = PreprocessSpec(size=32)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """11 images of the network's own size; every third has a mask, the fifth has no label."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    made = []
    for row in range(N):
        image, mask = folder / f"{row}.png", folder / f"{row}_mask.png"
        cv2.imwrite(str(image), random.integers(0, 256, (32, 32), dtype=np.uint8))
        if row % 3 == 0:
            cv2.imwrite(str(mask), np.where(random.random((32, 32)) < 0.5, 255, 0).astype(np.uint8))
        label = None if row == 4 else CLASSES[row % 3]
        made.append(Record(image, mask if row % 3 == 0 else None, label))
    return made


def make_dataset(records: list[Record], folder: Path, spec: PreprocessSpec = SPEC) -> CachedDataset:
    return CachedDataset(open_cache(records, spec, folder, workers=1), records, CLASSES, spec)


@pytest.fixture(scope="module")
def dataset(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> CachedDataset:
    return make_dataset(records, tmp_path_factory.mktemp("cache"))


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(mine, yours) for mine, yours in zip(one, other, strict=True))


# --- in the memory of a device, and ahead of time -----------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_made_on_a_device_are_those_of_the_cache(records: list[Record], tmp_path: Path, channels: int) -> None:
    """The same code as on a GPU, here on the CPU."""
    own = make_dataset(records, tmp_path, PreprocessSpec(size=32, channels=channels))
    resident = own.resident(torch.device("cpu"))
    for rows in ([9, 4, 0, 7], [1, 2], [3 + N, 3]):
        assert same(resident.__getitems__(rows), own.__getitems__(rows))
    part = own.subset([5, 0, 9])
    assert same(part.resident(torch.device("cpu")).__getitems__([2, 0, 1]), part.__getitems__([2, 0, 1]))
    assert resident.labels.tolist() == own.labels.tolist()
    assert not own.fits(torch.device("cpu"))  # where the cache is in memory already


def test_images_that_fit_a_gpu_stay_there(dataset: CachedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = dataset.decoded().images.nbytes + dataset.decoded().masks.nbytes
    for free, fits in ((4 * needed, True), (4 * needed - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert dataset.fits(torch.device("cuda")) is fits


def test_the_next_item_is_made_while_one_is_in_use() -> None:
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    found = ahead(items())
    assert next(found) == 0
    assert second.wait(10)
    assert list(found) == [1, 2]
    assert made == [0, 1, 2]


def test_an_error_while_an_item_is_made_is_raised_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 7
        raise ValueError("torn")

    found = ahead(items())
    assert next(found) == 7
    with pytest.raises(ValueError, match="torn"):
        next(found)
    assert list(ahead([])) == []


# --- what is in a batch -------------------------------------------------------------------------------------------


def test_a_batch_holds_the_rows_that_were_asked_for(dataset: CachedDataset, records: list[Record]) -> None:
    rows = [9, 4, 0, 7]
    batch = dataset.__getitems__(rows)
    assert [tensor.dtype for tensor in batch] == [torch.float32] * 2 + [torch.int64] * 3
    assert batch.image.shape == (4, 1, 32, 32)
    assert batch.row.tolist() == rows
    assert batch.label.tolist() == [0, -1, 0, 1]
    assert batch.mask_rows.tolist() == [0, 2]  # places in the batch of rows 9 and 0
    for place, row in enumerate(rows):
        pixels = cv2.imread(str(records[row].image_path), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(batch.image[place, 0].numpy(), pixels.astype(np.float32) / np.float32(255))
    for place, mask in zip(batch.mask_rows.tolist(), batch.mask, strict=True):
        path = records[rows[place]].mask_path
        assert path is not None
        np.testing.assert_array_equal(mask[0].numpy(), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127)


def test_a_batch_without_masks_has_an_empty_tensor_of_them(dataset: CachedDataset) -> None:
    batch = dataset.__getitems__([1, 2])
    assert batch.mask.shape == (0, 1, 32, 32)
    assert batch.mask_rows.shape == (0,)


def test_three_channels_are_gray_repeated(dataset: CachedDataset, records: list[Record], tmp_path: Path) -> None:
    three = make_dataset(records, tmp_path, PreprocessSpec(size=32, channels=3)).__getitems__([3, 5]).image
    assert three.shape == (2, 3, 32, 32)
    assert torch.equal(three, dataset.__getitems__([3, 5]).image.expand(2, 3, 32, 32))


def test_a_batch_is_a_copy_that_may_be_written(dataset: CachedDataset) -> None:
    batch = dataset.__getitems__([0])
    batch.image.zero_()
    batch.mask.zero_()
    assert dataset.__getitems__([0]).image.any()
    assert dataset.__getitems__([0]).mask.any()


# --- the order ----------------------------------------------------------------------------------------------------


def order_of(sampler: EpochSampler, epoch: int) -> list[list[int]]:
    sampler.epoch = epoch
    return list(sampler)


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    labels = np.zeros(50, np.int64)
    one = EpochSampler(labels, 8, seed=3)
    first = [order_of(one, epoch) for epoch in (1, 2, 3)]
    assert order_of(EpochSampler(labels, 8, seed=3), 3) == first[2]  # no need to have drawn epochs 1 and 2
    assert order_of(one, 1) == first[0]
    assert first[0] != first[1]
    assert order_of(EpochSampler(labels, 8, seed=4), 1) != first[0]
    torch.manual_seed(0)
    np.random.seed(0)
    assert order_of(one, 1) == first[0]


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(50, 8, [8] * 6), (48, 8, [8] * 6), (9, 8, [8]), (8, 8, [8]), (5, 8, [5]), (1, 8, [1]), (3, 1, [1] * 3)],
)
def test_an_incomplete_last_batch_is_dropped_unless_it_is_all_there_is(
    n: int, batch_size: int, sizes: list[int]
) -> None:
    sampler = EpochSampler(np.zeros(n, np.int64), batch_size, seed=0)
    batches = order_of(sampler, 1)
    assert [len(batch) for batch in batches] == sizes
    assert len(sampler) == len(sizes)
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == len(rows)  # without replacement
    assert set(rows) <= set(range(n))


def test_what_is_dropped_changes_from_epoch_to_epoch() -> None:
    sampler = EpochSampler(np.zeros(15, np.int64), 8, seed=0)
    seen = {row for epoch in range(1, 9) for batch in order_of(sampler, epoch) for row in batch}
    assert seen == set(range(15))


def records_from(sources: list[str]) -> list[Record]:
    return [Record(Path("x.png"), source=name) for name in sources]


def drawn_shares(
    labels: NDArray[np.int64], by: str, power: float = 1.0, sources: list[str] | None = None
) -> dict[tuple[int, str], float]:
    """The share that each cell, a label and a source, has of what is drawn."""
    shares = sampling_shares(labels, records_from(sources or ["a"] * len(labels)), by, power)
    sampler = EpochSampler(labels, 50, seed=0, shares=shares)
    rows = [row % len(labels) for epoch in range(1, 11) for batch in order_of(sampler, epoch) for row in batch]
    counts = Counter((int(labels[row]), sources[row] if sources else "") for row in rows)
    return {cell: count / counts.total() for cell, count in counts.items()}


def test_balanced_sampling_evens_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [10, 90, 900])
    found = drawn_shares(labels, "class")
    np.testing.assert_allclose([found[label, ""] for label in range(3)], 1 / 3, atol=0.03)
    assert sampling_shares(labels, records_from(["a"] * len(labels)), "natural", 1.0) is None
    plain = EpochSampler(labels, 50, seed=0)
    assert Counter(labels[row] for batch in order_of(plain, 1) for row in batch)[0] == 10


def test_balanced_sampling_by_square_roots() -> None:
    found = drawn_shares(np.repeat([0, 1], [100, 900]), "class", 0.5)
    assert found[0, ""] == pytest.approx(0.25, abs=0.02)  # 10 of 10 + 30
    assert drawn_shares(np.repeat([0, 1], [100, 900]), "class", 0.0)[0, ""] == pytest.approx(0.1, abs=0.02)


def test_balanced_sampling_evens_the_sources_of_a_class() -> None:
    labels = np.repeat([0, 0, 1], [50, 250, 700])
    found = drawn_shares(labels, "class-source", sources=["a"] * 50 + ["b"] * 250 + ["a"] * 700)
    assert found == pytest.approx({(0, "a"): 1 / 3, (0, "b"): 1 / 3, (1, "a"): 1 / 3}, abs=0.03)


def test_balanced_sampling_leaves_unlabeled_images_their_share() -> None:
    """They are no class: a handful of them must not become a third of every batch."""
    found = drawn_shares(np.repeat([-1, 0, 1], [20, 180, 800]), "class")
    assert found[-1, ""] == pytest.approx(0.02, abs=0.007)
    assert found[0, ""] == pytest.approx(0.49, abs=0.02)


def test_a_row_that_is_drawn_again_is_the_same_image_under_another_number(dataset: CachedDataset) -> None:
    shares = np.full(N, 1 / N)
    rows = [row for batch in order_of(EpochSampler(dataset.labels, 4, 0, shares=shares), 1) for row in batch]
    assert len(set(rows)) == len(rows)  # so that each is augmented in its own way
    assert any(row >= N for row in rows)
    first, again = dataset.__getitems__([2, 3]), dataset.__getitems__([2 + N, 3 + 2 * N])
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.label, again.label)
    assert again.row.tolist() == [2 + N, 3 + 2 * N]


# --- the loaders --------------------------------------------------------------------------------------------------


def test_the_evaluation_loader_gives_every_row_once_in_order(dataset: CachedDataset) -> None:
    batches = list(evaluation_loader(dataset, 4, workers=0))
    assert [row for batch in batches for row in batch.row.tolist()] == list(range(N))
    assert [len(batch.image) for batch in batches] == [4, 4, 3]


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:This process .* is multi-threaded")
def test_loader_processes_change_nothing(dataset: CachedDataset) -> None:
    sampler = EpochSampler(dataset.labels, 4, seed=1)
    for epoch in (1, 2):
        sampler.epoch = epoch
        own = list(training_loader(dataset, sampler, workers=0))
        theirs = list(training_loader(dataset, sampler, workers=2))
        assert len(own) == len(theirs) == 2
        assert all(same(mine, yours) for mine, yours in zip(own, theirs, strict=True))
    own, theirs = (list(evaluation_loader(dataset, 4, workers)) for workers in (0, 2))
    assert all(same(mine, yours) for mine, yours in zip(own, theirs, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:This process .* is multi-threaded")
def test_a_loader_draws_the_same_from_the_global_generator_with_and_without_processes(dataset: CachedDataset) -> None:
    """Dropout comes after it, so `--workers` may change on a resumed run."""
    sampler, after = EpochSampler(dataset.labels, 4, seed=1), []
    for workers in (0, 2):
        torch.manual_seed(0)
        list(training_loader(dataset, sampler, workers))
        after.append(torch.get_rng_state())
    assert torch.equal(*after)


def test_a_subset_gives_its_own_decoded_images(dataset: CachedDataset) -> None:
    part = dataset.subset([7, 3, 9])
    found = part.decoded()
    np.testing.assert_array_equal(found.images, dataset.decoded().images[[7, 3, 9]])
    assert [row >= 0 for row in found.mask_row] == [False, True, True]  # every third has a mask
    batch = part.__getitems__([1, 2])
    np.testing.assert_array_equal(found.masks[found.mask_row[[1, 2]]], batch.mask[:, 0].numpy().astype(np.uint8))
