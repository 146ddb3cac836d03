"""The original project's network: a MONAI residual UNet with a segmentation and a classification head.

Channels, dropout and parameter names are those of the original, so that its checkpoints can be loaded; with 3 input
channels and 4 classes it has 6,643,510 parameters. Unlike the original, it returns mask logits without a sigmoid.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from monai.networks.layers.factories import Norm
from monai.networks.nets.unet import UNet
from torch import nn

from hilum.types import ModelOutput

FEATURES = 64


class MultiTaskUNet(nn.Module):
    """The original network: (N, C, S, S) float32 in [0, 1], S a multiple of 16, to ModelOutput without evidence.

    The classifier is a multi-layer perceptron on pooled decoder features, which does not decompose over the image.

    Args:
        in_channels: Number of input channels C.
        num_classes: Number of classes.
    """

    class_parameters: ClassVar[tuple[str, ...]] = ("classifier.9.weight", "classifier.9.bias")

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = UNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=FEATURES,
            channels=(32, 64, 128, 256, 512),
            strides=(2, 2, 2, 2),
            num_res_units=2,
            norm=Norm.BATCH,
            dropout=0.1,
        )
        self.seg_head = nn.Sequential(
            nn.Conv2d(FEATURES, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, kernel_size=1),
        )
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(FEATURES, 256),
            nn.ReLU(),
            nn.BatchNorm1d(256),
            nn.Dropout(0.3),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.BatchNorm1d(128),
            nn.Dropout(0.2),
            nn.Linear(128, num_classes),
        )

    def forward(self, image: torch.Tensor) -> ModelOutput:
        """Return mask logits and class logits."""
        features = self.backbone(image)  # (N, 64, S, S)
        pooled = self.global_pool(features).flatten(1)  # (N, 64)
        return ModelOutput(mask_logits=self.seg_head(features), class_logits=self.classifier(pooled))
