"""The settings of a training run as immutable models, and the presets.

The presets are ``default`` and ``original`` (the original project's settings). ``hilum train --help-settings`` prints
the docstrings and field descriptions of this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hilum.filesystems import place_of

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
        (96, 48, 24, 16, 8),
        description="Channels of the decoder's 5 stages, deepest first; 4 give the mask half the resolution (not for "
        "unet).",
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
        description="Fine-tune a bundle (default, a path or an address): its network, preprocessing and weights; "
        "10 epochs and a learning rate of 2e-4 unless set.",
    )
    epochs: int = Field(30, ge=1, description="Passes over the training split.")
    batch_size: int = Field(16, ge=1, description="Images per forward pass, of all processes together.")
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
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = Field(
        "auto",
        description="float32, or mixed precision with float16 or bfloat16; auto: the faster, measured before the "
        "first epoch.",
    )
    channels_last: Literal["auto"] | bool = Field(
        "auto", description="Store images and weights with the channels last; auto: measured."
    )
    compile: Literal["auto"] | bool = Field(
        "auto", description="Compile the network with torch.compile; auto: measured on a GPU, false on a CPU."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    workers: int = Field(0, ge=0, description="Data-loading processes; 0 loads in the training process.")
    threads: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="CPU threads; 0: as many as affinity mask and cgroup quota allow; auto: measured.",
    )
    training_hashes: bool = Field(
        True,
        description="Store a perceptual hash of each training and validation image in the bundle, so that hilum warns "
        "when one of them is used for evaluation. A hash reveals that an image was used.",
    )
    checkpoint_every: int = Field(20, ge=1, description="Interval between saved checkpoints, epochs.")
    checkpoint_minutes: float = Field(
        10.0,
        ge=0,
        description="Interval at which the state inside an epoch is saved, minutes; 0: after each epoch alone.",
    )
    seed: int = Field(0, ge=0, description="Random seed of weights, order, dropout and augmentation.")


INDIFFERENT = {"device", "workers", "checkpoint_every", "checkpoint_minutes", "from_bundle", "training_hashes"}
"""Fields of TrainingConfig that may change when a run is resumed."""


class Config(_Settings):
    """All settings of a training run."""

    data: Path | str | None = Field(None, description="A folder of class folders, or a CSV file; or its address.")
    classes: tuple[str, ...] | None = Field(None, description="Class names to keep; by default all.")
    preprocess: PreprocessSpec = PreprocessSpec()
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    shortcuts: ShortcutConfig = ShortcutConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("data", mode="before")
    @classmethod
    def _place(cls, data: Any) -> Any:
        return data if data is None else place_of(data)

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


DEFAULTS = Config()
"""The settings without a preset."""
SECTIONS = tuple(name for name in Config.model_fields if isinstance(getattr(DEFAULTS, name), _Settings))
"""Sections of the TOML file and of ``--set``."""
