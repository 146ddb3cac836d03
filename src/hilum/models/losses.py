"""The multi-task loss from logits: w_s (Dice + BCE) on masks, plus w_c cross-entropy on labels.

Examples without a mask or label are left out of the respective sum, so they contribute neither loss nor gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """What images that were changed against shortcuts add to the loss (hilum.training.shortcuts)."""

    total: torch.Tensor  # scalar, sum of the losses of the images whose label was removed
    images: int  # their number
    shift: torch.Tensor | None = None  # (N, K) float32, added to the logits of the other images as prior_shift is
    weight: torch.Tensor | None = None  # (N,) float32, weights of the other images


class MultiTaskLoss:
    """Multi-task loss, called with (ModelOutput, Batch) to return Losses.

    The Dice loss is MONAI's with squared denominators (Milletari et al. 2016), averaged over images.

    Args:
        config: Weights of the parts and label smoothing.
        class_weights: (K,) float32 weights of the cross-entropy, or None; see class_weights.
        prior_shift: (K,) float32 added to the logits in training, or None; see prior_shift.
        totals: Where several processes have a part of each batch, their sum of counts; the loss is then the share that
            this part has in the loss of the whole batch.
    """

    def __init__(
        self,
        config: LossConfig,
        class_weights: torch.Tensor | None = None,
        prior_shift: torch.Tensor | None = None,
        totals: Callable[[Sequence[int]], Sequence[int]] | None = None,
    ) -> None:
        self._config = config
        self._totals = totals
        self._class_weights = class_weights  # (K,) float32 or None
        self._prior_shift = prior_shift  # (K,) float32 or None, see prior_shift
        self._dice = DiceLoss(sigmoid=True, squared_pred=True)

    def __call__(self, output: ModelOutput, batch: Batch, extra: Extra | None = None) -> Losses:
        """Return the loss of one training batch; a part without labels or masks is 0.

        Args:
            output: Output of the network.
            batch: The batch.
            extra: Further losses to include in the mean of the classification loss. Its shift and weights count where
                the class frequencies are kept.
        """
        logits = output.class_logits
        if self._prior_shift is not None:
            logits = logits + self._prior_shift.to(logits.device)
        kept = extra if self._config.keep_prior else None
        if kept is not None and kept.shift is not None:
            logits = logits + kept.shift
        of_images = None if kept is None else kept.weight
        own = [int((batch.label != UNKNOWN_LABEL).sum()), 0 if extra is None else extra.images, len(batch.mask_rows)]
        labels, images, masks = own if self._totals is None else self._totals(own)
        classification = self._cross_entropy(logits, batch.label, self._class_weights, of_images, labels)
        if extra is not None and images:
            classification = (classification * labels + extra.total) / (labels + images)
        segmentation = self.segmentation(output.mask_logits, batch)
        if own[2] != masks:
            segmentation = segmentation * (own[2] / masks)
        total = self._config.classification_weight * classification + self._config.segmentation_weight * segmentation
        if self._totals is not None and masks:  # all processes have the same graph, or they would wait for each other
            total = total + 0 * output.mask_logits.sum()
        if self._totals is not None or not total.requires_grad:  # without labels and masks, backward needs a graph
            total = total + 0 * output.class_logits.sum()
        return Losses(total, classification, segmentation)

    def weigh(self, classification: float, segmentation: float) -> float:
        """Return the total of the two mean losses of a split; pass 0 for a part without data, since NaN propagates."""
        return self._config.classification_weight * classification + self._config.segmentation_weight * segmentation

    def classification(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the loss of the logits (N, K) of a network that is validated, averaged over the labeled examples.

        It has no class weights where the network keeps the class frequencies (``keep_prior``): the logits without the
        shift are then those that minimize the unweighted cross-entropy.
        """
        return self._cross_entropy(logits, label, None if self._config.keep_prior else self._class_weights)

    def _cross_entropy(
        self,
        logits: torch.Tensor,
        label: torch.Tensor,
        weights: torch.Tensor | None,
        of_images: torch.Tensor | None = None,
        labels: int | None = None,
    ) -> torch.Tensor:
        """Return the weighted sum over the labeled examples divided by their number, not by the sum of their weights.

        The sum of weights differs from batch to batch, so that dividing by it would weight rare classes less.
        """
        labels = int((label != UNKNOWN_LABEL).sum()) if labels is None else labels
        if not labels:
            return logits.new_zeros(())
        losses = functional.cross_entropy(
            logits.float(),
            label,
            None if weights is None else weights.to(logits.device),
            ignore_index=UNKNOWN_LABEL,
            label_smoothing=self._config.label_smoothing,
            reduction="none",
        )
        return (losses if of_images is None else losses * of_images).sum() / labels

    def segmentation(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return Dice + BCE of logits (N, 1, S, S), averaged over the M examples with a mask."""
        if batch.mask_rows.numel() == 0:
            return logits.new_zeros(())
        known = logits[batch.mask_rows].float()  # (M, 1, S, S)
        dice: torch.Tensor = self._dice(known, batch.mask)
        return dice + functional.binary_cross_entropy_with_logits(known, batch.mask)


def prior_shift(
    natural: Sequence[float], sampled: Sequence[float], weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the shift of the logits in training, (K,) float32: log(sampled fraction x weight / natural fraction).

    With it, the network learns logits for the natural class fractions (Menon et al. 2021, ICLR, theorem 1: a loss with
    class weights is consistent where the shift of the logits contains their logarithm).

    Args:
        natural: K class fractions of the dataset.
        sampled: K class fractions of the sampler.
        weights: (K,) class weights of the loss; None for equal weights.

    Raises:
        ConfigError: A fraction is 0.
    """
    before, after = (torch.tensor(shares, dtype=torch.float64) for shares in (natural, sampled))
    _require_images(before)
    _require_images(after)
    ratio = after / before if weights is None else after * weights.double() / before
    return ratio.log().float()


def class_weights(
    counts: Sequence[int], scheme: str, sampled: Sequence[float] | None = None, *, beta: float = 0.999
) -> torch.Tensor | None:
    """Return class weights (K,) float32 of the cross-entropy, with mean 1 over the sampled images; None for ``none``.

    Args:
        counts: Number of training images per class, all above 0.
        scheme: ``none``; ``inverse``: 1 / n; ``effective``: (1 - beta) / (1 - beta**n), Cui et al. 2019.
        sampled: K class fractions of the sampler; by default those of ``counts``.
        beta: Parameter of the effective number; 0.999 corresponds to about 1,000 images.

    Raises:
        ConfigError: A class has no training image.
    """
    if scheme == "none":
        return None
    n = torch.tensor(counts, dtype=torch.float64)
    _require_images(n)
    shares = n / n.sum() if sampled is None else torch.tensor(sampled, dtype=torch.float64)
    raw = 1 / n if scheme == "inverse" else (1 - beta) / (1 - beta**n)
    return (raw * shares.sum() / (raw * shares).sum()).float()


def _require_images(counts: torch.Tensor) -> None:
    if bool((counts <= 0).any()):
        raise ConfigError(
            f"Expected at least one training image per class, got {counts.tolist()}.",
            hint="Add images of the class, or leave the class out with --class.",
        )
