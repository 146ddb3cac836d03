"""A bundle's card says what the bundle is, in the words that all cards share."""

from __future__ import annotations

import pytest

from hilum.bundle.bundle import Manifest
from hilum.bundle.card import CANNOT_TELL, NOT_A_DEVICE, SAME_SOURCES, model_card, network_name
from hilum.config import ModelConfig, PreprocessSpec

FACTS = {
    "images": {"train": 1700, "val": 20, "test": 30}, "masks": None, "sources": {"hospital": 1750}, "epoch": 7,
    "pretrained": None,
}  # fmt: skip


def _manifest(name: str) -> Manifest:
    figure = {
        "metric": "accuracy",
        "class_name": None,
        "source": None,
        "value": 0.75,
        "low": 0.5,
        "high": 0.875,
        "n": 30,
    }
    return Manifest(
        name="a run",
        class_names=("COVID", "Normal"),
        preprocess=PreprocessSpec(size=64),
        model=ModelConfig(name=name),  # type: ignore[arg-type]
        metrics={"test": [figure, {**figure, "source": "hospital"}]},
    )


@pytest.mark.parametrize("name", ["evidence", "encoder-unet", "unet"])
def test_the_network_is_named_as_it_is(name: str) -> None:
    encoder = ModelConfig().encoder
    expected = "unet" if name == "unet" else f"{name}, {encoder}"
    assert network_name(name, encoder) == expected
    assert f"- Network: {expected}; input 1 x 64 x 64, pad" in model_card(_manifest(name), FACTS)


def test_the_card_counts_measures_and_warns() -> None:
    card = model_card(_manifest("unet"), FACTS)
    assert "- Images (train / val / test): 1,700 / 20 / 30; lung masks: unknown" in card
    assert "- Sources of the images: hospital (1,750)" in card
    assert "encoder weights at the start: random" in card
    assert card.count("| accuracy | 0.750 | 0.500–0.875 | 30 |") == 1
    assert "## Calibration" not in card
    for sentence in (NOT_A_DEVICE, SAME_SOURCES, CANNOT_TELL):
        assert sentence in card
