"""A timm encoder with a UNet decoder for the mask and a linear classifier on the bottleneck.

The classifier is linear and comes after global average pooling, so its logit is a sum over the bottleneck's
positions plus a bias: that sum, position by position, is the evidence (class activation mapping, Zhou et al.
2016, here exact rather than an image drawn afterwards).
"""

from __future__ import annotations

from typing import Any, ClassVar

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional

from hilum.errors import ConfigError
from hilum.types import ModelOutput


class EncoderUNet(nn.Module):
    """(N, C, S, S) float32 in [0, 1], C = 1 or 3, S a multiple of 32, to ModelOutput.

    A gray input is repeated to the three channels that pretrained encoders expect, and normalized with the
    encoder's own mean and standard deviation: both inside the network, so that they travel with it.

    Raises:
        ConfigError: Timm knows no such encoder, it cannot give five levels of features, or ``decoder_channels``
            are not five.
    """

    class_parameters: ClassVar[tuple[str, ...]] = ("classifier.weight", "classifier.bias")

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        decoder_channels: tuple[int, ...] = (128, 64, 32, 16, 8),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.segmentation_head = build_parts(encoder, decoder_channels)
        self.dropout = nn.Dropout2d(dropout)  # on (N, F, h, w) it drops whole features, as dropout after pooling does
        self.classifier = nn.Conv2d(self.encoder.out_channels[-1], num_classes, kernel_size=1)
        mean, std = normalization(encoder)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> ModelOutput:
        """Mask logits, class logits and their evidence."""
        features = self.encoder((image - self.mean) / self.std)  # a gray (N, 1, S, S) broadcasts to (N, 3, S, S)
        mask_logits = self.segmentation_head(self.decoder(features))
        bottleneck = self.dropout(features[-1])  # (N, F, h, w)
        positions = bottleneck.shape[-2] * bottleneck.shape[-1]
        evidence = functional.conv2d(bottleneck, self.classifier.weight) / positions  # (N, K, h, w)
        class_logits = evidence.sum(dim=(2, 3)) + self.classifier.bias
        return ModelOutput(mask_logits, class_logits, evidence, features[-1].mean(dim=(2, 3)))


def build_parts(encoder: str, decoder_channels: tuple[int, ...]) -> tuple[Any, nn.Module, nn.Module]:
    """A timm encoder (levels at 1, 1/2, ..., 1/32), a UNet decoder for it, and its head to one mask logit; untrained.

    Raises:
        ConfigError: As for EncoderUNet.
    """
    if len(decoder_channels) != 5 or min(decoder_channels) < 1:
        raise ConfigError(
            f"Expected 5 decoder_channels of at least 1, got {list(decoder_channels)}.",
            hint="Give one per stage, deepest first.",
        )
    try:
        net = smp.Unet(
            f"tu-{encoder}", encoder_weights=None, decoder_channels=decoder_channels, in_channels=3, classes=1
        )
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        # timm reports an unknown or an unsuitable model in any of these ways
        raise ConfigError(
            f"Expected the name of a timm encoder with five feature levels, got {encoder!r}: {error}.",
            hint="`python -c 'import timm; print(timm.list_models())'` lists them.",
        ) from error
    return net.encoder, net.decoder, net.segmentation_head


def normalization(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation per channel that timm records for an encoder, of [0, 1]."""
    import timm

    settings = timm.get_pretrained_cfg(encoder)
    if settings is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(settings.mean), tuple(settings.std)
