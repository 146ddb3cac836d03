"""A network that can learn nothing but how frequent the classes are learns their frequencies in the data.

All training images are equal, so that the best probabilities are the class shares, whatever sampling, class weights and
synthetic opacities do during training (``loss.keep_prior``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hilum.config import Config, PreprocessSpec, load_config
from hilum.data.cache import Cache
from hilum.metrics.scores import FloatArray
from hilum.run_folder import RunFolder
from hilum.training.dataset import CachedDataset
from hilum.training.loop import fit
from hilum.training.observer import Silent
from hilum.types import ModelOutput, Record

SIDE = 32
CLASSES = ("COVID", "Normal", "Viral Pneumonia")
COUNTS = (90, 250, 60)
LUNG = np.zeros((SIDE, SIDE), np.uint8)
LUNG[8:24, 5:13] = LUNG[8:24, 19:27] = 1
IMAGE = np.where(LUNG, 60, 150).astype(np.uint8)
PLAIN = torch.from_numpy(IMAGE / np.float32(255))
ODDS = 0.25
"""Largest deviation of the log odds of two classes, for a few hundred images of a class. Uncorrected: 0.5 to 1.6."""


class Tiny(nn.Module):
    """A perceptron over the pixels, which sees whether an opacity was added; its lungs are never sure."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.zeros(()))
        self.layers = nn.Sequential(nn.Linear(SIDE * SIDE // 4, 32), nn.ReLU(), nn.Linear(32, len(CLASSES)))

    def forward(self, image: torch.Tensor) -> ModelOutput:
        pixels = functional.avg_pool2d(image - PLAIN, 2).flatten(1)
        return ModelOutput(self.mask.expand(len(image), 1, SIDE, SIDE), self.layers(4 * pixels))


def make_dataset(masked: tuple[str, ...]) -> CachedDataset:
    """Equal images of dark lungs; those of the classes ``masked`` have a mask."""
    labels = [name for name, count in zip(CLASSES, COUNTS, strict=True) for _ in range(count)]
    records = [
        Record(Path(f"{row}.png"), Path(f"{row}-mask.png") if label in masked else None, label)
        for row, label in enumerate(labels)
    ]
    has_mask = np.array([record.mask_path is not None for record in records])
    cache = Cache(
        images=np.broadcast_to(IMAGE, (len(labels), SIDE, SIDE)),
        masks=np.broadcast_to(LUNG, (int(has_mask.sum()), SIDE, SIDE)),
        mask_row=np.where(has_mask, np.cumsum(has_mask) - 1, -1),
        path=Path(),
    )
    return CachedDataset(cache, records, CLASSES, PreprocessSpec(size=SIDE))


def make_config(**sections: dict[str, Any]) -> Config:
    augmentations = ("flip_p", "rotation_p", "affine_p", "tone_p", "noise_p", "blur_p", "coarsen_p", "codec_p")
    plain = dict.fromkeys(augmentations, 0)
    training = {
        "epochs": 16, "batch_size": 16, "learning_rate": 0.01, "ema_decay": 0, "early_stopping": 0, "device": "cpu",
    }  # fmt: skip
    off = {"background_p": 0.0, "erase_p": 0.0, "lesion_p": 0.0}
    own = {"preprocess": {"size": SIDE}, "augment": plain, "shortcuts": off, "training": training}
    return load_config(overrides={name: {**own.get(name, {}), **sections.get(name, {})} for name in {*own, *sections}})


def learned(config: Config, folder: Path, masked: tuple[str, ...] = CLASSES) -> FloatArray:
    """Return the log probabilities (K,) that the network gives to the image after training."""
    torch.manual_seed(0)
    model, data = Tiny(), make_dataset(masked)
    fit(model, data, data.subset(range(0, len(data), 7)), config, RunFolder(folder), Silent(), identity="one")
    with torch.no_grad():
        return model.eval()(data.__getitems__([0]).image).class_logits.double().log_softmax(1)[0].numpy()


def deviation(log_p: FloatArray) -> float:
    """Return the largest deviation of the log odds of two classes from those of the data."""
    return float(np.ptp(log_p - np.log(np.array(COUNTS) / sum(COUNTS))))


RECIPE = {"background_p": 0.25, "erase_p": 0.15, "lesion_p": 0.5}


@pytest.mark.parametrize(
    ("sections", "masked"),
    [
        ({"loss": {"class_weights": "inverse"}}, CLASSES),
        ({"loss": {"class_weights": "effective"}, "training": {"sampling": "class"}}, CLASSES),
        ({"shortcuts": {"lesion_p": 0.5}}, CLASSES),
        ({"shortcuts": RECIPE}, CLASSES),
        ({"shortcuts": RECIPE}, ("COVID",)),
        ({"shortcuts": RECIPE}, ()),
        (
            {
                "shortcuts": RECIPE,
                "loss": {"class_weights": "effective"},
                "training": {"sampling": "class", "sampling_power": 0.5},
            },
            CLASSES,
        ),
    ],
    ids=["weights", "weights and sampling", "opacities", "recipe", "lungs of one class", "no lungs", "all at once"],
)
def test_the_class_shares_of_the_data_are_recovered(
    sections: dict[str, dict[str, Any]], masked: tuple[str, ...], tmp_path: Path
) -> None:
    assert deviation(learned(make_config(**sections), tmp_path, masked)) < ODDS


def test_without_the_correction_they_are_not(tmp_path: Path) -> None:
    """The measure above can fail: weights and opacities move the odds by more than it allows."""
    sections = {"loss": {"class_weights": "inverse", "keep_prior": False}, "shortcuts": RECIPE}
    assert deviation(learned(make_config(**sections), tmp_path)) > 0.5
