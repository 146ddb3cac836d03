"""Settings of a training run: immutable models, read from TOML, overridden by options, saved in the run's folder."""

from __future__ import annotations

from hilum.config.loading import load_config, merge, nest, parse_settings, save_config
from hilum.config.schema import (
    INDIFFERENT,
    PRESETS,
    SECTIONS,
    AugmentConfig,
    Config,
    LossConfig,
    ModelConfig,
    PreprocessSpec,
    PresetName,
    ShortcutConfig,
    SplitConfig,
    TrainingConfig,
)
from hilum.config.settings import Setting, list_settings, show_value

__all__ = [
    "INDIFFERENT",
    "PRESETS",
    "SECTIONS",
    "AugmentConfig",
    "Config",
    "LossConfig",
    "ModelConfig",
    "PreprocessSpec",
    "PresetName",
    "Setting",
    "ShortcutConfig",
    "SplitConfig",
    "TrainingConfig",
    "list_settings",
    "load_config",
    "merge",
    "nest",
    "parse_settings",
    "save_config",
    "show_value",
]
