"""The multi-task loss, from logits: w_s (Dice + BCE) on the masks there are, w_c cross-entropy on the labels.

A missing mask or label adds exactly nothing to the loss and exactly zero to every gradient: its rows are left
out of the sums, not multiplied by a small number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.losses.dice import DiceLoss
from torch.nn import functional

from hilum.config import LossConfig
from hilum.errors import ConfigError
from hilum.types import UNKNOWN_LABEL, Batch, ModelOutput


class Losses(NamedTuple):
    """Scalars of one batch. ``classification`` and ``segmentation`` are means, before their weights."""

    total: torch.Tensor
    classification: torch.Tensor
    segmentation: torch.Tensor


class Extra(NamedTuple):
    """A sum of losses over images that lost their label (hilum.training.shortcuts)."""

    total: torch.Tensor  # scalar
    images: int


class MultiTaskLoss:
    """Callable: (ModelOutput, Batch) to Losses.

    Dice is MONAI's with squared denominators (Milletari et al. 2016), per image, then averaged.
    """

    def __init__(
        self,
        config: LossConfig,
        class_weights: torch.Tensor | None = None,
        prior_shift: torch.Tensor | None = None,
    ) -> None:
        self._config = config
        self._class_weights = class_weights  # (K,) float32 or None
        self._prior_shift = prior_shift  # (K,) float32 or None, see prior_shift
        self._dice = DiceLoss(sigmoid=True, squared_pred=True)

    def __call__(self, output: ModelOutput, batch: Batch, extra: Extra | None = None) -> Losses:
        """The loss of one training batch; a part for which the batch has nothing is 0.

        ``extra`` joins the classification loss, whose mean is then over the labels and the images of ``extra``.
        """
        logits = output.class_logits
        if self._prior_shift is not None:
            logits = logits + self._prior_shift.to(logits.device)
        classification = self.classification(logits, batch.label)
        if extra is not None and extra.images:
            labels = int((batch.label != UNKNOWN_LABEL).sum())
            classification = (classification * labels + extra.total) / (labels + extra.images)
        segmentation = self.segmentation(output.mask_logits, batch)
        total = self._config.classification_weight * classification + self._config.segmentation_weight * segmentation
        if not total.requires_grad:  # neither a label nor a mask: backward still needs a graph, of zeros
            total = total + 0 * output.class_logits.sum()
        return Losses(total, classification, segmentation)

    def weigh(self, classification: float, segmentation: float) -> float:
        """The total of two means over a split; NaN if one of them is, so give 0 for a part without data."""
        return self._config.classification_weight * classification + self._config.segmentation_weight * segmentation

    def classification(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of (N, K) logits, mean over the labels there are."""
        if bool((label == UNKNOWN_LABEL).all()):
            return logits.new_zeros(())  # the mean over no labels would be NaN
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        return functional.cross_entropy(
            logits.float(), label, weights, ignore_index=UNKNOWN_LABEL, label_smoothing=self._config.label_smoothing
        )

    def segmentation(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Dice + BCE of (N, 1, S, S) logits, mean over the M masks there are."""
        if batch.mask_rows.numel() == 0:
            return logits.new_zeros(())
        known = logits[batch.mask_rows].float()  # (M, 1, S, S)
        dice: torch.Tensor = self._dice(known, batch.mask)
        return dice + functional.binary_cross_entropy_with_logits(known, batch.mask)


def prior_shift(natural: Sequence[float], sampled: Sequence[float]) -> torch.Tensor:
    """What to add to the logits in training, (K,) float32: log of the sampler's class shares over the data's.

    The network then learns the logits of the data's own shares, whatever it was shown (Menon et al. 2021, ICLR).

    Args:
        natural, sampled: K shares, all above 0.
    """
    return (torch.tensor(sampled, dtype=torch.float64) / torch.tensor(natural, dtype=torch.float64)).log().float()


def class_weights(counts: Sequence[int], scheme: str, *, beta: float = 0.999) -> torch.Tensor | None:
    """Weights (K,) float32 of the cross-entropy, with mean 1 over the training images; None for ``none``.

    Args:
        counts: Training images per class, all above 0.
        scheme: ``none``; ``inverse``: 1 / n; ``effective``: (1 - beta) / (1 - beta**n), Cui et al. 2019.
        beta: Of the effective number; 0.999 sets the scale at about 1,000 images.

    Raises:
        ConfigError: A class has no training image.
    """
    if scheme == "none":
        return None
    n = torch.tensor(counts, dtype=torch.float64)
    if bool((n <= 0).any()):
        raise ConfigError(f"Expected at least one training image per class, got counts {list(counts)}.")
    raw = 1 / n if scheme == "inverse" else (1 - beta) / (1 - beta**n)
    return (raw * n.sum() / (raw * n).sum()).float()
