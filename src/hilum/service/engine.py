"""The model of the service: loaded once, decodes in threads, predicts in micro-batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.bundle.gate import open_gate
from hilum.inference.predictor import Predictor, Ready, Upload
from hilum.inference.result import Result
from hilum.service.batching import Batcher
from hilum.service.encode import file_result
from hilum.service.metrics import Metrics
from hilum.service.problems import ProblemError
from hilum.service.schemas import FileResult
from hilum.service.settings import ServeSettings


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
        self._predictor = Predictor(bundle, gate=gate, fix_orientation=settings.fix_orientation)
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

    async def predict(self, files: Sequence[Waiting], extras: Collection[str]) -> list[FileResult]:
        """Return the results of files, in order.

        Raises:
            ProblemError: The queue is full, the service is stopping, or the request timed out.
        """
        if (refusal := self.turned_away(len(files))) is not None:
            raise refusal
        self._images += len(files)
        self._metrics.waiting.set(self._images)
        try:
            work = asyncio.gather(*(self._one(file, extras) for file in files))
            return await asyncio.wait_for(work, self._settings.timeout)
        except asyncio.TimeoutError as error:
            detail = f"Not finished after {self._settings.timeout:g} s."
            raise ProblemError.of("timeout", 503, detail, headers=self._again) from error
        finally:
            self._images -= len(files)
            self._metrics.waiting.set(self._images)

    async def _one(self, file: Waiting, extras: Collection[str]) -> FileResult:
        loop = asyncio.get_running_loop()
        async with self._room:
            upload = Upload(await file.read(), file.name, self._settings.max_pixels)
            prepared = await loop.run_in_executor(self._pool, self._predictor.prepare, upload)
            answer = await self._batcher.submit(prepared) if isinstance(prepared, Ready) else prepared
            result = await loop.run_in_executor(self._pool, file_result, answer, upload.name, extras)
        self._metrics.images.labels(result.status).inc()
        return result

    def _run(self, items: Sequence[Ready]) -> list[Result]:
        self._metrics.batches.observe(len(items))
        return list(self._predictor.answer(items))

    def close(self) -> None:
        """Finish accepted images, then end the threads."""
        self.stopping = True
        self._batcher.stop()
        self._pool.shutdown()
