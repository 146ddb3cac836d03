"""The optimiser, the learning-rate schedule, the class weights and the averaged weights, from the configuration."""

from __future__ import annotations

import math

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from hilum.config import TrainingConfig


def build_optimiser(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) over all parameters."""
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


class Schedule:
    """The learning rate: cosine with warm-up, stepped by optimiser step, or plateau, stepped by epoch."""

    def __init__(self, optimiser: torch.optim.Optimizer, config: TrainingConfig, steps_per_epoch: int) -> None:
        self._plateau: ReduceLROnPlateau | None = None
        self._cosine: LambdaLR | None = None
        if config.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(
                optimiser,
                factor=config.plateau_factor,
                patience=config.plateau_patience,
                min_lr=config.min_learning_rate,
            )
            return
        warmup = max(1, round(config.warmup_epochs * steps_per_epoch))
        total = max(warmup + 1, config.epochs * steps_per_epoch)
        floor = config.min_learning_rate / config.learning_rate

        def factor(step: int) -> float:
            if step < warmup and config.warmup_epochs > 0:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / (total - warmup))
            return max(floor, 0.5 * (1 + math.cos(math.pi * progress)))

        self._cosine = LambdaLR(optimiser, factor)

    def after_step(self) -> None:
        """Call after each optimiser step."""
        if self._cosine:
            self._cosine.step()

    def after_epoch(self, validation_loss: float) -> None:
        """Call after each epoch."""
        if self._plateau:
            self._plateau.step(validation_loss)

    def state_dict(self) -> dict[str, object]:
        """Enough to go on."""
        state: dict[str, object] = (self._plateau or self._cosine).state_dict()  # type: ignore[union-attr]
        return {key: value for key, value in state.items() if key != "lr_lambdas"}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from ``state``."""
        if self._plateau:
            self._plateau.load_state_dict(state)
        elif self._cosine:
            self._cosine.load_state_dict({**state, "lr_lambdas": [None]})


def build_ema(model: nn.Module, config: TrainingConfig) -> ModelEmaV3 | None:
    """Averaged weights with a warmed-up decay, or None when turned off."""
    return ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
