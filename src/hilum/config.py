"""Settings of a training run: immutable models, read from TOML, overridden by options, saved in the run's folder.

The presets are ``default`` and ``original`` (the original project's settings). ``hilum train --help-settings`` prints
the docstrings and field descriptions of this module.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

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
    """Preprocessing of a radiograph into the network's input. Stored in the bundle and used for prediction."""

    size: int = Field(256, ge=32, le=2048, multiple_of=32, description="Side of the square input, pixels.")
    channels: Literal[1, 3] = Field(1, description="1: gray; 3: gray repeated, for encoders with RGB input.")
    fit: Literal["pad", "stretch"] = Field(
        "pad",
        description="pad: keep the aspect ratio, black borders; stretch: fill the square, as the original project did.",
    )


class SplitConfig(_Settings):
    """Random split of the records, used for datasets without a split of their own."""

    val_fraction: float = Field(0.15, gt=0, lt=1, description="Fraction of the records for validation.")
    test_fraction: float = Field(0.15, gt=0, lt=1, description="Fraction of the records for the test.")
    seed: int = Field(42, ge=0, description="Random seed of the split.")
    split_file: Path | None = Field(
        None, description="A split.json written by hilum split, used instead of a random split."
    )


class AugmentConfig(_Settings):
    """Random augmentation of training images and their masks. Zero disables an augmentation."""

    flip_p: float = Field(0.0, ge=0, le=1, description="Probability of a left-right flip.")
    rotation_degrees: float = Field(10.0, ge=0, le=180, description="Maximum rotation, degrees.")
    rotation_p: float = Field(0.3, ge=0, le=1, description="Probability of a rotation.")
    scale: float = Field(0.0, ge=0, lt=1, description="Maximum relative change of scale.")
    translate: float = Field(0.0, ge=0, lt=1, description="Maximum shift, as a fraction of the side.")
    affine_p: float = Field(0.0, ge=0, le=1, description="Probability of the change of scale and the shift.")
    gamma: float = Field(0.0, ge=0, lt=1, description="Gamma is drawn from 1 - gamma to 1 / (1 - gamma).")
    contrast: float = Field(0.0, ge=0, lt=1, description="Maximum relative change of contrast.")
    tone_p: float = Field(0.0, ge=0, le=1, description="Probability of the change of gamma and contrast.")
    noise_std: float = Field(
        5 / 255, ge=0, le=1, description="Standard deviation of Gaussian noise on intensities in [0, 1]."
    )
    noise_p: float = Field(0.5, ge=0, le=1, description="Probability of noise.")
    blur: float = Field(0.0, ge=0, le=0.1, description="Maximum sigma of a Gaussian blur, as a fraction of the side.")
    blur_p: float = Field(0.0, ge=0, le=1, description="Probability of a blur.")
    coarsen: float = Field(
        0.0, ge=0, lt=1, description="Maximum loss of resolution: downsampled by this fraction, then upsampled."
    )
    coarsen_p: float = Field(0.0, ge=0, le=1, description="Probability of a loss of resolution.")
    codec_quality: int = Field(30, ge=1, le=95, description="Minimum JPEG quality; the maximum is 95.")
    codec_p: float = Field(0.0, ge=0, le=1, description="Probability of JPEG compression.")


class ShortcutConfig(_Settings):
    """Augmentation against shortcuts in the training images (hilum.training.shortcuts). Zero disables one."""

    background_p: float = Field(
        0.0, ge=0, le=1, description="Probability of pasting the lungs onto an image of another class."
    )
    erase_p: float = Field(
        0.0, ge=0, lt=1, description="Probability of erasing the lungs; the target is then uniform over the classes."
    )
    lesion_p: float = Field(
        0.0, ge=0, lt=1, description="Probability of adding a synthetic opacity to an image of the normal class."
    )
    normal_class: str | None = Field(
        None, description="Class without findings, for lesion_p; none: the class named normal, if there is one."
    )
    localization_weight: float = Field(
        1.0, ge=0, description="Weight of the loss that localizes the evidence in a synthetic opacity."
    )


class ModelConfig(_Settings):
    """The network."""

    name: Literal["evidence", "encoder-unet", "unet"] = Field(
        "evidence",
        description="evidence: a timm encoder, evidence pooled inside the lung; encoder-unet: the same, pooled over "
        "the whole image; unet: the original project's network.",
    )
    encoder: str = Field("tf_efficientnet_lite0", description="Name of the encoder in timm (not for unet).")
    pooling: Literal["attention", "pcam", "lse", "average"] = Field(
        "attention", description="Pooling of evidence into a logit (evidence)."
    )
    evidence_stride: Literal[8, 16, 32] = Field(16, description="Side of an evidence cell, input pixels (evidence).")
    lung_gate: bool = Field(True, description="Count only evidence inside the predicted lung (evidence).")
    pretrained: bool = Field(True, description="Initialize the encoder with ImageNet weights if they are installed.")
    encoder_weights: Path | None = Field(None, description="A .safetensors file with the encoder's weights.")
    decoder_channels: tuple[int, ...] = Field(
        (96, 48, 24, 16, 8), description="Channels of the decoder's stages, deepest first (not for unet)."
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout before the classifier (not for unet).")


class LossConfig(_Settings):
    """The loss: segmentation_weight x (Dice + BCE) + classification_weight x cross-entropy."""

    segmentation_weight: float = Field(1.0, ge=0, description="Weight of Dice + BCE on the lung mask.")
    classification_weight: float = Field(2.0, ge=0, description="Weight of the cross-entropy on the class.")
    class_weights: Literal["none", "inverse", "effective"] = Field(
        "none", description="Weight classes by inverse frequency, or by effective number (Cui et al. 2019)."
    )
    keep_prior: bool = Field(
        True,
        description="Correct for training.sampling, class_weights and shortcuts.lesion_p, so that probabilities keep "
        "the data's class frequencies.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the cross-entropy.")


class TrainingConfig(_Settings):
    """Optimization, sampling, precision and hardware."""

    from_bundle: str | None = Field(
        None,
        description="Fine-tune a bundle (default, or a path): its network, preprocessing and weights; 10 epochs and "
        "a learning rate of 2e-4 unless set.",
    )
    epochs: int = Field(30, ge=1, description="Passes over the training split.")
    batch_size: int = Field(16, ge=1, description="Images per forward pass.")
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are summed before a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay of AdamW.")
    schedule: Literal["plateau", "cosine"] = Field("cosine", description="Learning-rate schedule.")
    warmup_epochs: float = Field(1.0, ge=0, description="Linear warm-up, epochs (cosine).")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="Factor on a plateau of the validation loss (plateau).")
    plateau_patience: int = Field(15, ge=0, description="Patience before the factor, epochs (plateau).")
    min_learning_rate: float = Field(1e-7, ge=0, description="Minimum learning rate.")
    clip_norm: float = Field(1.0, gt=0, description="Maximum gradient norm.")
    early_stopping: int = Field(0, ge=0, description="Early-stopping patience, epochs (0 disables).")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="Decay per step of the exponential moving average of the weights (0 disables)."
    )
    sampling: Literal["natural", "class", "class-source"] = Field(
        "natural",
        description="natural: each image once per epoch; class, class-source: classes, or classes within each source, "
        "balanced according to sampling_power.",
    )
    sampling_power: float = Field(
        1.0,
        ge=0,
        le=1,
        description="1: equal frequency; 0.5: proportional to the square root of the size; 0: unchanged.",
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = Field(
        "32-true", description="float32, or mixed precision with float16 or bfloat16."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    workers: int = Field(0, ge=0, description="Data-loading processes; 0 loads in the training process.")
    threads: int = Field(0, ge=0, description="CPU threads; 0: as many as affinity mask and cgroup quota allow.")
    training_hashes: bool = Field(
        True,
        description="Store a perceptual hash of each training and validation image in the bundle, so that hilum warns "
        "when one of them is used for evaluation. A hash reveals that an image was used.",
    )
    checkpoint_every: int = Field(20, ge=1, description="Interval between saved checkpoints, epochs.")
    seed: int = Field(0, ge=0, description="Random seed of weights, order, dropout and augmentation.")


INDIFFERENT = {"device", "workers", "checkpoint_every", "from_bundle", "training_hashes"}
"""Fields of TrainingConfig that may change when a run is resumed."""


class Config(_Settings):
    """All settings of a training run."""

    data: Path | None = Field(None, description="A folder of class folders, or a CSV file.")
    classes: tuple[str, ...] | None = Field(None, description="Class names to keep; by default all.")
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
            raise ValueError("split.val_fraction + split.test_fraction must be below 1, or nothing is left to train on")
        if self.loss.segmentation_weight == self.loss.classification_weight == 0:
            raise ValueError("one of loss.segmentation_weight and loss.classification_weight must be above 0")
        if self.shortcuts.background_p + self.shortcuts.erase_p > 1:
            raise ValueError("shortcuts.background_p + shortcuts.erase_p must be at most 1")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "augment": {
            "flip_p": 0.5,  # without flips, evidence concentrated beside the heart
            "scale": 0.1, "translate": 0.05, "affine_p": 0.5, "gamma": 0.25, "contrast": 0.2, "tone_p": 0.5,
            "blur": 0.012, "blur_p": 0.2, "coarsen": 0.5, "coarsen_p": 0.2, "codec_p": 0.2,
        },
        "shortcuts": {"background_p": 0.25, "erase_p": 0.15, "lesion_p": 0.5},
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


class Setting(NamedTuple):
    """One setting of a section of Config, described for help and error messages."""

    name: str
    """``section.key``."""
    allowed: str
    """Its type and range, such as ``number in [0, 1)``."""
    description: str
    values: dict[str, Any]
    """The value in each preset."""


@cache
def list_settings() -> Mapping[str, Setting]:
    """Return all settings by name ``section.key``, in the order of Config."""
    found = {}
    for section in SECTIONS:
        model = type(getattr(_DEFAULTS, section))
        for key, field in model.model_fields.items():
            values = {name: preset.get(section, {}).get(key, field.default) for name, preset in PRESETS.items()}
            name = f"{section}.{key}"
            found[name] = Setting(name, _allowed(field), field.description or "", values)
    return found


def show_value(value: Any) -> str:
    """Return a setting's value as text that ``--set`` accepts."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else "none" if value is None else str(value)


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse ``section.key=value`` strings and return settings nested as in TOML, for load_config.

    ``none`` stands for None in optional settings; list items are separated by commas. Later assignments override
    earlier ones.

    Raises:
        ConfigError: A string has another form. Names and values are checked by load_config.
    """
    settings: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(
                f"--set takes section.key=value, got {text!r}.", hint="For example: --set training.epochs=10."
            )
        settings[f"{section}.{key}"] = _parse_value(section, key, value.strip())
    return nest(settings)


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings ``{"section.key": value}`` nested as in TOML; names without a section stay at the top level."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        section, dot, key = name.partition(".")
        nested = merge(nested, {section: {key: value}} if dot else {name: value})
    return nested


def load_config(
    preset: PresetName = "default",
    path: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    beneath: Mapping[str, Any] | None = None,
) -> Config:
    """Return the settings of a preset, overridden by ``beneath``, a TOML file and ``overrides``, in this order.

    Args:
        preset: Name of the preset.
        path: TOML file of settings.
        overrides: Settings nested as in TOML; they take precedence over the file.
        beneath: Settings nested as in TOML; the file takes precedence over them.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or a value is out of range; all are named.
    """
    if preset not in PRESETS:
        raise ConfigError(f"Unknown preset {preset!r}.", hint=f"Choose one of {', '.join(PRESETS)}.")
    path = None if path is None else Path(path)
    settings: Mapping[str, Any] = PRESETS[preset]
    for layer in (beneath or {}, _read_toml(path) if path else {}, overrides or {}):
        settings = merge(settings, layer)
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(
            _explain(error, path, overrides or {}), hint="`hilum train --help-settings` lists every setting."
        ) from error


def save_config(config: Config, path: Path) -> None:
    """Write all settings as TOML; load_config reads them back unchanged."""
    import tomli_w

    write_text(path, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` overridden by ``layer``, recursively."""
    merged = dict(base)
    for key, value in layer.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = with_current_keys(tomllib.loads(path.read_text(encoding="utf-8")))
        return content
    except OSError as error:
        raise ConfigError(f"Cannot read the settings in '{path}': {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not valid TOML: {error}.", hint="See https://toml.io") from error


def _parse_value(section: str, key: str, text: str) -> Any:
    """Return a value's text as input for pydantic; unchanged if there is no such setting."""
    field = type(getattr(_DEFAULTS, section)).model_fields.get(key) if section in SECTIONS else None
    if field is None:
        return text
    kind, optional = _kind(field)
    if optional and text.lower() == "none":
        return None
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.strip("[]()").split(",")]
    if get_origin(kind) is Literal and isinstance(get_args(kind)[0], int) and text.isdigit():
        return int(text)
    return text


def _kind(field: FieldInfo) -> tuple[Any, bool]:
    """Return a field's type without None, and whether it may be None."""
    if get_origin(field.annotation) in (Union, UnionType):
        return next(part for part in get_args(field.annotation) if part is not type(None)), True
    return field.annotation, False


def _allowed(field: FieldInfo) -> str:
    """Describe a field's type and range."""
    kind, optional = _kind(field)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    names = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    words = names.get(kind, "integers separated by commas")
    bounds = {name: getattr(entry, name) for entry in field.metadata for name in _BOUNDS if hasattr(entry, name)}
    lower, upper = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if lower is not None and upper is not None:
        words += f" in {'[' if 'ge' in bounds else '('}{lower}, {upper}{']' if 'le' in bounds else ')'}"
    elif lower is not None:
        words += f" {'>=' if 'ge' in bounds else '>'} {lower}"
    if "multiple_of" in bounds:
        words += f", a multiple of {bounds['multiple_of']}"
    return f"{words} or none" if optional else words


def _explain(error: ValidationError, path: Path | None, overrides: Mapping[str, Any]) -> str:
    """Describe each invalid setting with its allowed and actual value, and name the file if one comes from there."""
    lines, in_file = [], False
    for detail in error.errors():
        place = tuple(str(part) for part in detail["loc"])
        section = overrides.get(place[0]) if place else None
        overridden = place[1] in section if isinstance(section, Mapping) and len(place) > 1 else section is not None
        in_file = in_file or not overridden
        name = ".".join(place[:2])
        known = list_settings().get(name)
        if detail["type"] == "extra_forbidden":
            if len(place) == 1 and isinstance(detail["input"], Mapping):  # a section; suggest one of its keys
                name = ".".join([name, *list(detail["input"])[:1]])
            meant = _nearest(name)
            lines.append(f"unknown setting `{name}`" + (f", did you mean `{meant}`?" if meant else ""))
        elif detail["type"] == "value_error":
            lines.append(str(detail["ctx"]["error"]))
        elif known:
            lines.append(f"`{name}`: expected {known.allowed}, got {detail['input']!r:.80}")
        else:
            lines.append(f"`{name}`: {detail['msg']}, got {detail['input']!r:.80}")
    where = f" in {path}" if path and in_file else ""
    return f"Bad configuration{where}: " + "; ".join(lines) + ("" if lines[-1].endswith("?") else ".")


def _nearest(name: str) -> str | None:
    """Return the setting closest to an unknown ``section.key``: the same key elsewhere, or a similar name."""
    key = name.rpartition(".")[2]
    same = [known for known in list_settings() if known.rpartition(".")[2] == key]
    found = difflib.get_close_matches(name, same or [*list_settings(), *SECTIONS], n=1, cutoff=0.0 if same else 0.6)
    return found[0] if found else None


_DEFAULTS = Config()
SECTIONS = tuple(name for name in Config.model_fields if isinstance(getattr(_DEFAULTS, name), _Settings))
"""Sections of the TOML file and of ``--set``."""
_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")
