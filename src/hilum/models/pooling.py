"""From per-class score maps to class logits, so that what each place adds can be written down exactly.

Every pooling takes scores (N, K, h, w), an attention map (N, 1, h, w) and a gate (N, 1, h, w) in [0, 1], and returns
contributions (N, K, h, w) that sum over h, w to the class's logit less its bias. Where the gate is 0 the contribution
is 0, so what lies outside the gate cannot count; where it is 0 everywhere, all contributions are 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_TINY = 1e-6
"""Of the gate's own units: keeps the division whole where nothing is gated in."""
_LARGEST = 40.0
"""Of an exponent, in places that the gate keeps out: their weight is multiplied by 0, which infinity would spoil."""
_SHARPNESS = 4.0
"""r of log-sum-exp: between the mean (0) and the maximum (infinity)."""

Pooling = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _shares(weights: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Positive weights times the gate, as shares of their sum over h, w."""
    gated = weights * gate
    return gated / (gated.sum(dim=(2, 3), keepdim=True) + _TINY)


def _peak(values: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The largest value that the gate lets through, (N, ., 1, 1), to keep exp in range; results do not depend on it."""
    return (values + (gate + _TINY).log()).amax(dim=(2, 3), keepdim=True).detach()


def average(scores: torch.Tensor, attention: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Class activation mapping (Zhou et al. 2016, CVPR): every gated place counts alike."""
    return scores * _shares(torch.ones_like(gate), gate)


def attend(scores: torch.Tensor, attention: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Attention (Ilse et al. 2018, ICML): one map of where to look, shared by the classes."""
    weights = (attention - _peak(attention, gate)).clamp(max=_LARGEST).exp()
    return scores * _shares(weights, gate)


def pcam(scores: torch.Tensor, attention: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Probabilistic class activation map (Ye et al. 2020, arXiv:2005.14480): weighted by the place's own sigmoid."""
    return scores * _shares(torch.sigmoid(scores), gate)


def log_sum_exp(scores: torch.Tensor, attention: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Log-sum-exp (Pinheiro & Collobert 2015, CVPR), a soft maximum over the gated places.

    A place contributes the pooled value times its share of the sum of exponentials, which adds up exactly.
    """
    raised_scores = _SHARPNESS * scores
    peak = _peak(raised_scores, gate)
    raised = (raised_scores - peak).clamp(max=_LARGEST).exp()
    area = gate.sum(dim=(2, 3), keepdim=True)
    mean = (raised * gate).sum(dim=(2, 3), keepdim=True) / (area + _TINY)
    pooled = ((mean + _TINY).log() + peak) / _SHARPNESS
    return pooled * _shares(raised, gate)


POOLINGS: dict[str, Pooling] = {"average": average, "attention": attend, "pcam": pcam, "lse": log_sum_exp}
