"""One step of training, as the loop, the dry run and the benchmark take it: augmentation, loss, gradients, update.

With several processes, each has a part of the batch; losses, gradients and counts are those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.config import Config
from hilum.models.losses import Losses, MultiTaskLoss
from hilum.training.augment import augment, draw_parameters
from hilum.training.dataset import ahead
from hilum.training.device import Setup
from hilum.training.processes import Processes
from hilum.training.shortcuts import Treatments
from hilum.training.validation import overlap_scores
from hilum.types import Batch, ModelOutput


class Done(NamedTuple):
    """Result of a forward and backward pass over a batch of N images.

    ``labels`` and ``masks`` are the numbers that the loss saw, ``correct`` that of the labels that were predicted, and
    ``dice`` is (N,) float64, NaN without a mask.
    """

    losses: Losses
    labels: int
    masks: int
    correct: int
    dice: NDArray[np.float64]


@dataclass(frozen=True)
class TrainingStep:
    """The parts of a step.

    Attributes:
        config: All settings.
        setup: The network, its optimizer and device.
        loss: The loss.
        treatments: Augmentation against shortcuts, or None.
        teacher: The network that finds the lungs of images without a mask for ``treatments``.
    """

    config: Config
    setup: Setup
    loss: MultiTaskLoss
    treatments: Treatments | None
    teacher: nn.Module

    def batches(self, loader: Iterable[Batch], epoch: int) -> Iterator[Batch]:
        """Yield the batches on the device, augmented; each is made while the one before it is in use."""
        return ahead(self._augmented(loader, epoch))

    def backward(self, batch: Batch, epoch: int, share: float = 1.0) -> Done:
        """Run the network on an augmented batch and add the gradients of the loss, times ``share``."""
        fabric, treatments, processes = self.setup.fabric, self.treatments, self.setup.processes
        if treatments is None:
            output = self.setup.wrapped(batch.image)
            losses = self.loss(output, batch)
        else:
            treated = treatments.treat(batch, self.teacher, epoch, fabric.autocast, processes)
            batch = treated.batch
            output = self.setup.wrapped(batch.image)
            losses = self.loss(output, batch, treatments.loss(output, treated))
        fabric.backward(losses.total * share)
        return _gathered(output, losses, batch, processes)

    def update(self) -> None:
        """Sum the gradients over the processes, clip them, step the optimizer and clear them."""
        setup = self.setup
        setup.processes.sum_gradients(setup.wrapped)
        # GradScaler (16-mixed) skips steps with overflowing gradients, so they are not an error
        setup.fabric.clip_gradients(
            setup.wrapped, setup.wrapped_optimizer, max_norm=self.config.training.clip_norm, error_if_nonfinite=False
        )
        setup.wrapped_optimizer.step()
        setup.wrapped_optimizer.zero_grad()

    def _augmented(self, loader: Iterable[Batch], epoch: int) -> Iterator[Batch]:
        seed = self.config.training.seed
        for batch in loader:
            moved = self.setup.fabric.to_device(batch)
            yield augment(moved, draw_parameters(self.config.augment, seed, epoch, moved.row))


def _gathered(output: ModelOutput, losses: Losses, batch: Batch, processes: Processes) -> Done:
    """Return the result on the whole batch, of which this process has a part."""
    known = batch.label >= 0
    correct = (output.class_logits.argmax(dim=1)[known] == batch.label[known]).sum()
    counts = [known.sum(), torch.tensor(len(batch.mask_rows)), correct]
    dice = overlap_scores(output.mask_logits, batch)[0]
    if processes.size > 1:
        device = output.class_logits.device
        own = torch.stack([*(value.detach() for value in losses), *(count.to(device) for count in counts)])
        sums = processes.total(own.double())
        losses, counts = Losses(*sums[:3]), list(sums[3:])
        dice = processes.gather(torch.from_numpy(dice).to(device)).cpu().numpy()
    labels, masks, hits = (int(count) for count in counts)
    return Done(losses, labels, masks, hits, dice)
