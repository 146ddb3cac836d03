"""Micro-batching: collect images of several requests for one forward pass, in one thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects submitted items and processes them in batches.

    The next batch fills while one is processed, so batches grow with the load and a single item does not wait.

    Args:
        work: Function from items to their results, in order; called from one thread.
        size: Maximum number of items per batch.
        wait: Seconds to wait for more items if a batch is not full.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], size: int, wait: float = 0.0) -> None:
        self._work, self._size, self._wait = work, size, wait
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hilum-batches", daemon=True)
        self._thread.start()

    async def submit(self, item: Item) -> Result:
        """Return the result for one item; raises what ``work`` raises for this item alone."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._stopping:
                raise RuntimeError("the batcher has stopped")
            self._waiting.append((item, future))
            self._changed.notify()
        return await future

    def stop(self) -> None:
        """Process all submitted items, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            if live := [(item, future) for item, future in batch if not future.cancelled()]:
                self._do(live)

    def _do(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = self._work([item for item, _ in batch])
        except Exception as error:  # an error of one item must not end the thread or affect other items
            if len(batch) == 1:
                _settle(batch, [error])
            else:
                for alone in batch:
                    self._do([alone])
        else:
            _settle(batch, results)

    def _next(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """Return the next batch; empty when stopped and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            until = time.monotonic() + self._wait
            while self._wait and len(self._waiting) < self._size and not self._stopping:
                if not self._changed.wait(max(0.0, until - time.monotonic())) or time.monotonic() >= until:
                    break
            return [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]


def _settle(
    batch: Sequence[tuple[Item, asyncio.Future[Result]]], outcomes: Sequence[Result] | Sequence[Exception]
) -> None:
    """Pass outcomes to the event loops that wait for them, unless they are closed."""

    def put(future: asyncio.Future[Any], outcome: Any) -> None:
        if future.done():  # the request was cancelled
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    for (_, future), outcome in zip(batch, outcomes, strict=True):
        loop = future.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(put, future, outcome)
