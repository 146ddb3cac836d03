"""The model of the service: loaded once, decodes in threads, predicts in micro-batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.bundle.gate import USUAL_GATE, open_gate
from hilum.errors import ReadError
from hilum.imaging.read import read_stored
from hilum.imaging.stored import StoredImage
from hilum.inference.predictor import Predictor, Ready, Upload
from hilum.inference.result import Result
from hilum.service.batching import Batcher
from hilum.service.metrics import Metrics
from hilum.service.problems import ProblemError
from hilum.service.settings import ServeSettings

Encoded = TypeVar("Encoded")


class Waiting(NamedTuple):
    """A file that is not read yet."""

    name: str
    read: Callable[[], Awaitable[bytes]]


class Engine:
    """Predicts on files of requests; limits the number of images in progress and in memory.

    Args:
        settings: Settings of the service.
        metrics: Metrics to update.

    Raises:
        BundleError: The bundle cannot be loaded.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        bundle = load_bundle(resolve_bundle(settings.bundle))
        gate = open_gate(bundle, settings.gate)
        self.bundle, self.manifest, self.gate = bundle, bundle.manifest, gate.name
        self._settings, self._metrics = settings, metrics
        self._predictor = Predictor(bundle, gate=gate)
        # The same network and input check, which also correct the orientation.
        self._correcting = (
            Predictor(bundle, backend=self._predictor.backend, gate=gate, fix_orientation=True)
            if gate.name == USUAL_GATE
            else None
        )
        self._pool = ThreadPoolExecutor(settings.readers, thread_name_prefix="hilum-files")
        self._batcher: Batcher[Ready, Result] = Batcher(self._run, settings.batch_size, settings.batch_wait)
        self._room = asyncio.Semaphore(2 * settings.batch_size + settings.readers)
        self._images = 0
        self._again = {"Retry-After": str(settings.retry_after)}
        self.stopping = False

    def turned_away(self, images: int = 1) -> ProblemError | None:
        """Return the problem if a number of images cannot be accepted now, else None."""
        if self.stopping:
            return ProblemError.of("stopping", 503, "Try again later, or use another instance.", headers=self._again)
        if self._images + images > self._settings.queue:
            detail = f"{self._images} of {self._settings.queue} images are in progress or waiting; try again later."
            return ProblemError.of("busy", 429, detail, headers=self._again)
        return None

    async def predict(
        self,
        files: Sequence[Waiting],
        encode: Callable[[Result, Upload], Encoded],
        *,
        fix_orientation: bool | None = None,
    ) -> list[Encoded]:
        """Return the encoded results of files, in order.

        Args:
            files: The files.
            encode: Function from a result and its file to what is returned; called in a thread.
            fix_orientation: Whether to correct the orientation; as the settings say by default.

        Raises:
            ProblemError: The queue is full, the service is stopping, the request timed out, or the input check cannot
                correct the orientation.
        """
        predictor = self._predictor_for(fix_orientation)
        return await self._within_limits(len(files), [self._one(file, encode, predictor) for file in files])

    def settings_of(self, fix_orientation: bool | None) -> str:
        """Return ``Predictor.settings`` of the predictor that ``predict`` uses."""
        return self._predictor_for(fix_orientation).settings

    def _predictor_for(self, fix_orientation: bool | None) -> Predictor:
        wanted = self._settings.fix_orientation if fix_orientation is None else fix_orientation
        predictor = self._correcting if wanted else self._predictor
        if predictor is None:
            raise ProblemError.of("bad-request", 422, f"The input check {self.gate!r} does not detect the orientation.")
        return predictor

    async def decode(self, file: Waiting) -> StoredImage:
        """Return the stored gray values of a file.

        Raises:
            ProblemError: The file cannot be read, the queue is full, the service is stopping, or the request timed out.
        """

        async def one() -> StoredImage:
            async with self._room:
                content = await file.read()
                loop, limit = asyncio.get_running_loop(), self._settings.max_pixels
                read = partial(read_stored, content, origin=file.name, max_pixels=limit)
                return await loop.run_in_executor(self._pool, read)

        try:
            (stored,) = await self._within_limits(1, [one()])
        except ReadError as error:
            raise ProblemError.of("unreadable", 422, str(error)) from error
        return stored

    async def _within_limits(self, images: int, work: Sequence[Coroutine[Any, Any, Encoded]]) -> list[Encoded]:
        """Run work on a number of images, if there is room for it, within the time limit."""
        if (refusal := self.turned_away(images)) is not None:
            for one in work:
                one.close()
            raise refusal
        self._images += images
        self._metrics.waiting.set(self._images)
        try:
            return await asyncio.wait_for(asyncio.gather(*work), self._settings.timeout)
        except asyncio.TimeoutError as error:
            detail = f"Not finished after {self._settings.timeout:g} s."
            raise ProblemError.of("timeout", 503, detail, headers=self._again) from error
        finally:
            self._images -= images
            self._metrics.waiting.set(self._images)

    async def _one(self, file: Waiting, encode: Callable[[Result, Upload], Encoded], predictor: Predictor) -> Encoded:
        loop = asyncio.get_running_loop()
        async with self._room:
            upload = Upload(await file.read(), file.name, self._settings.max_pixels)
            prepared = await loop.run_in_executor(self._pool, predictor.prepare, upload)
            result = await self._batcher.submit(prepared) if isinstance(prepared, Ready) else prepared
            self._metrics.images.labels(result.status).inc()
            return await loop.run_in_executor(self._pool, encode, result, upload)

    def _run(self, items: Sequence[Ready]) -> list[Result]:
        self._metrics.batches.observe(len(items))
        return list(self._predictor.answer(items))

    def close(self) -> None:
        """Finish accepted images, then end the threads."""
        self.stopping = True
        self._batcher.stop()
        self._pool.shutdown()
