from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from hilum.service.batching import Batcher


class _Work:
    """Squares; waits for ``gate`` in the first batch, fails on negative numbers, and keeps the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        assert self.gate.wait(10)
        if min(items) < 0:
            raise ValueError(f"{min(items)}")
        return [item * item for item in items]


async def _all(batcher: Batcher[int, int], work: _Work, items: Sequence[int]) -> list[int | BaseException]:
    """Submits the items while the first is under way, then lets it go on."""
    tasks = [asyncio.create_task(batcher.submit(items[0]))]
    while not work.batches:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(batcher.submit(item)) for item in items[1:]]
    await asyncio.sleep(0.01)
    work.gate.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_shares_the_next_batches() -> None:
    work = _Work()
    batcher = Batcher(work, size=3)
    assert asyncio.run(_all(batcher, work, [1, 2, 3, 4, 5, 6])) == [1, 4, 9, 16, 25, 36]
    assert work.batches == [[1], [2, 3, 4], [5, 6]]
    batcher.stop()


def test_one_that_fails_fails_alone() -> None:
    work = _Work()
    batcher = Batcher(work, size=8)
    found = asyncio.run(_all(batcher, work, [1, 2, -3, 4]))
    batcher.stop()
    assert [found[0], found[1], found[3]] == [1, 4, 16]
    assert isinstance(found[2], ValueError)


def test_what_is_given_up_costs_nothing() -> None:
    work = _Work()
    batcher = Batcher(work, size=8)

    async def run() -> int:
        first = asyncio.create_task(batcher.submit(1))
        while not work.batches:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0.01)
        second.cancel()
        third = asyncio.create_task(batcher.submit(3))
        await asyncio.sleep(0.01)
        work.gate.set()
        return await first + await third

    assert asyncio.run(run()) == 10
    batcher.stop()
    assert work.batches == [[1], [3]]


def test_stopping_finishes_what_was_submitted_and_takes_no_more() -> None:
    work = _Work()
    batcher = Batcher(work, size=1)

    async def run() -> list[int]:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0.01)
        work.gate.set()
        await asyncio.to_thread(batcher.stop)
        with pytest.raises(RuntimeError, match="stopped"):
            await batcher.submit(4)
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == [1, 4, 9]


def test_each_thread_takes_a_batch() -> None:
    both = threading.Barrier(2, timeout=10)

    def work(items: Sequence[int]) -> list[int]:
        both.wait()
        return list(items)

    batcher = Batcher(work, size=1, threads=2)

    async def run() -> list[int]:
        return [*await asyncio.gather(batcher.submit(1), batcher.submit(2))]

    assert asyncio.run(run()) == [1, 2]
    batcher.stop()


def test_a_result_does_not_wait_for_the_rest_of_its_batch() -> None:
    first = threading.Event()

    def work(items: Sequence[int]) -> Iterator[int | Exception]:
        if items == [0]:
            assert first.wait(10)
        for item in items:
            yield item
            if item == 1:
                assert seen.wait(10)

    seen = threading.Event()
    batcher = Batcher(work, size=3)

    async def run() -> list[int]:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (0, 1, 2)]
        await asyncio.sleep(0.01)
        first.set()
        found = [await tasks[0], await tasks[1]]
        seen.set()
        return [*found, await tasks[2]]

    assert asyncio.run(run()) == [0, 1, 2]
    batcher.stop()


def test_an_exception_in_place_of_a_result_is_that_items() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [ValueError("odd") if n % 2 else n for n in items], size=4)

    async def run() -> list[int | BaseException]:
        return await asyncio.gather(*(batcher.submit(n) for n in range(3)), return_exceptions=True)

    found = asyncio.run(run())
    batcher.stop()
    assert [found[0], found[2]] == [0, 2]
    assert isinstance(found[1], ValueError)


def test_busy_and_stopped_in_time() -> None:
    work = _Work()
    batcher = Batcher(work, size=1, threads=2)

    async def run() -> list[int]:
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.1)
        assert batcher.busy_seconds == 0.0  # a thread is free
        second = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0.1)
        assert 0.0 < batcher.busy_seconds < 60.0
        started = time.monotonic()
        await asyncio.to_thread(batcher.stop, 0.2)
        assert 0.2 <= time.monotonic() - started < 30.0
        work.gate.set()
        return [await first, await second]

    assert asyncio.run(run()) == [1, 4]
    batcher.stop()
    assert batcher.busy_seconds == 0.0
