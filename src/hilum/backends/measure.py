"""Measure the engines of this machine on a bundle's network, and choose one where none has been chosen."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import CHUNK, ENGINE_TITLES, Backend, Floats, ThreadedBackend
from hilum.backends.choice import Speed, is_accepted, store_speeds, stored_speeds
from hilum.backends.open import (
    BackendName,
    Engine,
    PrecisionName,
    find_engine,
    installed_engines,
    open_engine,
)
from hilum.bundle.bundle import Bundle
from hilum.config import PreprocessSpec
from hilum.cpus import available_cpus
from hilum.errors import HilumError
from hilum.format import percent

SECONDS = 2.0
"""Time that a choice takes, approximately."""
REFERENCE = Engine("onnxruntime", "fp32")
"""The engine that others are compared with."""
_BURST = 0.1
"""Time that an engine runs before the next one, at least, seconds."""
_ROUNDS = 3
_ALONE = 8
"""Images per forward pass of an engine that runs one at a time."""


class Burst(NamedTuple):
    """Forward passes of one engine."""

    seconds: list[float]  # of each forward pass
    images_per_second: float


def run_burst(backend: Backend, images: Floats, workers: int = 1, seconds: float = _BURST) -> Burst:
    """Run a backend on the same batch again and again.

    Args:
        backend: The network.
        images: The batch (N, C, S, S).
        workers: Threads that do so at the same time.
        seconds: Time after which no forward pass begins; each worker runs at least one.
    """
    end = time.perf_counter() + seconds

    def work(_: int) -> list[float]:
        taken: list[float] = []
        while not taken or time.perf_counter() < end:
            start = time.perf_counter()
            backend.run(images)
            taken.append(time.perf_counter() - start)
        return taken

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        taken = [one for own in pool.map(work, range(workers)) for one in own]
    return Burst(taken, len(taken) * len(images) / (time.perf_counter() - start))


def phantom_images(count: int) -> Iterator[NDArray[np.uint8]]:
    """Draw phantoms of all classes in turn, (299, 299) each."""
    from hilum.phantoms.chest import PHANTOM_CLASSES, draw_phantom  # here, since most runs measure nothing

    for number in range(count):
        yield draw_phantom(number, PHANTOM_CLASSES[number % len(PHANTOM_CLASSES)], size=299).image


def phantom_batch(spec: PreprocessSpec, count: int) -> Floats:
    """Return preprocessed phantoms (count, C, S, S)."""
    from hilum.imaging.preprocess import preprocess
    from hilum.types import Radiograph

    return np.stack([preprocess(Radiograph(image), spec) for image in phantom_images(count)])


def compare_classes(backend: Backend, reference: Backend, images: Floats) -> tuple[float, float]:
    """Return the maximum difference of a logit, and the fraction of images with the same predicted class."""
    parts = [images[start : start + _ALONE] for start in range(0, len(images), _ALONE)]
    own, other = (
        np.concatenate([network.run(part).classification for part in parts]) for network in (backend, reference)
    )
    return float(np.abs(own - other).max()), float((own.argmax(axis=1) == other.argmax(axis=1)).mean())


def as_predict_runs(backend: Backend) -> tuple[Backend, int, int]:
    """Return network, workers and images per forward pass as in Predictor.process."""
    alone = backend.on_one_thread() if isinstance(backend, ThreadedBackend) else None
    return (backend, 1, _ALONE) if alone is None else (alone, available_cpus(), CHUNK)


def measure_speeds(bundle: Bundle, engines: Sequence[Engine], seconds: float = SECONDS) -> list[Speed]:
    """Return the throughput of engines as ``hilum predict`` runs them: medians over rounds in which they take turns.

    An engine that cannot run the network is left out, except ONNX Runtime in float32, whose error is raised.

    Args:
        bundle: The bundle.
        engines: The engines.
        seconds: Time for all of them, approximately; each is measured in at least three rounds.

    Raises:
        BundleError: ONNX Runtime cannot run the network.
    """
    end = time.perf_counter() + seconds
    images = phantom_batch(bundle.manifest.preprocess, _ALONE)
    opened: dict[Engine, tuple[Backend, int, int]] = {}
    for engine in engines:
        try:
            opened[engine] = as_predict_runs(open_engine(bundle, engine))
            backend, workers, batch = opened[engine]
            run_burst(backend, images[:batch], workers, 0)
        except HilumError:
            if engine == REFERENCE:
                raise
            opened.pop(engine, None)
    found: dict[Engine, list[float]] = {engine: [] for engine in opened}
    rounds = 0
    while rounds < _ROUNDS or time.perf_counter() < end:
        for engine, (backend, workers, batch) in opened.items():
            found[engine].append(run_burst(backend, images[:batch], workers).images_per_second)
        rounds += 1
    return [Speed(*engine, statistics.median(speeds)) for engine, speeds in found.items()]


def choose_backend(
    bundle: Bundle,
    name: BackendName = "auto",
    device: str = "cpu",
    precision: PrecisionName = "auto",
    *,
    seconds: float = SECONDS,
    say: Callable[[str], None] | None = None,
) -> Backend:
    """Load the network of a bundle in the engine that is fastest on this machine.

    Where backend and precision are ``auto``, the device is a CPU, no speeds are stored for the bundle and there is more
    than one engine to choose from, their speeds are measured and stored. PyTorch, which takes longer to import, is left
    to ``hilum bench``.

    Args:
        bundle: The bundle.
        name: See ``open_backend``.
        device: See ``open_backend``.
        precision: See ``open_backend``.
        seconds: Time for the measurement; 0: do not measure.
        say: Called with one line about the choice, if it was measured now or is not float32.

    Raises:
        HilumError: As ``open_backend``.
    """
    speeds: list[Speed] = []
    if name == precision == "auto" and device == "cpu" and seconds and not stored_speeds(bundle):
        engines = [
            engine
            for engine in installed_engines(bundle)
            if engine.backend != "pytorch" and is_accepted(bundle.manifest, *engine)
        ]
        if len(engines) > 1:
            speeds = measure_speeds(bundle, engines, seconds)
            store_speeds(bundle, speeds)
    engine = find_engine(bundle, name, device, precision)
    if say is not None and (speeds or engine.precision != "fp32"):
        say(_sentence(bundle, engine, speeds))
    return open_engine(bundle, engine, device)


def _sentence(bundle: Bundle, engine: Engine, speeds: Sequence[Speed]) -> str:
    title = f"{ENGINE_TITLES[engine.backend]}, {engine.precision}"
    agreement = None if engine.precision == "fp32" else bundle.manifest.agreement.get(engine.precision)
    if engine.precision != "fp32":
        title += (
            " (agreement with fp32 not measured)"
            if agreement is None
            else f" (same class as fp32 for {percent(agreement.labels_agree)} of {agreement.n:,} images)"
        )
    if not speeds:
        return f"Engine: {title}."
    others = ", ".join(
        f"{ENGINE_TITLES[speed.backend]} {speed.precision} {speed.images_per_second:.0f}" for speed in speeds
    )
    return f"Engine: {title}. Measured on this machine, images/s: {others}."
