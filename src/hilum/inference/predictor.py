"""The Predictor, used by the Python API, CLI and services: input check, network, post-inference check, Result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from math import lcm
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import CHUNK, Backend, BackendOutput, ThreadedBackend, name_of, precision_of
from hilum.backends.open import BackendName, open_backend
from hilum.bundle.bundle import Bundle, Manifest
from hilum.bundle.gate import USUAL_GATE, open_gate
from hilum.bundle.prediction_sets import abstains, prediction_set, softmax
from hilum.cpus import available_cpus
from hilum.errors import ConfigError, ReadError
from hilum.filesystems import RemoteFile
from hilum.gate import ClassicGate, Gate, NoGate, OrientationFix, Reading, Verdict
from hilum.imaging.components import connected_components
from hilum.imaging.convert import ImageLike, radiograph_of
from hilum.imaging.preprocess import placement, preprocess, restore_probability
from hilum.imaging.read import MAX_PIXELS, file_content, read_radiograph
from hilum.inference.ordered import Lookahead, in_chunks, in_order, prepared_ahead
from hilum.inference.result import Prediction, Result
from hilum.inference.zones import evidence_zones, patient_left
from hilum.types import Finding, Radiograph


class Upload(NamedTuple):
    """Content of a file, its name, and the maximum number of pixels to decode."""

    content: bytes
    name: str
    max_pixels: int = MAX_PIXELS


class InMemory(NamedTuple):
    """An image in memory, and its name."""

    image: ImageLike
    name: str


Source: TypeAlias = Path | RemoteFile | Radiograph | Upload | InMemory
Made = TypeVar("Made")

_SPECK = 0.01
"""Components of a lung mask below this fraction of its area are removed."""


class Ready(NamedTuple):
    """An image that was decoded, accepted by the input check and preprocessed."""

    radiograph: Radiograph  # as in the file
    upright: Radiograph  # after the orientation fix, as input of the network
    image: NDArray[np.float32]  # (C, S, S)
    verdict: Verdict
    orientation_fix: OrientationFix | None = None  # the fix applied

    @property
    def turn(self) -> int:
        """Quarter turns that were undone."""
        return 0 if self.orientation_fix is None else self.orientation_fix.turn


class Predictor:
    """A bundle with a backend and an input check, for predictions on any number of images.

    ``hilum.load`` wraps it in a Model, which accepts more kinds of input.

    Args:
        bundle: Bundle with preprocessing, class names, temperature, quantiles and thresholds.
        backend: The inference engine, or its name; see hilum.backends.open.find_engine for the default.
        gate: The input check; the bundle's own by default.
        batch_size: Maximum number of images per forward pass.
        fix_orientation: Undo rotations by 90° steps and inverted gray scale that the input check detects. Mask and
            evidence then refer to the image as stored in the file, and a finding reports the correction.
        threads: Number of threads of ``process``; one per available processor by default.
        read: Decodes the content of a file; for untrusted files, pass that of hilum.imaging.reader_pool.ReaderPool.

    Raises:
        ConfigError: The batch size is below 1, or ``fix_orientation`` is set with a gate that does not detect the
            orientation.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: Backend | BackendName = "auto",
        gate: Gate | None = None,
        batch_size: int = 8,
        fix_orientation: bool = False,
        threads: int | None = None,
        read: Callable[..., Radiograph] = read_radiograph,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"Expected a batch size of at least 1, got {batch_size}.")
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.backend = open_backend(bundle, backend) if isinstance(backend, str) else backend
        self.gate = gate if gate is not None else open_gate(bundle)
        if fix_orientation and isinstance(self.gate, (ClassicGate, NoGate)):
            raise ConfigError(
                f"fix_orientation needs the learned gate, got {self.gate.name!r}.",
                hint="Use the learned gate, which is the default.",
            )
        self._batch_size, self._fix_orientation, self._threads = batch_size, fix_orientation, threads
        self._decode = read

    @property
    def settings(self) -> str:
        """Settings of this predictor that are not in its bundle, for DICOM objects; empty for the defaults."""
        precision = precision_of(self.backend)
        parts = {
            f"gate:{self.gate.name}": self.gate.name != USUAL_GATE,
            "fix_orientation": self._fix_orientation,
            f"precision:{precision}": precision != "fp32",
        }
        return " ".join(name for name, differs in parts.items() if differs)

    def described(self) -> dict[str, Any]:
        """Return the settings that a prediction depends on, apart from the bundle, as JSON types."""
        return {
            "backend": name_of(self.backend),
            "device": str(getattr(self.backend, "device", "cpu")),
            "precision": precision_of(self.backend),
            "gate": self.gate.name,
            "fix_orientation": self._fix_orientation,
            "batch_size": self._batch_size,
        }

    @property
    def stride(self) -> int:
        """Number of sources after which ``process`` may be interrupted and later gives the same results to the bit.

        Those of one forward pass depend on each other in the last digits.
        """
        return lcm(self._batch_size, min(self._batch_size, CHUNK))

    def predict(self, source: Source) -> Result:
        """Predict on one image and return its Result."""
        return next(self.predict_many([source]))

    def predict_many(self, sources: Iterable[Source]) -> Iterator[Result]:
        """Yield a Result for each source, in order. Refused and unreadable files yield a Result with the reason.

        All processors are used, and only a few batches are in memory; see ``process``.
        """
        return (result for result, _ in self.process(sources, lambda source, result: None))

    def process(
        self, sources: Iterable[Source], work: Callable[[Source, Result], Made], *, total: int | None = None
    ) -> Generator[tuple[Result, Made], None, None]:
        """Yield the Result of each source and what ``work`` returns for it, in order.

        On a CPU, ONNX Runtime takes twice the processor time per image on two threads as on one. Each processor
        therefore takes a few sources at a time from the file to the end of ``work``, with a network of one thread. Few
        sources, and other engines, are prepared in threads while one network runs on all of them.

        Args:
            sources: The sources, taken from the iterable as they are needed.
            work: Called with each source and its Result in one of several threads.
            total: Number of sources of the whole prediction, if ``sources`` are the rest of it.

        Raises:
            Exception: What ``sources``, ``work`` or an engine raises, after the pairs of the sources before it.
        """
        size = min(self._batch_size, CHUNK)
        chunks = Lookahead(in_chunks(sources, size))
        workers = self._threads or available_cpus()
        many = chunks.has(2) if total is None else total > size
        alone = self.backend.on_one_thread() if many and isinstance(self.backend, ThreadedBackend) else None
        if alone is not None:
            yield from in_order(chunks, partial(self._process_chunk, backend=alone, work=work), workers)
        else:
            yield from self._process_batches(chain.from_iterable(chunks), work, workers)

    def _process_chunk(
        self, sources: Sequence[Source], backend: Backend, work: Callable[[Source, Result], Made]
    ) -> Iterator[tuple[Result, Made]]:
        """Yield the pairs of a few sources; an error in one of them is raised after those before it."""
        prepared: list[Ready | Result] = []
        failed: Exception | None = None
        try:
            for source in sources:
                prepared.append(self.prepare(source))
        except Exception as error:
            failed = error
        for source, result in zip(sources, self.answer(prepared, backend), strict=False):
            yield result, work(source, result)
        if failed is not None:
            raise failed

    def _process_batches(
        self, sources: Iterable[Source], work: Callable[[Source, Result], Made], workers: int
    ) -> Iterator[tuple[Result, Made]]:
        taken: deque[Source] = deque()

        def remembered() -> Iterator[Source]:
            for source in sources:
                taken.append(source)
                yield source

        done: list[tuple[Result, Future[Made]]] = []
        more, failed = True, None
        with ThreadPoolExecutor(workers) as pool:
            batches = prepared_ahead(pool, self.prepare, remembered(), self._batch_size)
            while more:
                earlier, done = done, []
                try:
                    results = list(self.answer(next(batches, [])))  # while the work on the batch before goes on
                    done = [(result, pool.submit(work, taken.popleft(), result)) for result in results]
                except Exception as error:
                    failed = error
                more = bool(done)
                for result, made in earlier:
                    yield result, made.result()
        if failed is not None:
            raise failed

    def prepare(self, source: Source) -> Ready | Result:
        """Decode, check and preprocess one source; return a Result if it is unreadable or refused."""
        try:
            radiograph = self._read(source)
        except ReadError as error:
            name = source.name if isinstance(source, (Upload, InMemory)) else str(source)
            finding = Finding("unreadable", "error", str(error), (name,))
            return self._without_prediction(name, "unreadable", (finding,))
        verdict, upright, orientation_fix = self.gate(radiograph), radiograph, None
        if self._fix_orientation and verdict.orientation_fix is not None:
            orientation_fix, upright = verdict.orientation_fix, verdict.orientation_fix.apply(radiograph)
            verdict = _after_fix(self.gate(upright), orientation_fix, radiograph.origin)
        if not verdict.accepted:
            fix = None if orientation_fix else verdict.orientation_fix
            return self._without_prediction(radiograph.origin, "refused", verdict.findings, radiograph, fix)
        return Ready(radiograph, upright, preprocess(upright, self.manifest.preprocess), verdict, orientation_fix)

    def _read(self, source: Source) -> Radiograph:
        if isinstance(source, Radiograph):
            return source
        if isinstance(source, InMemory):
            return radiograph_of(source.image, source.name)
        if isinstance(source, Upload):
            return self._decode(source.content, origin=source.name, max_pixels=source.max_pixels)
        if isinstance(source, RemoteFile):
            return self._decode(source.read(), origin=source.uri)
        return self._decode(file_content(Path(source), str(source)), origin=str(source))

    def answer(self, chunk: Sequence[Ready | Result], backend: Backend | None = None) -> Iterator[Result]:
        """Yield the results of prepared sources, in order, from one forward pass over all that are ready.

        Args:
            chunk: The prepared sources.
            backend: The engine to use instead of the predictor's.
        """
        ready = [item for item in chunk if isinstance(item, Ready)]
        predictions: Iterator[Result] = iter(())
        if ready:
            output = (backend or self.backend).run(np.stack([item.image for item in ready]))
            predictions = (self._finish(item, output, row) for row, item in enumerate(ready))
        for item in chunk:
            yield next(predictions) if isinstance(item, Ready) else item

    def _finish(self, item: Ready, output: BackendOutput, row: int) -> Result:
        manifest, origin = self.manifest, item.radiograph.origin
        verdict = item.verdict.followed_by(self._post_check(item.upright, output, row), origin)
        if not verdict.accepted:
            return self._without_prediction(origin, "refused", verdict.findings, item.radiograph)
        probabilities = softmax(output.classification[row : row + 1], manifest.applied_temperature)[0]
        lung = restore_probability(
            _without_specks(output.segmentation[row, 0], manifest.mask_threshold),
            item.upright.square_shape,
            manifest.preprocess,
            size=item.upright.shape,
        )
        mask = np.asarray(lung > manifest.mask_threshold)
        evidence = None if output.evidence is None else output.evidence[row]
        if item.orientation_fix is not None:
            mask, evidence = (
                item.orientation_fix.back(mask),
                None if evidence is None else item.orientation_fix.back(evidence),
            )
        doubt = _low_confidence(probabilities, manifest, origin)
        return Prediction(
            origin=origin,
            radiograph=item.radiograph,
            class_names=manifest.class_names,
            probabilities=dict(zip(manifest.class_names, probabilities.tolist(), strict=True)),
            label=manifest.class_names[int(probabilities.argmax())],
            prediction_set=prediction_set(probabilities, manifest.class_names, manifest.prediction_set_quantiles),
            mask=mask,
            evidence=evidence,
            evidence_zones=None if output.evidence is None else self._zones(item, output, row),
            lung_fraction=np.count_nonzero(mask) / mask.size,
            bundle_id=manifest.bundle_id,
            findings=verdict.findings + doubt,
            abstained=bool(doubt),
            preprocess=manifest.preprocess,
            orientation_fix=item.orientation_fix,
        )

    def _without_prediction(
        self,
        origin: str,
        status: Literal["refused", "unreadable"],
        findings: tuple[Finding, ...],
        radiograph: Radiograph | None = None,
        orientation_fix: OrientationFix | None = None,
    ) -> Result:
        return Result(
            origin=origin,
            status=status,
            findings=findings,
            radiograph=radiograph,
            class_names=self.manifest.class_names,
            bundle_id=self.manifest.bundle_id,
            preprocess=self.manifest.preprocess,
            orientation_fix=orientation_fix,
        )

    def _zones(self, item: Ready, output: BackendOutput, row: int) -> dict[str, float] | None:
        """Return the zones of the predicted class's evidence, measured on the network's square input."""
        top, left, height, width = placement(item.upright.square_shape, self.manifest.preprocess)
        lung = np.zeros(output.segmentation.shape[-2:], np.bool_)
        lung[top : top + height, left : left + width] = self._lung(item.upright, output, row)
        evidence = np.asarray(output.evidence)[row, int(output.classification[row].argmax())]
        return evidence_zones(lung, evidence, patient_left=patient_left(item.radiograph, item.turn))

    def _lung(self, upright: Radiograph, output: BackendOutput, row: int) -> NDArray[np.bool_]:
        """Return the lung mask at the network's resolution, without padding."""
        top, left, height, width = placement(upright.square_shape, self.manifest.preprocess)
        lung = output.segmentation[row, 0, top : top + height, left : left + width]
        return np.asarray(lung > self.manifest.mask_threshold)

    def _post_check(self, upright: Radiograph, output: BackendOutput, row: int) -> tuple[Reading, ...]:
        """Run the post-inference check on one row of the network's output."""
        lung = self._lung(upright, output, row)
        return self.gate.check_output(lung, None if output.features is None else output.features[row])

    def examine(self, source: Source) -> Verdict:
        """Return the verdict of input check and post-inference check on one source.

        The network runs only if the input check accepts the image.

        Raises:
            ReadError: The source cannot be read.
        """
        radiograph = self._read(source)
        first = self.gate(radiograph)
        if not first.accepted:
            return first
        output = self.backend.run(preprocess(radiograph, self.manifest.preprocess)[None])
        return first.followed_by(self._post_check(radiograph, output, 0), radiograph.origin)


def _after_fix(verdict: Verdict, orientation_fix: OrientationFix, origin: str) -> Verdict:
    """Return the verdict on a corrected image, with a first finding that reports the correction."""
    message = f"orientation corrected before prediction: {orientation_fix.describe()}"
    done = Finding("orientation_fixed", "warning", message, (origin,) if origin else ())
    return replace(verdict, findings=(done, *verdict.findings))


def _without_specks(probability: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Return a map (S, S) with 0 in the components above ``threshold`` that have less than _SPECK of their area."""
    found = connected_components(probability > threshold)
    is_speck = found.areas < _SPECK * found.areas[1:].sum()
    is_speck[0] = False  # what is not above the threshold
    return np.where(is_speck[found.numbers], np.float32(0), probability) if is_speck.any() else probability


def _low_confidence(probabilities: NDArray[np.float64], manifest: Manifest, origin: str) -> tuple[Finding, ...]:
    """Return the finding of an abstention, if the highest probability (K,) is below the threshold."""
    if not abstains(probabilities[None], manifest.applied_threshold)[0]:
        return ()
    best = int(probabilities.argmax())
    threshold = manifest.threshold_of(best)
    expected = (
        f"no probability of {manifest.class_names[best]} is high enough"
        if threshold is None
        else f"expected at least {threshold:.4g}"
    )
    message = f"low confidence: probability {probabilities[best]:.4g}, {expected}; not to be relied on"
    return (Finding("low_confidence", "warning", message, (origin,) if origin else ()),)
