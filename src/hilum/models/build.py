"""Build networks from the configuration."""

from __future__ import annotations

from torch import nn

from hilum.config import ModelConfig, PreprocessSpec


def build_model(config: ModelConfig, spec: PreprocessSpec, num_classes: int) -> nn.Module:
    """Return the network of ``config`` with untrained weights.

    Its forward takes (N, spec.channels, S, S) float32 in [0, 1] and returns a hilum.types.ModelOutput.

    Args:
        config: Network settings.
        spec: Preprocessing of the input.
        num_classes: Number of classes.

    Raises:
        ConfigError: The encoder is unknown.
    """
    if config.name == "unet":
        from hilum.models.unet import MultiTaskUNet

        return MultiTaskUNet(spec.channels, num_classes)
    if config.name == "encoder-unet":
        from hilum.models.encoder_unet import EncoderUNet

        return EncoderUNet(config.encoder, num_classes, config.decoder_channels, config.dropout)
    from hilum.models.evidence import EvidenceNet

    return EvidenceNet(
        config.encoder,
        num_classes,
        config.decoder_channels,
        config.dropout,
        pooling=config.pooling,
        stride=config.evidence_stride,
        lung_gate=config.lung_gate,
    )


def load_pretrained(model: nn.Module, config: ModelConfig) -> str | None:
    """Load pretrained weights into a timm encoder and return their origin, or None if there are none.

    Raises:
        CheckpointError: The file of ``config.encoder_weights`` does not fit the encoder.
    """
    from hilum.models.encoder_unet import EncoderUNet
    from hilum.models.evidence import EvidenceNet

    if not isinstance(model, EncoderUNet | EvidenceNet) or not config.pretrained:
        return None
    from hilum.models.pretrained import load_encoder_weights

    return load_encoder_weights(model.encoder, config.encoder, config.encoder_weights)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
