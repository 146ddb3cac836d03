"""The gate's network: the first half of EfficientNet-Lite0, with a head for the kind of image and one for its geometry.

The kind is classified from pooled features, the geometry from the whole feature map, since it depends on positions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from hilum.gate.verdict import FLAGS, KINDS, TURNS
from hilum.models.pretrained import load_encoder_weights

_ENCODER = "tf_efficientnet_lite0"
_BLOCKS = 4
_STRIDE = 16
_FEATURES, _PLACED, _HIDDEN = 96, 24, 64


class GateOutput(NamedTuple):
    """Logits of N images."""

    kind: torch.Tensor  # (N, 6), of hilum.gate.verdict.KINDS
    turn: torch.Tensor  # (N, 4), of TURNS
    flags: torch.Tensor  # (N, 4), of FLAGS, each a logit of its own


class GateNet(nn.Module):
    """The gate's network: gray levels (N, 1, S, S) float32 in [0, 1] to GateOutput.

    Args:
        size: Side S of the input in pixels, a multiple of 32.
        dropout: Dropout probability before the last layer of each head.
        pretrained: Initialize with packaged ImageNet weights, summed over the color channels in the first layer.
    """

    def __init__(self, size: int = 96, dropout: float = 0.2, *, pretrained: bool = True) -> None:
        super().__init__()
        encoder: Any = timm.create_model(_ENCODER, features_only=True)
        if pretrained:
            load_encoder_weights(encoder, _ENCODER, None)
        self.stem = nn.Sequential(_gray(encoder.conv_stem), encoder.bn1)
        self.blocks = encoder.blocks[:_BLOCKS]
        width = self.blocks[-1][-1].conv_pwl.out_channels
        self.features = nn.Sequential(nn.Conv2d(width, _FEATURES, 1, bias=False), nn.BatchNorm2d(_FEATURES), nn.ReLU6())
        self.kind = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * _FEATURES, len(KINDS)))
        self.placed = nn.Sequential(
            nn.Conv2d(width, _PLACED, 1, bias=False), nn.BatchNorm2d(_PLACED), nn.ReLU6(), nn.Flatten(),
            nn.Linear(_PLACED * (size // _STRIDE) ** 2, _HIDDEN), nn.ReLU6(), nn.Dropout(dropout),
            nn.Linear(_HIDDEN, len(TURNS) + len(FLAGS)),
        )  # fmt: skip

    def forward(self, image: torch.Tensor) -> GateOutput:
        """Return the logits of a batch."""
        maps = self.blocks(self.stem((image - 0.5) / 0.25))
        features = self.features(maps)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        placed = self.placed(maps)
        return GateOutput(self.kind(pooled), placed[:, : len(TURNS)], placed[:, len(TURNS) :])


def _gray(convolution: nn.Conv2d) -> nn.Conv2d:
    """Convert a first layer with three input channels to the equivalent layer for gray input."""
    convolution.weight = nn.Parameter(convolution.weight.detach().sum(dim=1, keepdim=True))
    convolution.in_channels = 1
    return convolution
