"""Run a network over a split, and measure losses and mask overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.bundle.prediction_sets import softmax
from hilum.metrics.scores import dice_and_iou
from hilum.models.losses import MultiTaskLoss
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


@torch.inference_mode()
def run_split(model: nn.Module, batches: Iterable[Batch], loss: MultiTaskLoss, device: torch.device) -> SplitOutput:
    """Run a network in evaluation mode over all batches of a split, and return its outputs and losses.

    Losses are computed over the whole split, not averaged over batches: the classification loss over all logits, since
    class weights are normalized by their sum, the segmentation loss over all masks.

    Args:
        model: The network, on ``device``; switched to evaluation mode.
        batches: The batches of the split.
        loss: The loss.
        device: Device of the network.
    """
    model.eval()
    logits, labels, dice, iou = [], [], [], []
    segmentation_sum, masks = 0.0, 0
    for batch in batches:
        output: ModelOutput = model(batch.image.to(device))
        logits.append(output.class_logits.float().cpu())
        labels.append(batch.label)
        scores = overlap_scores(output.mask_logits, batch)
        dice.append(scores[0])
        iou.append(scores[1])
        m = len(batch.mask_rows)
        if m:
            on_device = batch._replace(mask=batch.mask.to(device), mask_rows=batch.mask_rows.to(device))
            segmentation_sum += float(loss.segmentation(output.mask_logits, on_device)) * m
            masks += m
    all_logits, all_labels = torch.cat(logits), torch.cat(labels)
    known = bool((all_labels >= 0).any())
    classification = float(loss.classification(all_logits, all_labels)) if known else float("nan")
    segmentation = segmentation_sum / masks if masks else float("nan")
    return SplitOutput(
        logits=all_logits.numpy(),
        labels=all_labels.numpy(),
        dice=np.concatenate(dice),
        iou=np.concatenate(iou),
        loss=loss.weigh(classification if known else 0.0, segmentation if masks else 0.0),
        classification_loss=classification,
        segmentation_loss=segmentation,
    )


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
