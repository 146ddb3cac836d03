"""Work on an iterable in several threads, with the results in order and a bounded number of items in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

_WAITING = 2
"""Items that wait for a thread or for their turn in the results, in addition to one per thread."""


def in_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items, the last with the rest. An error of ``items`` is raised after those before it."""
    remaining = iter(items)
    while True:
        chunk: list[Item] = []
        try:
            chunk.extend(islice(remaining, size))
        except Exception:
            if chunk:
                yield chunk
            raise
        if not chunk:
            return
        yield chunk


class Lookahead(Generic[Item]):
    """An iterator that can be asked whether it has a number of further items; an error counts as one.

    Args:
        items: The items.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._seen: deque[Item | _Raised] = deque()

    def has(self, count: int) -> bool:
        """Return whether there are ``count`` items more, and take as many from the iterator."""
        while len(self._seen) < count:
            try:
                self._seen.append(next(self._items))
            except StopIteration:
                return False
            except Exception as error:
                self._seen.append(_Raised(error))
        return True

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if not self._seen:
            return next(self._items)
        item = self._seen.popleft()
        if isinstance(item, _Raised):
            raise item.error
        return item


def in_order(items: Iterator[Item], work: Callable[[Item], Iterable[Made]], threads: int) -> Iterator[Made]:
    """Yield all that ``work`` yields for each item, in the order of the items.

    At most ``threads`` + 2 items are under way or done and not yet taken. After Ctrl-C, the results of items under way
    are still given before it is raised; items that wait are not begun.

    Args:
        items: Taken one by one, in the thread of the caller.
        work: Called in one of the threads.
        threads: Number of threads.

    Raises:
        Exception: What ``items`` or ``work`` raises, after all that comes before it.
    """

    def outcome(item: Item) -> _Outcome[Made]:
        made: list[Made] = []
        try:
            made.extend(work(item))
        except Exception as error:
            return _Outcome(made, error)
        return _Outcome(made, None)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="hilum")
    pending: deque[Future[_Outcome[Made]]] = deque()
    try:
        more = True
        while more or pending:
            while more and len(pending) < threads + _WAITING:
                more = _submit(pool, outcome, items, pending)
            if pending:
                made, error = pending[0].result()
                pending.popleft()
                yield from made
                if error is not None:
                    raise error
    except KeyboardInterrupt:
        for future in [future for future in pending if not future.cancel()]:
            yield from future.result().made
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def prepared_ahead(
    pool: ThreadPoolExecutor, prepare: Callable[[Item], Made], items: Iterable[Item], size: int
) -> Iterator[list[Made]]:
    """Yield chunks of ``size`` prepared items, preparing one chunk ahead.

    An error of the items, or in preparing one, is raised after the chunk of the items before it.
    """
    remaining = iter(items)
    pending: deque[Future[Made]] = deque()

    def submit(count: int) -> None:
        nonlocal remaining
        try:
            pending.extend(pool.submit(prepare, item) for item in islice(remaining, count))
        except Exception as error:
            failed: Future[Made] = Future()
            failed.set_exception(error)
            pending.append(failed)
            remaining = iter(())

    submit(2 * size)
    while pending:
        chunk: list[Made] = []
        try:
            while pending and len(chunk) < size:
                chunk.append(pending.popleft().result())
        except Exception:
            if chunk:
                yield chunk
            raise
        submit(len(chunk))
        yield chunk


class _Raised(NamedTuple):
    """An error in place of an item."""

    error: Exception


class _Outcome(NamedTuple, Generic[Made]):
    """What was made of an item, and the error that ended it, if any."""

    made: list[Made]
    error: Exception | None


def _submit(
    pool: ThreadPoolExecutor,
    outcome: Callable[[Item], _Outcome[Made]],
    items: Iterator[Item],
    pending: deque[Future[_Outcome[Made]]],
) -> bool:
    """Submit the next item, or the error in its place, and return whether there may be more."""
    try:
        item = next(items)
    except StopIteration:
        return False
    except Exception as error:
        failed: Future[_Outcome[Made]] = Future()
        failed.set_result(_Outcome([], error))
        pending.append(failed)
        return False
    pending.append(pool.submit(outcome, item))
    return True
