"""Run a network over a split, and measure losses and mask overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.bundle.prediction_sets import softmax
from hilum.metrics.scores import dice_and_iou
from hilum.models.losses import MultiTaskLoss
from hilum.training.processes import ALONE, Processes
from hilum.types import Batch, ModelOutput


@dataclass(frozen=True)
class SplitOutput:
    """Outputs for the N images of a split, in order.

    Attributes:
        logits: (N, K) float32.
        labels: (N,) int64, -1 if unknown.
        dice: (N,) float64 at the network's resolution, NaN without a mask.
        iou: (N,) float64 at the network's resolution, NaN without a mask.
        loss: Weighted sum of the two losses, without a part that has no data.
        classification_loss: Mean over the labels, NaN if there are none.
        segmentation_loss: Mean over the masks, NaN if there are none.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    loss: float
    classification_loss: float
    segmentation_loss: float

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, (N, K) float64."""
        return softmax(self.logits)


class _BatchOutput(NamedTuple):
    logits: torch.Tensor
    labels: torch.Tensor
    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    segmentation: float  # sum over the masks
    masks: int


@torch.inference_mode()
def run_split(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: MultiTaskLoss,
    device: torch.device,
    processes: Processes = ALONE,
) -> SplitOutput:
    """Run a network in evaluation mode over all batches of a split, and return its outputs and losses.

    Losses are computed over the whole split, not averaged over batches: the classification loss over all logits, since
    class weights are normalized by their sum, the segmentation loss over all masks.

    Args:
        model: The network, on ``device``; switched to evaluation mode.
        batches: The batches of the split; with several processes, this one's part of them.
        loss: The loss.
        device: Device of the network.
        processes: The processes that run the split; the result is that of the whole split on each.
    """
    model.eval()
    own = [_run_batch(model, batch, loss, device) for batch in batches]
    outputs = chain.from_iterable(processes.gather_objects(own))
    logits, labels, dice, iou, segmentations, masks = zip(*outputs, strict=True)
    all_logits, all_labels = torch.cat(logits), torch.cat(labels)
    known = bool((all_labels >= 0).any())
    classification = float(loss.classification(all_logits, all_labels)) if known else float("nan")
    segmentation = sum(segmentations) / sum(masks) if sum(masks) else float("nan")
    return SplitOutput(
        logits=all_logits.numpy(),
        labels=all_labels.numpy(),
        dice=np.concatenate(dice),
        iou=np.concatenate(iou),
        loss=loss.weigh(classification if known else 0.0, segmentation if sum(masks) else 0.0),
        classification_loss=classification,
        segmentation_loss=segmentation,
    )


def _run_batch(model: nn.Module, batch: Batch, loss: MultiTaskLoss, device: torch.device) -> _BatchOutput:
    output: ModelOutput = model(batch.image.to(device))
    dice, iou = overlap_scores(output.mask_logits, batch)
    m, segmentation = len(batch.mask_rows), 0.0
    if m:
        on_device = batch._replace(mask=batch.mask.to(device), mask_rows=batch.mask_rows.to(device))
        segmentation = float(loss.segmentation(output.mask_logits, on_device)) * m
    return _BatchOutput(output.class_logits.float().cpu(), batch.label, dice, iou, segmentation, m)


def overlap_scores(mask_logits: torch.Tensor, batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Dice and IoU (N,) float64 of a batch, NaN for images without a mask."""
    rows = batch.mask_rows.cpu().numpy()
    dice, iou = np.full((2, len(mask_logits)), np.nan)
    if len(rows):
        # logit > 0 corresponds to probability > 0.5
        predicted = (mask_logits.detach()[batch.mask_rows.to(mask_logits.device), 0] > 0).cpu().numpy()
        target = batch.mask[:, 0].cpu().numpy() > 0.5
        dice[rows], iou[rows] = dice_and_iou(predicted, target)
    return dice, iou
