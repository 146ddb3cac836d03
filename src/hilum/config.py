"""All settings of a run: frozen models, read from TOML, overridden by flags, echoed whole into the run's folder.

The field descriptions are the help of ``hilum train``; the presets are ``default`` and ``original`` (the settings
of the original project).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hilum.errors import ConfigError
from hilum.storage import with_current_keys, write_text

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

PresetName = Literal["default", "original"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessSpec(_Settings):
    """How a radiograph becomes the network's input. It travels in the bundle and is never a flag of predict."""

    size: int = Field(256, ge=32, le=2048, multiple_of=32, description="Side of the network's square input, pixels.")
    channels: Literal[1, 3] = Field(1, description="1: gray; 3: gray repeated, for backbones made for RGB.")
    fit: Literal["pad", "stretch"] = Field(
        "pad",
        description="pad: keep the aspect, black borders; stretch: fill the square, as the original project did.",
    )


class SplitConfig(_Settings):
    """How records are shared out where the data bring no split of their own."""

    val_fraction: float = Field(0.15, gt=0, lt=1, description="Share of the records for validation.")
    test_fraction: float = Field(0.15, gt=0, lt=1, description="Share of the records for the test.")
    split_seed: int = Field(42, ge=0, description="Seed of the split.")
    split_file: Path | None = Field(None, description="A split.json to use instead, as hilum split writes it.")


class AugmentConfig(_Settings):
    """Random changes to training images; a mask moves with its image. Zero turns one off."""

    flip_p: float = Field(0.0, ge=0, le=1, description="Chance of a left-right flip.")
    rotation_degrees: float = Field(10.0, ge=0, le=180, description="Largest rotation, degrees.")
    rotation_p: float = Field(0.3, ge=0, le=1, description="Chance of a rotation.")
    scale: float = Field(0.0, ge=0, lt=1, description="Largest relative change of size.")
    translate: float = Field(0.0, ge=0, lt=1, description="Largest shift, as a fraction of the side.")
    affine_p: float = Field(0.0, ge=0, le=1, description="Chance of the change of size and the shift.")
    gamma: float = Field(0.0, ge=0, lt=1, description="Gamma is drawn from 1 - gamma to 1 / (1 - gamma).")
    contrast: float = Field(0.0, ge=0, lt=1, description="Largest relative change of contrast.")
    tone_p: float = Field(0.0, ge=0, le=1, description="Chance of the change of gamma and contrast.")
    noise_std: float = Field(5 / 255, ge=0, le=1, description="Standard deviation of Gaussian noise, of [0, 1].")
    noise_p: float = Field(0.5, ge=0, le=1, description="Chance of noise.")
    blur: float = Field(0.0, ge=0, le=0.1, description="Largest sigma of a Gaussian blur, as a fraction of the side.")
    blur_p: float = Field(0.0, ge=0, le=1, description="Chance of a blur.")
    coarsen: float = Field(0.0, ge=0, lt=1, description="Largest loss of resolution: shrunk by it, then restored.")
    coarsen_p: float = Field(0.0, ge=0, le=1, description="Chance of a loss of resolution.")
    codec_quality: int = Field(30, ge=1, le=100, description="Lowest JPEG quality; the highest is 95.")
    codec_p: float = Field(0.0, ge=0, le=1, description="Chance of a pass through JPEG.")


class ShortcutConfig(_Settings):
    """Training films that take a shortcut's reward away (hilum.training.shortcuts). Zero turns one off."""

    background_p: float = Field(0.0, ge=0, le=1, description="Chance that lungs are set over another class's film.")
    erase_p: float = Field(0.0, ge=0, le=1, description="Chance that lungs are erased and no answer is right.")
    lesion_p: float = Field(0.0, ge=0, le=1, description="Chance that a normal film gets a drawn opacity.")
    normal_class: str | None = Field(
        None, description="The class without findings, for --lesion-p; left out, the class called normal, if any."
    )
    localization_weight: float = Field(1.0, ge=0, description="Weight of pointing the evidence at a drawn opacity.")


class ModelConfig(_Settings):
    """Which network."""

    name: Literal["evidence", "encoder-unet", "unet"] = Field(
        "evidence",
        description="evidence: a timm encoder, evidence pooled inside the lung; encoder-unet: the same, pooled over "
        "the whole film; unet: the original project's network.",
    )
    encoder: str = Field("tf_efficientnet_lite0", description="timm's name of the encoder (not of unet).")
    pooling: Literal["attention", "pcam", "lse", "average"] = Field(
        "attention", description="How evidence becomes a logit (evidence)."
    )
    evidence_stride: Literal[8, 16, 32] = Field(16, description="Side of an evidence cell, input pixels (evidence).")
    lung_gate: bool = Field(True, description="Let only evidence inside the predicted lung count (evidence).")
    pretrained: bool = Field(True, description="Start the encoder from ImageNet weights where they are at hand.")
    encoder_weights: Path | None = Field(None, description="A .safetensors file with the encoder's weights.")
    decoder_channels: tuple[int, ...] = Field(
        (96, 48, 24, 16, 8), description="Channels of the decoder's stages, deepest first (not unet)."
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout before the classifier (not unet).")


class LossConfig(_Settings):
    """What is minimized: segmentation x (Dice + BCE) + classification x cross-entropy."""

    segmentation_weight: float = Field(1.0, ge=0, description="Weight of Dice + BCE on the lung mask.")
    classification_weight: float = Field(2.0, ge=0, description="Weight of the cross-entropy on the class.")
    class_weights: Literal["none", "inverse", "effective"] = Field(
        "none", description="Weight classes by inverse frequency or by effective number (Cui et al. 2019)."
    )
    keep_prior: bool = Field(
        True, description="Correct for --sampling, so that probabilities keep the class shares of the data."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the cross-entropy.")


class TrainingConfig(_Settings):
    """How it is minimized."""

    from_bundle: str | None = Field(
        None,
        description="Fine-tune a bundle (default, or a path): its network, preprocessing and weights, 10 epochs and "
        "a learning rate of 2e-4 where none are set.",
    )
    epochs: int = Field(30, ge=1, description="Passes over the training split.")
    batch_size: int = Field(16, ge=1, description="Images in one forward pass.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are added before a step.")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's peak learning rate.")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's weight decay.")
    schedule: Literal["plateau", "cosine"] = Field("cosine", description="How the learning rate falls.")
    warmup_epochs: float = Field(1.0, ge=0, description="Linear warm-up, epochs (cosine).")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="Factor on a plateau of the validation loss.")
    plateau_patience: int = Field(15, ge=0, description="Epochs without gain before the factor.")
    min_learning_rate: float = Field(1e-7, ge=0, description="The learning rate never falls below this.")
    clip_norm: float = Field(1.0, gt=0, description="Largest gradient norm.")
    early_stopping: int = Field(0, ge=0, description="Stop after so many epochs without gain; 0 never stops.")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Decay of the averaged weights, per step; 0 turns it off.")
    sampling: Literal["natural", "class", "class-source"] = Field(
        "natural", description="natural: every film once; else every class, or class of a source, is drawn more evenly."
    )
    sampling_power: float = Field(
        1.0, ge=0, le=1, description="1: equally often; 0.5: by the square root of its size; 0: as it is."
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = Field("32-true", description="Arithmetic.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    workers: int = Field(0, ge=0, description="Loader processes; 0 loads in the training process.")
    training_hashes: bool = Field(
        True,
        description="Keep a perceptual hash of each training and validation image in the bundle, by which hilum warns "
        "when one of them is measured again. A hash tells that an image was there.",
    )
    checkpoint_every: int = Field(20, ge=1, description="Keep a checkpoint each so many epochs.")
    seed: int = Field(0, ge=0, description="Seed of weights, order, dropout and augmentation.")


INDIFFERENT = {"device", "workers", "checkpoint_every", "from_bundle", "training_hashes"}
"""Fields of TrainingConfig that may change when a run is resumed, whose state holds all weights."""


class Config(_Settings):
    """Everything a run depends on."""

    data: Path | None = Field(None, description="Folder of class folders, or CSV; the command's DATA goes first.")
    classes: tuple[str, ...] | None = Field(None, description="Class names to keep; all labels by default.")
    preprocess: PreprocessSpec = PreprocessSpec()
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    shortcuts: ShortcutConfig = ShortcutConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.split.val_fraction + self.split.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must leave something to train on (a sum below 1)")
        if self.loss.segmentation_weight == self.loss.classification_weight == 0:
            raise ValueError("one of segmentation_weight and classification_weight must be above 0")
        if self.shortcuts.background_p + self.shortcuts.erase_p > 1:
            raise ValueError("background_p + erase_p must be at most 1")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "augment": {
            "flip_p": 0.5,  # with the heart always on one side, evidence settled beside it
            "scale": 0.1, "translate": 0.05, "affine_p": 0.5, "gamma": 0.25, "contrast": 0.2, "tone_p": 0.5,
            "blur": 0.012, "blur_p": 0.2, "coarsen": 0.5, "coarsen_p": 0.2, "codec_p": 0.2,
        },
        "shortcuts": {"background_p": 0.25, "erase_p": 0.15, "lesion_p": 0.5},
        "loss": {"class_weights": "effective"},
        "training": {"ema_decay": 0.998, "early_stopping": 10},
    },
    "original": {
        "preprocess": {"channels": 3, "fit": "stretch"},
        "augment": {"flip_p": 0.5},
        "model": {"name": "unet"},
        "training": {
            "epochs": 100, "batch_size": 16, "learning_rate": 1e-4, "weight_decay": 1e-4, "schedule": "plateau",
            "warmup_epochs": 0, "seed": 42,
        },
    },
}  # fmt: skip


def load_config(
    preset: PresetName = "default",
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    beneath: Mapping[str, Any] | None = None,
) -> Config:
    """The preset, changed by ``beneath``, by a TOML file, then by ``overrides`` (both nested like the TOML).

    Raises:
        ConfigError: the file cannot be read, a key is unknown or a value is out of range; all are named.
    """
    settings = PRESETS[preset]
    for layer in (beneath or {}, _read_toml(path) if path else {}, overrides or {}):
        settings = _merge(settings, layer)
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_explain(error, path), hint="`hilum train --help` lists every setting.") from error


def save_config(config: Config, path: Path) -> None:
    """Write the whole configuration as TOML; load_config reads it back equal."""
    import tomli_w

    write_text(path, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = with_current_keys(tomllib.loads(path.read_text(encoding="utf-8")))
        return content
    except OSError as error:
        raise ConfigError(f"Expected a TOML file at {path}, got: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"Expected TOML in {path}, got: {error}.", hint="See https://toml.io.") from error


def _merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in layer.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for detail in error.errors():
        name = ".".join(str(part) for part in detail["loc"]) or "configuration"
        if detail["type"] == "extra_forbidden":
            lines.append(f"unknown key `{name}`")
        else:
            lines.append(f"`{name}`: {detail['msg']}, got {detail['input']!r:.80}")
    where = f" in {path}" if path else ""
    return f"Bad configuration{where}: " + "; ".join(lines) + "."
