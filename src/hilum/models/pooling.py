"""Poolings of class score maps into logits, as sums of exact contributions of each location.

Every pooling takes scores (N, K, h, w), an attention map (N, 1, h, w) and weights ``gate`` (N, 1, h, w) in [0, 1], and
returns contributions (N, K, h, w) whose sum over h, w is the class logit minus its bias. Contributions are 0 where the
gate is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_TINY = 1e-6
"""Added to sums of the gate to avoid division by zero."""
_LARGEST = 40.0
"""Maximum exponent; avoids infinity in locations whose weight is then multiplied by 0."""
_SHARPNESS = 4.0
"""Parameter r of log-sum-exp, between mean (0) and maximum (infinity)."""

Pooling = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _shares(weights: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Normalize positive weights times the gate to sum 1 over h, w."""
    gated = weights * gate
    return gated / (gated.sum(dim=(2, 3), keepdim=True) + _TINY)


def _peak(values: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Return the maximum value inside the gate, (N, ., 1, 1), for numerical stability of exp."""
    return (values + (gate + _TINY).log()).amax(dim=(2, 3), keepdim=True).detach()


def average(scores: torch.Tensor, attention: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Pool by average: class activation mapping (Zhou et al. 2016, CVPR)."""
    return scores * _shares(torch.ones_like(gate), gate)


def attend(scores: torch.Tensor, attention: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Pool by attention (Ilse et al. 2018, ICML), with one attention map for all classes."""
    weights = (attention - _peak(attention, gate)).clamp(max=_LARGEST).exp()
    return scores * _shares(weights, gate)


def pcam(scores: torch.Tensor, attention: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Pool by probabilistic class activation maps (Ye et al. 2020, arXiv:2005.14480): weights are sigmoid scores."""
    return scores * _shares(torch.sigmoid(scores), gate)


def log_sum_exp(scores: torch.Tensor, attention: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Pool by log-sum-exp (Pinheiro & Collobert 2015, CVPR), a soft maximum.

    A location contributes the pooled value times its fraction of the sum of exponentials.
    """
    raised_scores = _SHARPNESS * scores
    peak = _peak(raised_scores, gate)
    raised = (raised_scores - peak).clamp(max=_LARGEST).exp()
    area = gate.sum(dim=(2, 3), keepdim=True)
    mean = (raised * gate).sum(dim=(2, 3), keepdim=True) / (area + _TINY)
    pooled = ((mean + _TINY).log() + peak) / _SHARPNESS
    return pooled * _shares(raised, gate)


POOLINGS: dict[str, Pooling] = {"average": average, "attention": attend, "pcam": pcam, "lse": log_sum_exp}
