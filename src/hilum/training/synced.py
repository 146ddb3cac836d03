"""Layers that compute as if the parts of a batch in all processes were one: batch normalization and dropout.

torch.nn.SyncBatchNorm computes on GPUs alone, so that the normalization here is written with operations that every
device has.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from hilum.training.processes import Processes, here

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d)


def synchronize(model: nn.Module, processes: Processes) -> None:
    """Let batch normalization and dropout see the whole batch, in place; with one process, nothing is changed."""
    if processes.size == 1:
        return
    for module in model.modules():
        if isinstance(module, _KINDS) and not isinstance(module, (_SyncedNorm, _SyncedDropout)):
            kind: Any = type(module)
            module.__class__ = _synced_class(kind)


@cache
def _synced_class(kind: Any) -> Any:
    mixin = _SyncedNorm if issubclass(kind, nn.modules.batchnorm._BatchNorm) else _SyncedDropout
    return type(f"Synced{kind.__name__}", (mixin, kind), {})


class _SyncedNorm:
    """Mixin of batch normalization with the mean and variance of all processes' images (Ioffe & Szegedy 2015)."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        dims = [0, *range(2, x.ndim)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance, count = _moments(wide.detach(), dims)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (count / (count - 1)), share)
        shape = [1, -1, *[1] * (x.ndim - 2)]
        y = _Normalize.apply(wide, mean.view(shape), (variance + self.eps).rsqrt().view(shape), dims, count)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        y = y.to(x.dtype)
        done: torch.Tensor = self.act(self.drop(y)) if isinstance(self, BatchNormAct2d) else y
        return done


def _moments(x: torch.Tensor, dims: list[int]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return mean (C,), variance (C,) and the number of values per channel, over all processes (Chan et al. 1983).

    All have as many images.
    """
    variance, mean = torch.var_mean(x, dims, correction=0)
    parts = here().gather(torch.stack([mean, variance]).double()[None])  # (P, 2, C)
    together = parts[:, 0].mean(dim=0)
    spread = (parts[:, 1] + (parts[:, 0] - together) ** 2).mean(dim=0)
    return together.to(x.dtype), spread.to(x.dtype), x.numel() // x.shape[1] * len(parts)


class _Normalize(torch.autograd.Function):
    """(x - mean) * scale, where mean and scale are functions of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, dims: list[int], count: int
    ) -> torch.Tensor:
        y = (x - mean) * scale
        ctx.save_for_backward(y, scale)
        ctx.dims, ctx.count = dims, count
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        y, scale = ctx.saved_tensors
        sums = torch.stack([gradient.sum(ctx.dims), (gradient * y).sum(ctx.dims)])
        first, second = (here().total(sums) / ctx.count).view(2, *scale.shape)
        return (gradient - first - y * second) * scale, None, None, None, None


class _SyncedDropout:
    """Mixin of dropout that draws for the images of all processes, so that the draws do not depend on their number."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        processes = here()
        own = slice(processes.rank * len(x), (processes.rank + 1) * len(x))
        rest = [1] * (x.ndim - 2) if isinstance(self, nn.Dropout2d) else x.shape[2:]
        ones = x.new_ones((len(x) * processes.size, x.shape[1], *rest))
        dropped: torch.Tensor = super().forward(ones)  # type: ignore[misc]
        return x * dropped[own]
