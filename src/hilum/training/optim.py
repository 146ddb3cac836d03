"""Optimizer, learning-rate schedule and weight averaging."""

from __future__ import annotations

import math

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from hilum.config import Config, TrainingConfig
from hilum.errors import ConfigError


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019) for all parameters, in one kernel where gradients are not scaled."""
    fused = config.precision != "16-mixed"  # a fused step unscales gradients itself, after they are clipped
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)


def check_batch_size(config: Config) -> None:
    """Check that batch normalization has more than one value per channel.

    Raises:
        ConfigError: The batch size is 1, and a layer has one value per channel and image.
    """
    one_value = config.model.name == "unet" or config.preprocess.size == 32  # perceptron; bottleneck of 1 x 1
    if config.training.batch_size == 1 and one_value:
        raise ConfigError(
            f"{config.model.name} at {config.preprocess.size} pixels needs a batch size of at least 2, got 1.",
            hint="Use --batch-size 2. --set training.accumulate=N sums the gradients of N batches.",
        )


class Schedule:
    """Learning-rate schedule: cosine with warm-up (per optimizer step) or plateau (per epoch).

    Args:
        optimizer: The optimizer.
        config: Schedule settings.
        steps_per_epoch: Optimizer steps per epoch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainingConfig, steps_per_epoch: int) -> None:
        self._plateau: ReduceLROnPlateau | None = None
        self._cosine: LambdaLR | None = None
        if config.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(
                optimizer,
                factor=config.plateau_factor,
                patience=config.plateau_patience,
                min_lr=config.min_learning_rate,
            )
            return
        warmup = round(config.warmup_epochs * steps_per_epoch)
        total = max(warmup + 1, config.epochs * steps_per_epoch)
        floor = config.min_learning_rate / config.learning_rate

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / (total - warmup))
            return max(floor, 0.5 * (1 + math.cos(math.pi * progress)))

        self._cosine = LambdaLR(optimizer, factor)

    def after_step(self) -> None:
        """Advance the schedule; call after each optimizer step."""
        if self._cosine:
            self._cosine.step()

    def after_epoch(self, validation_loss: float) -> None:
        """Advance the schedule; call after each epoch."""
        if self._plateau:
            self._plateau.step(validation_loss)

    def state_dict(self) -> dict[str, object]:
        """Return the state for load_state_dict."""
        state: dict[str, object] = (self._plateau or self._cosine).state_dict()  # type: ignore[union-attr]
        return {key: value for key, value in state.items() if key != "lr_lambdas"}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continue from ``state``."""
        if self._plateau:
            self._plateau.load_state_dict(state)
        elif self._cosine:
            self._cosine.load_state_dict({**state, "lr_lambdas": [None]})


def build_ema(model: nn.Module, config: TrainingConfig) -> ModelEmaV3 | None:
    """Return an exponential moving average of the weights with decay warm-up, or None if ``ema_decay`` is 0."""
    return ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
