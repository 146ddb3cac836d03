"""One encoder, two readings: the lung, and per class the evidence inside it that adds up to the class's logit.

The mask comes from a UNet decoder. The evidence comes from one level of the encoder, cell by cell, and is pooled by one
of hilum.models.pooling behind a gate: a cell counts as far as the predicted lung reaches into it. So the class logit is
a sum over places in the lung plus a bias, and the map is the computation, not an image of it.

The level is not the deepest: there every cell sees the whole image, and the network learned to carry the answer to one
place that it always read, whatever it saw elsewhere. Scores are not negative, so that a class has evidence somewhere or
nowhere, and the map of an image that the network gets wrong still says where it looked.
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
"""Side of a cell in pixels to the level of the encoder."""


class EvidenceNet(nn.Module):
    """(N, C, S, S) float32 in [0, 1], C = 1 or 3, S a multiple of 32, to ModelOutput with evidence (N, K, h, w).

    h = w = S / ``stride``. Gray input is repeated to three channels and normalized as the encoder's weights expect,
    inside the network. The gate passes no gradient: the classifier cannot move the mask to where it wants to look.

    Args:
        encoder: Timm's name.
        num_classes: K.
        decoder_channels: Of the mask's decoder, deepest first.
        dropout: Of whole features before the class scores.
        pooling: A key of POOLINGS.
        stride: Side of a cell in pixels of the input: 8, 16 or 32.
        lung_gate: Whether evidence is gated by the predicted lung; else every cell counts.

    Raises:
        ConfigError: Timm knows no such encoder, or it cannot give five levels; an unknown pooling or stride.
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
        """Mask logits, class logits and their evidence."""
        levels = self.encoder((image - self.mean) / self.std)  # a gray (N, 1, S, S) broadcasts to (N, 3, S, S)
        mask_logits = self.segmentation_head(self.decoder(levels))
        features = self.neck(levels[self._level])  # (N, F, h, w)
        scores = functional.softplus(self.scores(features))  # (N, K, h, w), not negative
        evidence = self._pool(scores, self.attention(features), self._gate(mask_logits))
        pooled = levels[self._level].mean(dim=(2, 3))
        return ModelOutput(mask_logits, evidence.sum(dim=(2, 3)) + self.bias, evidence, pooled)

    def _gate(self, mask_logits: torch.Tensor) -> torch.Tensor:
        """(N, 1, h, w) in [0, 1]: the largest lung probability in each cell, which dilates by less than a cell."""
        if not self._gated:
            return torch.ones_like(functional.max_pool2d(mask_logits, self._stride))
        return functional.max_pool2d(torch.sigmoid(mask_logits.detach()), self._stride)
