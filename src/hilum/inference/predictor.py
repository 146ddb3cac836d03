"""One predictor for files, folders, the service and the page; two backends behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.data.read import read_radiograph
from hilum.errors import ReadError
from hilum.export.bundle import Bundle
from hilum.gate import ClassicGate, Gate
from hilum.inference.backends import Backend, BackendName, BackendOutput, open_backend
from hilum.inference.label_sets import label_set
from hilum.inference.softmax import softmax
from hilum.preprocess import preprocess, restore_probability
from hilum.types import Finding, Prediction, Radiograph, Refusal

Source: TypeAlias = Path | Radiograph
_READERS = 2


class Answer(NamedTuple):
    """What came of one source; ``radiograph`` is None where it could not be read."""

    result: Prediction | Refusal
    radiograph: Radiograph | None


class _Ready(NamedTuple):
    radiograph: Radiograph
    image: NDArray[np.float32]  # (C, S, S)
    findings: tuple[Finding, ...]


class Predictor:
    """A bundle, an engine and a gate, opened once and used for any number of films.

    Args:
        bundle: gives preprocessing, class names, temperature, quantiles and thresholds.
        backend: the engine; ONNX Runtime on the CPU by default.
        gate: refuses what the model should not answer on; the bundle's own by default.
        batch_size: films in one forward pass.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: Backend | BackendName = "onnx",
        gate: Gate | None = None,
        batch_size: int = 8,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self._backend = open_backend(bundle, backend) if isinstance(backend, str) else backend
        self._gate = gate if gate is not None else ClassicGate(self.manifest.gate)
        self._batch_size = batch_size

    def predict(self, source: Source) -> Prediction | Refusal:
        """The answer for one film: a Prediction, or a Refusal with its reasons."""
        return next(self.predict_many([source])).result

    def predict_many(self, sources: Iterable[Source]) -> Iterator[Answer]:
        """An Answer for each source, in order. A bad file becomes a Refusal and stops nothing.

        Files are read and prepared in threads while the engine works; no more than a few batches are held.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            for chunk in _ahead(pool, self._prepare, sources, self._batch_size):
                yield from self._answer(chunk)

    def _prepare(self, source: Source) -> _Ready | Answer:
        try:
            radiograph = source if isinstance(source, Radiograph) else read_radiograph(source)
        except ReadError as error:
            finding = Finding("unreadable", "error", str(error), (str(source),))
            return Answer(Refusal(str(source), "unreadable", (finding,)), None)
        findings = self._gate(radiograph)
        if any(finding.severity == "error" for finding in findings):
            return Answer(Refusal(radiograph.origin, "refused", findings), radiograph)
        return _Ready(radiograph, preprocess(radiograph, self.manifest.preprocess), findings)

    def _answer(self, chunk: Sequence[_Ready | Answer]) -> Iterator[Answer]:
        ready = [item for item in chunk if isinstance(item, _Ready)]
        predictions: Iterator[Answer] = iter(())
        if ready:
            output = self._backend.run(np.stack([item.image for item in ready]))
            predictions = (Answer(self._finish(item, output, row), item.radiograph) for row, item in enumerate(ready))
        for item in chunk:
            yield next(predictions) if isinstance(item, _Ready) else item

    def _finish(self, item: _Ready, output: BackendOutput, row: int) -> Prediction:
        manifest = self.manifest
        probabilities = softmax(output.classification[row : row + 1], manifest.temperature)[0]
        lung = restore_probability(output.segmentation[row, 0], item.radiograph.shape, manifest.preprocess)
        mask = np.asarray(lung > manifest.mask_threshold)
        label = manifest.class_names[int(probabilities.argmax())]
        doubt = _low_confidence(float(probabilities.max()), manifest.abstention_threshold, item.radiograph.origin)
        return Prediction(
            origin=item.radiograph.origin,
            class_names=manifest.class_names,
            probabilities=probabilities,
            label=label,
            label_set=label_set(probabilities, manifest.class_names, manifest.label_set_quantiles),
            mask=mask,
            evidence=None if output.evidence is None else output.evidence[row],
            lung_fraction=float(mask.mean()),
            bundle_id=manifest.bundle_id,
            findings=item.findings + doubt,
            abstained=bool(doubt),
        )


def _low_confidence(probability: float, threshold: float | None, origin: str) -> tuple[Finding, ...]:
    """The finding of a prediction that abstains; none where it answers. A probability at the threshold answers."""
    if threshold is None or probability >= threshold:
        return ()
    message = f"low confidence: probability {probability:.4g}, expected at least {threshold:.4g}; not to be relied on"
    return (Finding("low_confidence", "warning", message, (origin,) if origin else ()),)


def _ahead(
    pool: ThreadPoolExecutor,
    prepare: Callable[[Source], _Ready | Answer],
    sources: Iterable[Source],
    size: int,
) -> Iterator[list[_Ready | Answer]]:
    """Chunks of ``size`` prepared sources, two chunks being prepared while one is answered."""
    remaining = iter(sources)
    pending: deque[Future[_Ready | Answer]] = deque(
        pool.submit(prepare, source) for source in islice(remaining, 3 * size)
    )
    while pending:
        chunk = [pending.popleft().result() for _ in range(min(size, len(pending)))]
        pending.extend(pool.submit(prepare, source) for source in islice(remaining, len(chunk)))
        yield chunk
