"""One encoder, two readings: the lung, and per class the evidence inside it that adds up to the class's logit.

The mask comes from a UNet decoder. The evidence comes from the encoder's last levels, brought to one grid of cells, and
is pooled by one of hilum.models.pooling behind a gate: a cell counts as far as the predicted lung reaches into it. So
the class logit is a sum over places in the lung plus a bias, and the map is the computation, not a picture of it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from hilum.errors import ConfigError
from hilum.models.encoder_unet import build_parts, normalisation
from hilum.models.pooling import POOLINGS
from hilum.types import ModelOutput

_NECK = 128
_LEVELS = {32: (-1,), 16: (-2, -1), 8: (-3, -2, -1)}
"""Cell size in pixels to the encoder's levels that meet on that grid, the finest first."""


class EvidenceNet(nn.Module):
    """(N, C, S, S) float32 in [0, 1], C = 1 or 3, S a multiple of 32, to ModelOutput with evidence (N, K, h, w).

    h = w = S / ``stride``. Grey input is repeated to three channels and normalised as the encoder's weights expect,
    inside the network. The gate passes no gradient: the classifier cannot move the mask to where it wants to look.

    Args:
        encoder: timm's name.
        num_classes: K.
        decoder_channels: of the mask's decoder, deepest first.
        dropout: of whole features before the class scores.
        pooling: a key of POOLINGS.
        stride: side of a cell in pixels of the input: 8, 16 or 32.
        lung_gate: whether evidence is gated by the predicted lung; else every cell counts.

    Raises:
        ConfigError: timm knows no such encoder, or it cannot give five levels; an unknown pooling or stride.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        decoder_channels: tuple[int, ...] = (128, 64, 32, 16, 8),
        dropout: float = 0.2,
        *,
        pooling: str = "attention",
        stride: int = 16,
        lung_gate: bool = True,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS or stride not in _LEVELS:
            raise ConfigError(
                f"Expected a pooling of {', '.join(POOLINGS)} and a stride of {', '.join(map(str, _LEVELS))}, "
                f"got {pooling} and {stride}."
            )
        self.encoder, self.decoder, self.segmentation_head = build_parts(encoder, decoder_channels)
        self._levels, self._stride, self._gated = _LEVELS[stride], stride, lung_gate
        self._pool = POOLINGS[pooling]
        widths = [self.encoder.out_channels[level] for level in self._levels]
        self.laterals = nn.ModuleList(nn.Conv2d(width, _NECK, 1, bias=False) for width in widths)
        self.neck = nn.Sequential(
            nn.BatchNorm2d(_NECK),
            nn.ReLU(inplace=True),
            nn.Conv2d(_NECK, _NECK, 3, padding=1, groups=_NECK, bias=False),
            nn.BatchNorm2d(_NECK),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        self.attention = nn.Conv2d(_NECK, 1, 1)
        self.scores = nn.Conv2d(_NECK, num_classes, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        mean, std = normalisation(encoder)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> ModelOutput:
        """Mask logits, class logits and their evidence."""
        levels = self.encoder((image - self.mean) / self.std)  # a grey (N, 1, S, S) broadcasts to (N, 3, S, S)
        mask_logits = self.segmentation_head(self.decoder(levels))
        features = self._cells(levels)  # (N, F, h, w)
        scores = self.scores(features)
        scores = scores - scores.mean(dim=1, keepdim=True)  # softmax sees differences alone: each against the average
        evidence = self._pool(scores, self.attention(features), self._gate(mask_logits))
        return ModelOutput(mask_logits, evidence.sum(dim=(2, 3)) + self.bias, evidence)

    def _cells(self, levels: list[torch.Tensor]) -> torch.Tensor:
        met = None
        for level, lateral in zip(self._levels, self.laterals, strict=True):
            own = lateral(levels[level])
            if met is not None:
                own = functional.interpolate(own, size=met.shape[-2:], mode="bilinear", align_corners=False)
            met = own if met is None else met + own
        cells: torch.Tensor = self.neck(met)
        return cells

    def _gate(self, mask_logits: torch.Tensor) -> torch.Tensor:
        """(N, 1, h, w) in [0, 1]: the largest lung probability in each cell, which dilates by less than a cell."""
        if not self._gated:
            return torch.ones_like(functional.max_pool2d(mask_logits, self._stride))
        return functional.max_pool2d(torch.sigmoid(mask_logits.detach()), self._stride)
