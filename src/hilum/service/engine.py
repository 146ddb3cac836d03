"""The model of the service: loaded once; each of a few threads takes images from file to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from hilum.backends.base import ThreadedBackend
from hilum.backends.measure import choose_backend
from hilum.backends.open import find_engine
from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.bundle.gate import USUAL_GATE, open_gate
from hilum.errors import ReadError
from hilum.imaging.reader_pool import ReaderPool
from hilum.imaging.stored import StoredImage
from hilum.inference.predictor import Predictor, Ready, Upload
from hilum.inference.result import Result
from hilum.inference.self_test import require_self_test
from hilum.service.batching import Batcher
from hilum.service.metrics import Metrics
from hilum.service.problems import ProblemError
from hilum.service.settings import ServeSettings

Encoded = TypeVar("Encoded")
_STOP_SECONDS = 2.0
"""Time for the threads to end after the last request."""


class Waiting(NamedTuple):
    """A file that is not read yet."""

    name: str
    read: Callable[[], Awaitable[bytes]]


class _Job(NamedTuple):
    """An image to predict on."""

    upload: Upload
    predictor: Predictor
    encode: Callable[[Result, Upload], Any]


class Engine:
    """Predicts on files of requests; limits the number of images in progress and in memory.

    Args:
        settings: Settings of the service.
        metrics: Metrics to update.

    Raises:
        BundleError: The bundle cannot be loaded.
        SelfTestError: The bundle's self-test fails in the engine.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        bundle = load_bundle(resolve_bundle(settings.bundle), verify_key=settings.verify_key)
        gate = open_gate(bundle, settings.gate)
        self.bundle, self.manifest, self.gate = bundle, bundle.manifest, gate.name
        self._settings, self._metrics = settings, metrics
        backend = choose_backend(bundle, settings.backend, precision=settings.precision, seconds=settings.measure)
        self.network = find_engine(bundle, settings.backend, precision=settings.precision)
        self._readers = ReaderPool(settings.workers)
        self._predictor = Predictor(bundle, backend=backend, gate=gate, read=self._readers.read_radiograph)
        # The same network and input check, which also correct the orientation.
        self._correcting = (
            Predictor(
                bundle,
                backend=self._predictor.backend,
                gate=gate,
                fix_orientation=True,
                read=self._readers.read_radiograph,
            )
            if gate.name == USUAL_GATE
            else None
        )
        self._backend = self._predictor.backend
        if isinstance(self._backend, ThreadedBackend):  # faster, as in Predictor.process
            self._backend = self._backend.on_one_thread() or self._backend
        self.self_test = "none" if require_self_test(bundle, self._backend) is None else "passed"
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="hilum-files")
        self._batcher: Batcher[_Job, Any] = Batcher(self._answer, settings.batch_size, settings.workers)
        self._room = asyncio.Semaphore(4 * settings.batch_size + settings.workers)
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
                read = partial(self._readers.read_stored, content, origin=file.name, max_pixels=limit)
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
        async with self._room:
            upload = Upload(await file.read(), file.name, self._settings.max_pixels)
            encoded: Encoded = await self._batcher.submit(_Job(upload, predictor, encode))
            return encoded

    def _answer(self, jobs: Sequence[_Job]) -> Iterator[Any]:
        """Yield the encoded result of each image, or its error, with one forward pass over all of them."""
        prepared = [_outcome(job.predictor.prepare, job.upload) for job in jobs]
        whole = [item for item in prepared if not isinstance(item, Exception)]
        if ready := sum(isinstance(item, Ready) for item in whole):
            self._metrics.batches.observe(ready)
        results = self._predictor.answer(whole, self._backend)
        for job, item in zip(jobs, prepared, strict=True):
            if isinstance(item, Exception):
                yield item
                continue
            result = next(results)
            self._metrics.images.labels(result.status).inc()
            yield _outcome(job.encode, result, job.upload)

    def check_ready(self) -> None:
        """Check that requests are accepted and answered.

        Raises:
            ProblemError: The service is stopping, or it is stuck: every worker has spent half a request's time limit on
                its present images, so that others wait.
        """
        if self.stopping:
            raise ProblemError.of("stopping", 503)
        if self._batcher.busy_seconds > self._settings.timeout / 2:
            raise ProblemError.of("stuck", 503, "All workers have been busy with the same images for too long.")

    def close(self) -> None:
        """End the threads. One that hangs in a network after the last request is left to the end of the process."""
        self.stopping = True
        self._readers.close()
        self._pool.shutdown(cancel_futures=True)
        self._batcher.stop(_STOP_SECONDS)


def _outcome(work: Callable[..., Encoded], *args: object) -> Encoded | Exception:
    try:
        return work(*args)
    except Exception as error:
        return error
