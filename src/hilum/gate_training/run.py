"""Train a gate from a dataset and a table of negative examples, set its thresholds and write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.config import Config, PreprocessSpec
from hilum.data.cache import open_cache
from hilum.data.split import records_of
from hilum.errors import DataError, ParityError
from hilum.export.onnx import export_graph, round_weights
from hilum.gate.learned import GATE_INPUT, GATE_OUTPUTS, GateEngine, GateReading, LearnedThresholds
from hilum.gate.stored import StoredGate, write_gate
from hilum.gate.verdict import FLAGS, FRONTAL
from hilum.gate_training.loop import GateTraining, settings_text, train_gate_net
from hilum.gate_training.network import GateNet, GateOutput
from hilum.gate_training.samples import Other, Samples, counts, draw_phantoms, load_others
from hilum.imaging.preprocess import to_input
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.storage import cache_folder, sha256_text
from hilum.training.prepare import index_and_split

_SOURCE = PreprocessSpec(size=128)
"""Images are cached larger than the gate's input, since views are cropped from them."""
_PHANTOMS = 240
_TOLERANCE = 1e-3
_BATCH = 256


class ExportedGate(nn.Module):
    """Wrapper of the gate's network that returns probabilities."""

    def __init__(self, net: GateNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the outputs of GATE_OUTPUTS for images (N, 1, S, S) float32 in [0, 1]."""
        output: GateOutput = self.net(image)
        return torch.softmax(output.kind, 1), torch.softmax(output.turn, 1), torch.sigmoid(output.flags)


def train_gate(
    config: Config, others: Sequence[Other], out: Path, settings: GateTraining, step: Step | None = None
) -> StoredGate:
    """Train a gate, set its thresholds on the validation images, check the ONNX graph, and write it.

    Args:
        config: Settings of the dataset of frontal radiographs and its split.
        others: Negative examples; those of the split ``train`` are used for training.
        out: Output folder, from which an interrupted training is resumed.
        settings: Training settings.
        step: Progress callbacks.

    Returns:
        The manifest of the gate.

    Raises:
        DataError: There are no training or validation images.
        ParityError: ONNX Runtime and PyTorch disagree; nothing is written.
    """
    step = step or Step()
    index, split = index_and_split(config, RunFolder(out), step, anew=True)  # so that a changed dataset is detected
    train, val = records_of(index, split, "train"), records_of(index, split, "val")
    if not train or not val:
        raise DataError(
            f"Expected images in the splits train and val, got {len(train)} and {len(val)}.", hint="Check the split."
        )
    cached = open_cache(train, _SOURCE, cache_folder(), progress=step.begin("Decoding train"))
    spec = PreprocessSpec(size=settings.size)
    good = open_cache(val, spec, cache_folder(), progress=step.begin("Decoding val"))
    learned = [other for other in others if other.split == "train"]
    samples = Samples(
        cached, load_others(learned), draw_phantoms(settings.seed, _PHANTOMS, _SOURCE.size), settings.size
    )
    seen = {"frontal": len(train), **counts(learned)}
    identity = sha256_text(f"{settings_text(settings)} {index.digest} {split.digest} {seen}")
    net = train_gate_net(samples, settings, out, identity, step.begin("Training the gate"))
    round_weights(net)
    model = export_graph(ExportedGate(net), spec, GATE_INPUT, GATE_OUTPUTS, subject="the gate", half_weights=True)
    images = to_input(np.asarray(good.images), spec)
    read = _read(GateEngine(model), images)
    _require_parity(net, images, read)
    return write_gate(
        out, model, fit_thresholds(read),
        training={**asdict(settings), "pictures": seen},
        calibration={"split": "val", "n": len(val), "split_digest": split.digest},
    )  # fmt: skip


def _read(engine: GateEngine, images: NDArray[np.float32]) -> GateReading:
    parts = [engine.read(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    return GateReading(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _require_parity(net: GateNet, images: NDArray[np.float32], read: GateReading) -> None:
    with torch.inference_mode():
        reference = ExportedGate(net)(torch.from_numpy(images[:_BATCH]))
    pairs = zip(reference, read, strict=True)
    worst = max(float(np.abs(ours.numpy() - theirs[:_BATCH]).max()) for ours, theirs in pairs)
    if worst > _TOLERANCE:
        raise ParityError(
            f"PyTorch and ONNX Runtime disagree: probabilities differ by {worst:.2e}, tolerance {_TOLERANCE:g}.",
            hint="The gate was not written. Report this as a bug.",
        )


REFUSED = 0.002
"""Fraction of validation images that each check may refuse."""


WARNED = 0.01
"""Fraction of validation images that each check may warn about."""


def fit_thresholds(images: GateReading) -> LearnedThresholds:
    """Return thresholds from the outputs for upright frontal radiographs.

    Each is the quantile that all but a fraction REFUSED or WARNED of the images pass, limited by a probability of 0.5.
    """
    flags = {name: images.flags[:, column] for column, name in enumerate(FLAGS)}
    return LearnedThresholds(
        frontal=_least(images.kind[:, FRONTAL]),
        upright=_least(images.turn[:, 0]),
        inverted=_most(flags["inverted"], REFUSED),
        cropped=_most(flags["cropped"], REFUSED),
        mirrored=_most(flags["mirrored"], WARNED),
        annotated=_most(flags["annotated"], WARNED),
    )


def _least(good: NDArray[np.float32]) -> float:
    return round(min(0.5, float(np.quantile(good, REFUSED))), 4)


def _most(good: NDArray[np.float32], share: float) -> float:
    return round(max(0.5, float(np.quantile(good, 1 - share))), 4)
