"""The multi-task loss from logits: w_s (Dice + BCE) on masks, plus w_c cross-entropy on labels.

Examples without a mask or label are left out of the respective sum, so they contribute neither loss nor gradient.
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
    """Losses of one batch, scalars. ``classification`` and ``segmentation`` are means before weighting."""

    total: torch.Tensor
    classification: torch.Tensor
    segmentation: torch.Tensor


class Extra(NamedTuple):
    """Sum of the losses of images whose label was removed (hilum.training.shortcuts)."""

    total: torch.Tensor  # scalar
    images: int


class MultiTaskLoss:
    """Multi-task loss, called with (ModelOutput, Batch) to return Losses.

    The Dice loss is MONAI's with squared denominators (Milletari et al. 2016), averaged over images.

    Args:
        config: Weights of the parts and label smoothing.
        class_weights: (K,) float32 weights of the cross-entropy, or None; see class_weights.
        prior_shift: (K,) float32 added to the logits, or None; see prior_shift.
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
        """Return the loss of one training batch; a part without labels or masks is 0.

        Args:
            output: Output of the network.
            batch: The batch.
            extra: Further losses to include in the mean of the classification loss.
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
        if not total.requires_grad:  # without labels and masks, backward still needs a graph
            total = total + 0 * output.class_logits.sum()
        return Losses(total, classification, segmentation)

    def weigh(self, classification: float, segmentation: float) -> float:
        """Return the total of the two mean losses of a split; pass 0 for a part without data, since NaN propagates."""
        return self._config.classification_weight * classification + self._config.segmentation_weight * segmentation

    def classification(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of logits (N, K), averaged over the labeled examples."""
        if bool((label == UNKNOWN_LABEL).all()):
            return logits.new_zeros(())  # the mean over no labels would be NaN
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        return functional.cross_entropy(
            logits.float(), label, weights, ignore_index=UNKNOWN_LABEL, label_smoothing=self._config.label_smoothing
        )

    def segmentation(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return Dice + BCE of logits (N, 1, S, S), averaged over the M examples with a mask."""
        if batch.mask_rows.numel() == 0:
            return logits.new_zeros(())
        known = logits[batch.mask_rows].float()  # (M, 1, S, S)
        dice: torch.Tensor = self._dice(known, batch.mask)
        return dice + functional.binary_cross_entropy_with_logits(known, batch.mask)


def prior_shift(natural: Sequence[float], sampled: Sequence[float]) -> torch.Tensor:
    """Return the shift of the logits in training, (K,) float32: the log ratio of sampled to natural class fractions.

    With it, the network learns logits for the natural class fractions (logit adjustment, Menon et al. 2021, ICLR).

    Args:
        natural: K class fractions of the dataset, all above 0.
        sampled: K class fractions of the sampler, all above 0.
    """
    return (torch.tensor(sampled, dtype=torch.float64) / torch.tensor(natural, dtype=torch.float64)).log().float()


def class_weights(counts: Sequence[int], scheme: str, *, beta: float = 0.999) -> torch.Tensor | None:
    """Return class weights (K,) float32 of the cross-entropy, with mean 1 over the training images; None for ``none``.

    Args:
        counts: Number of training images per class, all above 0.
        scheme: ``none``; ``inverse``: 1 / n; ``effective``: (1 - beta) / (1 - beta**n), Cui et al. 2019.
        beta: Parameter of the effective number; 0.999 corresponds to about 1,000 images.

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
