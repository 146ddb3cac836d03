"""Training loop of the gate's network. Views are drawn during training, so it has steps but no epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset

from hilum.errors import CheckpointError, DataError
from hilum.gate.verdict import FRONTAL
from hilum.gate_training.network import GateNet, GateOutput
from hilum.gate_training.samples import Samples
from hilum.progress import Progress
from hilum.training.checkpoint import load_state, save_state

STATE_FILE = "gate_state.ckpt"


@dataclass(frozen=True)
class GateTraining:
    """Settings of the gate's training.

    Attributes:
        steps: Number of optimizer steps, one batch each.
        batch_size: Views per batch.
        size: Side of the network's input in pixels, a multiple of 32.
        learning_rate: Peak learning rate of a one-cycle schedule (Smith & Topin 2019).
        weight_decay: Weight decay of AdamW.
        ema_decay: Decay of the exponential moving average of the weights, which is saved.
        seed: Random seed of weights and views.
        workers: Number of data-loading processes.
        checkpoint_every: Steps between saved training states.
    """

    steps: int = 6000
    batch_size: int = 64
    size: int = 96
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    seed: int = 0
    workers: int = 1
    checkpoint_every: int = 250


class _Views(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Dataset of batches, each a function of (seed, step)."""

    def __init__(self, samples: Samples, settings: GateTraining) -> None:
        self._samples, self._settings = samples, settings

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, properties = self._samples.batch(self._settings.seed, step, self._settings.batch_size)
        return torch.from_numpy(images)[:, None], torch.from_numpy(properties)


def train_gate_net(
    samples: Samples, settings: GateTraining, folder: Path, identity: str, progress: Progress | None = None
) -> GateNet:
    """Train the gate's network and return it with averaged weights, in evaluation mode.

    Args:
        samples: Samples that views are drawn from.
        settings: Training settings.
        folder: Folder of the training state, from which an interrupted training is resumed.
        identity: Text that must be the same when a training is resumed.
        progress: Called with (steps done, total steps).

    Raises:
        CheckpointError: The state in ``folder`` belongs to another training.
        DataError: The loss is not finite.
    """
    torch.manual_seed(settings.seed)
    net = GateNet(settings.size).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=max(0.1, 2 / settings.steps)
    )
    averaged = ModelEmaV3(net, decay=settings.ema_decay, use_warmup=True)
    parts = {"net": net, "averaged": averaged.module, "optimizer": optimizer, "schedule": schedule}
    done = _resume(folder / STATE_FILE, parts, identity)
    net.train()
    for step, (images, properties) in zip(range(done, settings.steps), _batches(samples, settings, done), strict=True):
        torch.manual_seed(settings.seed + step)  # dropout
        loss = gate_loss(net(_scaled(images)), properties)
        if not torch.isfinite(loss):
            raise DataError(f"The loss is {float(loss)} at step {step}.", hint="Lower --learning-rate.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update(net, step=step + 1)
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            states = {name: part.state_dict() for name, part in parts.items()}
            save_state(folder / STATE_FILE, {**states, "identity": identity, "done": step + 1})
        if progress:
            progress(step + 1, settings.steps)
    trained = averaged.module.eval()
    assert isinstance(trained, GateNet)
    return trained


def gate_loss(output: GateOutput, properties: torch.Tensor) -> torch.Tensor:
    """Return the sum of three mean losses: of the kind, of the rotation of frontal radiographs, and of known flags.

    Args:
        output: Logits of N images.
        properties: (N, 2 + flags) int64, from hilum.gate_training.views.View.properties; values below 0 are unknown.
    """
    kind, turn, flags = properties[:, 0], properties[:, 1], properties[:, 2:]
    loss = functional.cross_entropy(output.kind, kind)
    turned = (kind == FRONTAL) & (turn >= 0)
    if turned.any():
        loss = loss + functional.cross_entropy(output.turn[turned], turn[turned])
    known = flags >= 0
    if known.any():
        loss = loss + functional.binary_cross_entropy_with_logits(output.flags[known], flags[known].float())
    return loss


def settings_text(settings: GateTraining) -> str:
    """Return the settings that determine the weights as text, for the identity of a training."""
    indifferent = ("workers", "checkpoint_every")
    return repr({name: value for name, value in asdict(settings).items() if name not in indifferent})


def _scaled(images: torch.Tensor) -> torch.Tensor:
    return (images.float() / 255).contiguous(memory_format=torch.channels_last)


def _batches(samples: Samples, settings: GateTraining, done: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    loader = DataLoader(
        _Views(samples, settings),
        batch_size=None,
        sampler=range(done, settings.steps),
        num_workers=settings.workers,
        prefetch_factor=8 if settings.workers else None,
        worker_init_fn=_one_thread,
    )
    yield from loader


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)  # OpenCV's threads would compete with those of the network


def _resume(path: Path, parts: Mapping[str, object], identity: str) -> int:
    """Load a state into ``parts``, if there is one, and return the number of completed steps."""
    if not path.exists():
        return 0
    state = load_state(path)
    if state["identity"] != identity:
        raise CheckpointError(
            f"The state '{path}' belongs to other settings or samples.",
            hint="Choose another --output, or remove the file.",
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])  # type: ignore[attr-defined]
    return int(state["done"])
