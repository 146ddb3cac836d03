"""One predictor for files, folders, the service and the page; two backends behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend, BackendOutput
from hilum.backends.open import BackendName, open_backend
from hilum.bundle.bundle import Bundle
from hilum.bundle.gate import USUAL_GATE, open_gate
from hilum.bundle.prediction_sets import prediction_set, softmax
from hilum.errors import ReadError
from hilum.gate import Gate, Mend, Reading, Verdict
from hilum.imaging.preprocess import placement, preprocess, restore_probability
from hilum.imaging.read import MAX_PIXELS, read_radiograph
from hilum.types import Finding, Prediction, Radiograph, Refusal


class Upload(NamedTuple):
    """A file's bytes that came without a path."""

    content: bytes
    name: str
    max_pixels: int = MAX_PIXELS


Source: TypeAlias = Path | Radiograph | Upload
_READERS = 2


class Answer(NamedTuple):
    """What came of one source; ``radiograph`` is None where it could not be read."""

    result: Prediction | Refusal
    radiograph: Radiograph | None


class Ready(NamedTuple):
    """A film that was read, accepted by the gate and prepared for the network."""

    radiograph: Radiograph  # as the file has it
    upright: Radiograph  # as the network sees it
    image: NDArray[np.float32]  # (C, S, S)
    verdict: Verdict
    mend: Mend | None = None  # what made it upright


class Predictor:
    """A bundle, an engine and a gate, opened once and used for any number of films.

    Args:
        bundle: gives preprocessing, class names, temperature, quantiles and thresholds.
        backend: the engine; ONNX Runtime on the CPU by default.
        gate: refuses what the model should not answer on; the bundle's own by default.
        batch_size: films in one forward pass.
        fix_orientation: put films right that the gate finds turned by quarter turns or inverted, and answer; mask and
            evidence lie on the film as the file has it, and a finding says what was done.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: Backend | BackendName = "auto",
        gate: Gate | None = None,
        batch_size: int = 8,
        fix_orientation: bool = False,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.backend = open_backend(bundle, backend) if isinstance(backend, str) else backend
        self.gate = gate if gate is not None else open_gate(bundle)
        self._batch_size, self._fix_orientation = batch_size, fix_orientation

    @property
    def settings(self) -> str:
        """What of this predictor is not in its bundle, for the record of an answer; empty with the usual ones."""
        gate = "" if self.gate.name == USUAL_GATE else f"gate:{self.gate.name}"
        return " ".join(filter(None, [gate, "fix_orientation" if self._fix_orientation else ""]))

    def predict(self, source: Source) -> Prediction | Refusal:
        """The answer for one film: a Prediction, or a Refusal with its reasons."""
        return next(self.predict_many([source])).result

    def predict_many(self, sources: Iterable[Source]) -> Iterator[Answer]:
        """An Answer for each source, in order. A bad file becomes a Refusal and stops nothing.

        Files are read and prepared in threads while the engine works; no more than a few batches are held.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            for chunk in _ahead(pool, self.prepare, sources, self._batch_size):
                yield from self.answer(chunk)

    def prepare(self, source: Source) -> Ready | Answer:
        """Read one source, ask the gate, and fit it for the network; an Answer where it goes no further."""
        try:
            radiograph = _read(source)
        except ReadError as error:
            name = source.name if isinstance(source, Upload) else str(source)
            finding = Finding("unreadable", "error", str(error), (name,))
            return Answer(Refusal(name, "unreadable", (finding,)), None)
        verdict, upright, mend = self.gate(radiograph), radiograph, None
        if self._fix_orientation and verdict.mend is not None:
            mend, upright = verdict.mend, verdict.mend.apply(radiograph)
            verdict = _after_mending(self.gate(upright), mend, radiograph.origin)
        if not verdict.accepted:
            return Answer(Refusal(radiograph.origin, "refused", verdict.findings), radiograph)
        return Ready(radiograph, upright, preprocess(upright, self.manifest.preprocess), verdict, mend)

    def answer(self, chunk: Sequence[Ready | Answer]) -> Iterator[Answer]:
        """The answers to what ``prepare`` gave, in order, from one forward pass over all that are ready."""
        ready = [item for item in chunk if isinstance(item, Ready)]
        predictions: Iterator[Answer] = iter(())
        if ready:
            output = self.backend.run(np.stack([item.image for item in ready]))
            predictions = (Answer(self._finish(item, output, row), item.radiograph) for row, item in enumerate(ready))
        for item in chunk:
            yield next(predictions) if isinstance(item, Ready) else item

    def _finish(self, item: Ready, output: BackendOutput, row: int) -> Prediction | Refusal:
        manifest, origin = self.manifest, item.radiograph.origin
        verdict = item.verdict.followed_by(self._second_word(item.upright, output, row), origin)
        if not verdict.accepted:
            return Refusal(origin, "refused", verdict.findings)
        probabilities = softmax(output.classification[row : row + 1], manifest.temperature)[0]
        lung = restore_probability(output.segmentation[row, 0], item.upright.shape, manifest.preprocess)
        mask = np.asarray(lung > manifest.mask_threshold)
        evidence = None if output.evidence is None else output.evidence[row]
        if item.mend is not None:
            mask, evidence = item.mend.back(mask), None if evidence is None else item.mend.back(evidence)
        doubt = _low_confidence(float(probabilities.max()), manifest.abstention_threshold, origin)
        return Prediction(
            origin=origin,
            class_names=manifest.class_names,
            probabilities=probabilities,
            label=manifest.class_names[int(probabilities.argmax())],
            prediction_set=prediction_set(probabilities, manifest.class_names, manifest.prediction_set_quantiles),
            mask=mask,
            evidence=evidence,
            lung_fraction=float(mask.mean()),
            bundle_id=manifest.bundle_id,
            findings=verdict.findings + doubt,
            abstained=bool(doubt),
        )

    def _second_word(self, upright: Radiograph, output: BackendOutput, row: int) -> tuple[Reading, ...]:
        """What the gate says once the network has answered."""
        top, left, height, width = placement(upright.shape, self.manifest.preprocess)
        lung = output.segmentation[row, 0, top : top + height, left : left + width] > self.manifest.mask_threshold
        return self.gate.answered(lung, None if output.features is None else output.features[row])

    def examine(self, source: Source) -> Verdict:
        """The gate's verdict on one source, both stages; the network is asked only where the first accepts.

        Raises:
            ReadError: the source cannot be read.
        """
        radiograph = _read(source)
        first = self.gate(radiograph)
        if not first.accepted:
            return first
        output = self.backend.run(preprocess(radiograph, self.manifest.preprocess)[None])
        return first.followed_by(self._second_word(radiograph, output, 0), radiograph.origin)


def _after_mending(verdict: Verdict, mend: Mend, origin: str) -> Verdict:
    """The verdict on a mended film, whose first finding says what was done to it."""
    message = f"orientation fixed before the model saw it: {mend.describe()}"
    done = Finding("orientation_fixed", "warning", message, (origin,) if origin else ())
    return replace(verdict, findings=(done, *verdict.findings))


def _read(source: Source) -> Radiograph:
    if isinstance(source, Upload):
        return read_radiograph(source.content, origin=source.name, max_pixels=source.max_pixels)
    return source if isinstance(source, Radiograph) else read_radiograph(source)


def _low_confidence(probability: float, threshold: float | None, origin: str) -> tuple[Finding, ...]:
    """The finding of a prediction that abstains; none where it answers. A probability at the threshold answers."""
    if threshold is None or probability >= threshold:
        return ()
    message = f"low confidence: probability {probability:.4g}, expected at least {threshold:.4g}; not to be relied on"
    return (Finding("low_confidence", "warning", message, (origin,) if origin else ()),)


def _ahead(
    pool: ThreadPoolExecutor,
    prepare: Callable[[Source], Ready | Answer],
    sources: Iterable[Source],
    size: int,
) -> Iterator[list[Ready | Answer]]:
    """Chunks of ``size`` prepared sources, two chunks being prepared while one is answered."""
    remaining = iter(sources)
    pending: deque[Future[Ready | Answer]] = deque(
        pool.submit(prepare, source) for source in islice(remaining, 3 * size)
    )
    while pending:
        chunk = [pending.popleft().result() for _ in range(min(size, len(pending)))]
        pending.extend(pool.submit(prepare, source) for source in islice(remaining, len(chunk)))
        yield chunk
