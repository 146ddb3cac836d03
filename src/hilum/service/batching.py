"""Micro-batching: collect images of several requests for one forward pass, in a few threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects submitted items and processes them in batches.

    The next batches fill while others are processed, so batches grow with the load and a single item does not wait.

    Args:
        work: Function from items to their results, in order; an exception in place of a result is raised for its item.
            Each result is passed on as soon as it is there. Called from several threads at once.
        size: Maximum number of items per batch.
        threads: Number of threads, and so of batches at a time.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Iterable[Result | Exception]], size: int, threads: int = 1
    ) -> None:
        self._work, self._size = work, size
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._changed = threading.Condition()
        self._started: dict[int, float] = {}  # by thread, while it works on a batch
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"hilum-batches-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, item: Item) -> Result:
        """Return the result for one item; raises what ``work`` raises for this item alone."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._stopping:
                raise RuntimeError("the batcher has stopped")
            self._waiting.append((item, future))
            self._changed.notify()
        return await future

    @property
    def busy_seconds(self) -> float:
        """Seconds that every thread has spent on its present batch, at least; 0 if one waits for items."""
        now = time.monotonic()
        with self._changed:
            every = [now - started for started in self._started.values()]
        return min(every) if len(every) == len(self._threads) else 0.0

    def stop(self, seconds: float | None = None) -> None:
        """Process all submitted items, then end the threads.

        Args:
            seconds: Maximum time; no limit by default.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        until = time.monotonic() + (seconds or 0.0)
        for thread in self._threads:
            thread.join(None if seconds is None else max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while batch := self._next():
            if live := [(item, future) for item, future in batch if not future.cancelled()]:
                own = threading.get_ident()
                with self._changed:
                    self._started[own] = time.monotonic()
                self._do(live)
                with self._changed:
                    del self._started[own]

    def _do(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        done = 0
        try:
            for (_, future), outcome in zip(batch, self._work([item for item, _ in batch]), strict=True):
                _settle(future, outcome)
                done += 1
        except Exception as error:  # an error of one item must not end the thread or affect other items
            if len(batch) == 1:
                _settle(batch[0][1], error)
            else:
                for alone in batch[done:]:
                    self._do([alone])

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """Return the next batch; empty when stopped and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            return [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    """Pass an outcome to the event loop that waits for it, unless it is closed."""

    def put() -> None:
        if future.done():  # the request was cancelled
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    loop = future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(put)
