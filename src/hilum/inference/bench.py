"""Measure every engine of this machine on a bundle: the network alone, and prediction on files from end to end."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hilum._version import __version__
from hilum.backends.base import Backend, EngineName, Floats, Precision, ThreadedBackend
from hilum.backends.choice import Speed, is_accepted, machine_name, store_speeds
from hilum.backends.measure import (
    REFERENCE,
    Burst,
    as_predict_runs,
    compare_classes,
    phantom_batch,
    phantom_images,
    run_burst,
)
from hilum.backends.memory import memory_of
from hilum.backends.open import Engine, find_engine, installed_engines, open_engine
from hilum.bundle.bundle import Bundle
from hilum.bundle.gate import open_gate
from hilum.cpus import available_cpus
from hilum.errors import DataError, HilumError
from hilum.inference.png import save_png
from hilum.inference.predictor import Predictor, Ready
from hilum.progress import Progress, Step
from hilum.storage import temporary_folder

BATCHES = (1, 2, 4, 8, 16, 32)
_FILES = 64
"""Files of the end-to-end measurement, at most."""
_ALONE_SHARE = 0.6
"""Share of the time for the network alone."""


@dataclass(frozen=True)
class NetworkTime:
    """Time of the network alone.

    Attributes:
        backend: Name of the engine.
        precision: Its precision.
        threads: Threads of each forward pass.
        at_once: Forward passes at the same time.
        batch: Images per forward pass.
        calls: Forward passes measured.
        p50_ms: Median time of a forward pass.
        p95_ms: 95th percentile of it.
        images_per_second: Throughput, median over the rounds.
    """

    backend: EngineName
    precision: Precision
    threads: int
    at_once: int
    batch: int
    calls: int
    p50_ms: float
    p95_ms: float
    images_per_second: float


@dataclass(frozen=True)
class EngineSummary:
    """One engine in one precision.

    Attributes:
        backend: Name of the engine.
        precision: Its precision.
        open_seconds: Time to load the network, which includes the engine's import where it comes first.
        memory_mib: Growth of the peak resident memory in a process of its own; None if not measured.
        logit_difference: Maximum absolute difference of a logit to ONNX Runtime in float32.
        labels_agree: Fraction of images with the same predicted class.
        accepted: Whether ``--precision auto`` may use it.
        network_images_per_second: Throughput of the network alone as ``hilum predict`` runs it.
        images_per_second: Throughput from file to result, median over the rounds.
        images_per_second_range: Minimum and maximum of it.
        image_ms_p50: Median time from one file to its result, one file at a time.
        image_ms_p95: 95th percentile of it.
    """

    backend: EngineName
    precision: Precision
    open_seconds: float
    memory_mib: float | None
    logit_difference: float
    labels_agree: float
    accepted: bool
    network_images_per_second: float
    images_per_second: float
    images_per_second_range: tuple[float, float]
    image_ms_p50: float
    image_ms_p95: float


@dataclass(frozen=True)
class BenchReport:
    """What ``hilum bench`` measured.

    Attributes:
        machine: Number and name of the processors.
        hilum_version: Version of hilum.
        bundle_id: The bundle.
        images: Files of the end-to-end measurement.
        phantoms: Whether they are phantoms.
        compared: Images on which the engines were compared.
        engines: One summary for each engine and precision, the fastest network first.
        network: Times of the network alone.
        chosen: The engine that ``--backend auto`` uses from now on.
        stored: File with the choice; None if it could not be written.
    """

    machine: str
    hilum_version: str
    bundle_id: str
    images: int
    phantoms: bool
    compared: int
    engines: tuple[EngineSummary, ...]
    network: tuple[NetworkTime, ...]
    chosen: Engine
    stored: Path | None


class _Cell(NamedTuple):
    """One way to run the network of one engine."""

    engine: Engine
    threads: int
    at_once: int
    batch: int


@dataclass
class _Opened:
    """A loaded engine and what was measured of it."""

    backend: Backend
    seconds: float
    speeds: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)


def bench(
    bundle: Bundle,
    files: Sequence[Path] = (),
    *,
    seconds: float = 60,
    step: Step | None = None,
) -> BenchReport:
    """Measure every engine and precision that this machine has, and store the choice that ``auto`` uses.

    Engines take turns. Each is measured at least once as ``hilum predict`` runs it; ways for which there is no time are
    left out.

    Args:
        bundle: The bundle.
        files: Radiographs for the comparison and the end-to-end measurement, of which the first 64 are used; phantoms
            where there are none.
        seconds: Time, approximately; loading the engines and their memory come on top.
        step: Progress callback.

    Raises:
        DataError: No file can be read and is accepted by the input check.
        BundleError: The graph cannot be loaded.
    """
    step = step or Step()
    opened, memory = _open(bundle, step.begin("Loading engines"))
    reference = opened[REFERENCE].backend
    with _files(files) as used:
        prepared = _prepared(Predictor(bundle, backend=reference), used)
        more = _clock(_ALONE_SHARE * seconds, step.begin("Running the network"))
        cells = _measure_network(bundle, opened, more)
        more = _clock((1 - _ALONE_SHARE) * seconds, step.begin("Predicting on files"))
        _measure_files(bundle, opened, used, more)
    network = tuple(_network_time(cell, bursts) for cell, bursts in cells.items())
    alone = {engine: _as_predicted(engine, own.backend, network) for engine, own in opened.items()}
    compared = {engine: compare_classes(own.backend, reference, prepared) for engine, own in opened.items()}
    stored = store_speeds(bundle, [Speed(*engine, alone[engine]) for engine in opened])
    engines = [
        EngineSummary(
            *engine, own.seconds, memory[engine], *compared[engine], is_accepted(bundle.manifest, *engine),
            alone[engine], statistics.median(own.speeds), (min(own.speeds), max(own.speeds)),
            *(1000 * float(value) for value in np.percentile(own.single, (50, 95))),
        )
        for engine, own in opened.items()
    ]  # fmt: skip
    return BenchReport(
        machine=machine_name(),
        hilum_version=__version__,
        bundle_id=bundle.manifest.bundle_id,
        images=len(used),
        phantoms=not files,
        compared=len(prepared),
        engines=tuple(sorted(engines, key=lambda own: -own.network_images_per_second)),
        network=network,
        chosen=find_engine(bundle),
        stored=stored,
    )


def _clock(seconds: float, progress: Progress | None) -> Callable[[], bool]:
    """Return a function that returns whether time is left, and reports the seconds that have passed."""
    start, total = time.monotonic(), max(1, round(seconds))

    def more() -> bool:
        gone = time.monotonic() - start
        if progress is not None:
            progress(min(int(gone), total), total)
        return gone < seconds

    return more


def _open(bundle: Bundle, progress: Progress | None) -> tuple[dict[Engine, _Opened], dict[Engine, float | None]]:
    """Load the engines and measure their memory; one that fails is left out, unless it is the reference."""
    opened: dict[Engine, _Opened] = {}
    memory: dict[Engine, float | None] = {}
    engines = installed_engines(bundle)
    for number, engine in enumerate(engines):
        if progress is not None:
            progress(number, len(engines))
        start = time.perf_counter()
        try:
            backend = open_engine(bundle, engine)
            backend.run(phantom_batch(bundle.manifest.preprocess, 1))
        except HilumError:
            if engine == REFERENCE:
                raise
            continue
        opened[engine] = _Opened(backend, time.perf_counter() - start)
        memory[engine] = memory_of(bundle.path, *engine)
    return opened, memory


@contextmanager
def _files(files: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Yield at most _FILES of the files, or of phantoms of 299 pixels where there are none."""
    if files:
        yield files[:_FILES]
        return
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        drawn = [folder / f"{number:02}.png" for number in range(_FILES)]
        for image, path in zip(phantom_images(_FILES), drawn, strict=True):
            save_png(image, path)
        yield drawn


def _prepared(predictor: Predictor, files: Sequence[Path]) -> Floats:
    """Return the network's input (N, C, S, S) for the files that the input check accepts."""
    ready = [item.image for item in map(predictor.prepare, files) if isinstance(item, Ready)]
    if not ready:
        raise DataError("No image can be read and is accepted by the input check.", hint="Choose other --images.")
    return np.stack(ready)


def _ways(engine: Engine, backend: Backend) -> dict[tuple[int, int], Backend]:
    """Return the ways to run an engine: threads of a forward pass and forward passes at once, to the network."""
    cpus = available_cpus()
    ways = {(cpus, 1): backend}
    alone = backend.on_one_thread() if isinstance(backend, ThreadedBackend) else None
    if alone is not None:
        ways = {(1, 1): alone, **ways, (1, cpus): alone}
    return ways


def _measure_network(
    bundle: Bundle, opened: dict[Engine, _Opened], more: Callable[[], bool]
) -> dict[_Cell, list[Burst]]:
    """Run the network alone in all ways, in turns, while ``more`` time is left; those of ``hilum predict`` first."""
    images = phantom_batch(bundle.manifest.preprocess, max(BATCHES))
    ways = {
        _Cell(engine, threads, at_once, batch): network
        for batch in BATCHES
        for engine, own in opened.items()
        for (threads, at_once), network in _ways(engine, own.backend).items()
    }
    needed = {cell for cell in ways if (cell.at_once, cell.batch) == as_predict_runs(opened[cell.engine].backend)[1:]}
    ordered = sorted(ways, key=lambda cell: (cell not in needed, cell.batch))
    found: dict[_Cell, list[Burst]] = {cell: [] for cell in ordered}
    while more() or not all(found[cell] for cell in needed):
        for cell in ordered:
            if more() or (cell in needed and not found[cell]):
                if not found[cell]:
                    run_burst(ways[cell], images[: cell.batch], cell.at_once, 0)  # the first run of a shape compiles it
                found[cell].append(run_burst(ways[cell], images[: cell.batch], cell.at_once))
    return {cell: bursts for cell, bursts in found.items() if bursts}


def _network_time(cell: _Cell, bursts: Sequence[Burst]) -> NetworkTime:
    taken = [one for burst in bursts for one in burst.seconds]
    middle, high = (1000 * float(value) for value in np.percentile(taken, (50, 95)))
    speed = statistics.median(burst.images_per_second for burst in bursts)
    return NetworkTime(*cell.engine, cell.threads, cell.at_once, cell.batch, len(taken), middle, high, speed)


def _as_predicted(engine: Engine, backend: Backend, times: Sequence[NetworkTime]) -> float:
    """Return the network's throughput in the way that ``hilum predict`` runs it."""
    _, at_once, batch = as_predict_runs(backend)
    return next(
        own.images_per_second
        for own in times
        if (own.backend, own.precision, own.at_once, own.batch) == (*engine, at_once, batch)
    )


def _measure_files(
    bundle: Bundle, opened: dict[Engine, _Opened], files: Sequence[Path], more: Callable[[], bool]
) -> None:
    """Predict on the files with each engine, in turns, at least once and while ``more`` time is left."""
    gate = open_gate(bundle)
    predictors = {engine: Predictor(bundle, backend=own.backend, gate=gate) for engine, own in opened.items()}
    while more() or not all(own.speeds for own in opened.values()):
        for engine, predictor in predictors.items():
            if opened[engine].speeds and not more():
                continue
            start = time.perf_counter()
            for _ in predictor.predict_many(files):
                pass
            opened[engine].speeds.append(len(files) / (time.perf_counter() - start))
            for file in files[:8]:
                start = time.perf_counter()
                predictor.predict(file)
                opened[engine].single.append(time.perf_counter() - start)
