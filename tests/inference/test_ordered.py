"""Work in several threads: the order of results, what is in memory, errors, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from hilum.inference.ordered import Lookahead, in_chunks, in_order


def failing_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise LookupError("the source failed")


def test_chunks_have_all_items_before_an_error() -> None:
    assert list(in_chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(in_chunks([], 3)) == []
    chunks = in_chunks(failing_after(4), 3)
    assert [next(chunks), next(chunks)] == [[0, 1, 2], [3]]
    with pytest.raises(LookupError):
        next(chunks)


def test_a_lookahead_takes_no_more_than_it_is_asked_for() -> None:
    items = iter(range(3))
    ahead = Lookahead(items)
    assert ahead.has(2)
    assert next(items) == 2
    assert list(ahead) == [0, 1]
    short = Lookahead(iter(range(1)))
    assert not short.has(2)
    assert list(short) == [0]
    broken = Lookahead(failing_after(1))
    assert broken.has(2)
    assert next(broken) == 0
    with pytest.raises(LookupError):
        next(broken)


def test_results_are_in_order_although_later_work_ends_first() -> None:
    def work(item: int) -> Iterator[int]:
        time.sleep(0.02 if item % 3 == 0 else 0)
        yield 10 * item
        yield 10 * item + 1

    assert list(in_order(iter(range(9)), work, threads=3)) == [10 * n + k for n in range(9) for k in (0, 1)]


def test_threads_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)

    def work(item: int) -> Iterator[int]:
        both.wait()
        yield item

    assert list(in_order(iter(range(4)), work, threads=2)) == [0, 1, 2, 3]


def test_items_are_taken_as_results_are() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = in_order(endless(), lambda item: [item], threads=3)
    for number in range(1, 50):
        assert next(results) == number
        assert taken <= number + 3 + 2
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["source", "work"])
def test_an_error_comes_after_all_results_before_it(place: str) -> None:
    def work(item: int) -> Iterator[int]:
        yield item
        if place == "work" and item == 5:
            raise LookupError("the work failed")

    found: list[int] = []
    with pytest.raises(LookupError):
        found.extend(in_order(failing_after(6), work, threads=2))
    assert found == [0, 1, 2, 3, 4, 5]


def test_ctrl_c_gives_what_is_under_way_and_begins_no_more() -> None:
    begun: list[int] = []
    may_end, main = threading.Event(), threading.main_thread().ident
    assert main is not None

    def work(item: int) -> Iterator[int]:
        begun.append(item)
        if item == 2:
            time.sleep(0.3)  # the main thread waits for this item by now
            threading.Timer(0.3, may_end.set).start()
            signal.pthread_kill(main, signal.SIGINT)
        if item >= 2:
            may_end.wait(10)
        yield item

    found: list[int] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            found.extend(in_order(iter(range(100)), work, threads=2))
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == sorted(begun)
    assert 3 <= len(found) <= 4
