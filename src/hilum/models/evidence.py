"""Network with a timm encoder, a UNet decoder for the lung mask, and class evidence pooled inside the lung.

Evidence is computed for each cell of one encoder level, pooled by one of hilum.models.pooling and weighted by the
predicted lung probability of the cell. A class logit is therefore a sum over locations in the lung plus a bias, and
the evidence map shows the terms of this sum.

The deepest level is not used by default: its cells see the whole image, and networks trained on it concentrated the
evidence in one fixed location. Scores are not negative, so evidence for a class is either present or absent.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from hilum.errors import ConfigError
from hilum.models.encoder_unet import build_parts, normalization
from hilum.models.pooling import POOLINGS
from hilum.types import ModelOutput

_NECK = 128
_LEVELS = {32: -1, 16: -2, 8: -3}
"""Side of a cell, pixels, to encoder level."""


class EvidenceNet(nn.Module):
    """Evidence network: (N, C, S, S) float32 in [0, 1], C = 1 or 3, S a multiple of 32, to ModelOutput.

    The evidence is (N, K, h, w) with h = w = S / ``stride``. The network itself repeats gray input to three channels
    and normalizes it. The lung weighting passes no gradient, so the classifier cannot change the mask.

    Args:
        encoder: Name of the encoder in timm.
        num_classes: Number of classes K.
        decoder_channels: Channels of the decoder stages, deepest first; see EncoderUNet.
        dropout: Dropout probability of features before the class scores.
        pooling: A key of POOLINGS.
        stride: Side of a cell in input pixels: 8, 16 or 32.
        lung_gate: Weight evidence by the predicted lung; otherwise all cells count.

    Raises:
        ConfigError: The encoder is unknown or has fewer than five levels, or the pooling or stride is unknown.
    """

    class_parameters: ClassVar[tuple[str, ...]] = ("scores.weight", "bias")

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        decoder_channels: tuple[int, ...] = (96, 48, 24, 16, 8),
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
        self._level, self._stride, self._gated = _LEVELS[stride], stride, lung_gate
        self._pool = POOLINGS[pooling]
        self.neck = nn.Sequential(
            nn.Conv2d(self.encoder.out_channels[self._level], _NECK, 1, bias=False),
            nn.BatchNorm2d(_NECK),
            nn.ReLU(inplace=True),
            nn.Conv2d(_NECK, _NECK, 1, bias=False),
            nn.BatchNorm2d(_NECK),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        self.attention = nn.Conv2d(_NECK, 1, 1)
        self.scores = nn.Conv2d(_NECK, num_classes, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        mean, std = normalization(encoder)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> ModelOutput:
        """Return mask logits, class logits, evidence and features."""
        levels = self.encoder((image - self.mean) / self.std)  # a gray (N, 1, S, S) broadcasts to (N, 3, S, S)
        mask_logits = self.segmentation_head(self.decoder(levels))
        features = self.neck(levels[self._level])  # (N, F, h, w)
        scores = functional.softplus(self.scores(features))  # (N, K, h, w), not negative
        evidence = self._pool(scores, self.attention(features), self._gate(mask_logits))
        pooled = levels[self._level].mean(dim=(2, 3))
        return ModelOutput(mask_logits, evidence.sum(dim=(2, 3)) + self.bias, evidence, pooled)

    def _gate(self, mask_logits: torch.Tensor) -> torch.Tensor:
        """Return the maximum lung probability of each cell, (N, 1, h, w) in [0, 1], or ones without weighting."""
        if not self._gated:
            return torch.ones_like(functional.max_pool2d(mask_logits, self._stride))
        return functional.max_pool2d(torch.sigmoid(mask_logits.detach()), self._stride)
