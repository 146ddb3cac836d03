"""Network with a timm encoder, a UNet decoder for the mask, and a linear classifier on the bottleneck.

The classifier follows global average pooling, so each logit is a sum over the positions of the bottleneck plus a
bias. The terms of this sum are the evidence (class activation mapping, Zhou et al. 2016).
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
    """Encoder-UNet: (N, C, S, S) float32 in [0, 1], C = 1 or 3, S a multiple of 32, to ModelOutput.

    The network itself repeats gray input to three channels and normalizes it by the encoder's mean and standard
    deviation.

    Args:
        encoder: Name of the encoder in timm.
        num_classes: Number of classes.
        decoder_channels: Channels of the five decoder stages, deepest first; without the last one, the mask logits have
            half the resolution and are enlarged linearly.
        dropout: Dropout probability of features before the classifier.

    Raises:
        ConfigError: The encoder is unknown or has fewer than five feature levels, or there are not 4 or 5
            ``decoder_channels``.
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
        self.dropout = nn.Dropout2d(dropout)  # drops whole features, like dropout after pooling
        self.classifier = nn.Conv2d(self.encoder.out_channels[-1], num_classes, kernel_size=1)
        mean, std = normalization(encoder)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> ModelOutput:
        """Return mask logits, class logits, evidence and features."""
        features = self.encoder((image - self.mean) / self.std)  # a gray (N, 1, S, S) broadcasts to (N, 3, S, S)
        mask_logits = self.segmentation_head(self.decoder(features))
        bottleneck = self.dropout(features[-1])  # (N, F, h, w)
        positions = bottleneck.shape[-2] * bottleneck.shape[-1]
        evidence = functional.conv2d(bottleneck, self.classifier.weight) / positions  # (N, K, h, w)
        class_logits = evidence.sum(dim=(2, 3)) + self.classifier.bias
        return ModelOutput(mask_logits, class_logits, evidence, features[-1].mean(dim=(2, 3)))


def build_parts(encoder: str, decoder_channels: tuple[int, ...]) -> tuple[Any, nn.Module, nn.Module]:
    """Return an untrained timm encoder (levels at 1, 1/2, ..., 1/32), its UNet decoder and its mask head.

    Raises:
        ConfigError: As for EncoderUNet.
    """
    if len(decoder_channels) not in (4, 5) or min(decoder_channels) < 1:
        raise ConfigError(
            f"Expected 4 or 5 decoder_channels of at least 1, got {list(decoder_channels)}.",
            hint="Name the channels of each stage, deepest first; 4 give the mask half the resolution.",
        )
    stages = (*decoder_channels, decoder_channels[-1])[:5]
    try:
        net = smp.Unet(f"tu-{encoder}", encoder_weights=None, decoder_channels=stages, in_channels=3, classes=1)
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        # timm raises any of these for unknown or unsuitable models
        raise ConfigError(
            f"{encoder!r} is not a timm encoder with five feature levels: {error}.",
            hint="List encoders with: python -c 'import timm; print(timm.list_models())'",
        ) from error
    if len(decoder_channels) == 4:
        del net.decoder.blocks[-1]
        net.segmentation_head.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return net.encoder, net.decoder, net.segmentation_head


def normalization(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation per channel of an encoder's input in [0, 1], as recorded by timm."""
    import timm

    settings = timm.get_pretrained_cfg(encoder)
    if settings is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(settings.mean), tuple(settings.std)
