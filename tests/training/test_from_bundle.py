"""Fine-tuning: which weights and settings come from the bundle, and what the user may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from hilum.bundle.bundle import WEIGHTS, Manifest, write_bundle
from hilum.bundle.card import model_card
from hilum.config import Config, ModelConfig, PreprocessSpec, load_config, save_config
from hilum.errors import BundleError, CheckpointError, ConfigError
from hilum.export.onnx import round_weights
from hilum.models.build import build_model
from hilum.run_folder import RunFolder
from hilum.training import from_bundle
from hilum.training.from_bundle import (
    FINETUNING,
    Start,
    load_from_bundle,
    read_start,
    settings_from_bundle,
    starting_weights,
)

SPEC = PreprocessSpec(size=64, channels=3, fit="stretch")
THEIRS = ("COVID", "Lung_Opacity", "Normal")
NETWORKS = ["evidence", "encoder-unet", "unet"]


def model_config(name: str = "encoder-unet") -> ModelConfig:
    small = {"encoder": "mobilenetv3_small_050", "decoder_channels": (16, 8, 8, 4, 4)}
    return ModelConfig.model_validate({"name": name, "dropout": 0.3, **({} if name == "unet" else small)})


def network(config: ModelConfig, classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config, SPEC, classes)


def bundle(folder: Path, name: str = "encoder-unet", *, half: bool = False, sources: tuple[str, ...] = ()) -> Path:
    config = model_config(name)
    model = network(config, len(THEIRS))
    state = round_weights(model) if half else model.state_dict()
    manifest = Manifest(name="theirs", class_names=THEIRS, preprocess=SPEC, model=config, sources=sources)
    write_bundle(folder / "bundle", manifest, {WEIGHTS: save(state)})
    return folder / "bundle"


def settings(path: Path, **overrides: Any) -> Config:
    return settings_from_bundle(str(path), "default", None, overrides)


# Weights


@pytest.mark.parametrize("name", NETWORKS)
def test_class_parameters_are_all_that_the_number_of_classes_shapes(name: str) -> None:
    three, five = (network(model_config(name), classes).state_dict() for classes in (3, 5))
    named: tuple[str, ...] = network(model_config(name), 2).class_parameters  # type: ignore[assignment]
    assert set(named) == {key for key in three if three[key].shape != five[key].shape}
    assert all(five[key].shape == (5, *three[key].shape[1:]) for key in named)


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_follow_their_names_and_all_else_is_the_bundles(tmp_path: Path, name: str) -> None:
    path = bundle(tmp_path, name)
    theirs = network(model_config(name), 3).state_dict()
    model = network(model_config(name), 3, seed=1)
    drawn = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    start = load_from_bundle(model, settings(path), ("Normal", "Tuberculosis", "COVID"))
    found = model.state_dict()
    per_class: tuple[str, ...] = model.class_parameters  # type: ignore[assignment]
    for key, tensor in found.items():
        if key in per_class:
            assert torch.equal(tensor[0], theirs[key][2])
            assert torch.equal(tensor[1], drawn[key][1])
            assert torch.equal(tensor[2], theirs[key][0])
        else:
            assert torch.equal(tensor, theirs[key])
    assert not torch.equal(drawn[per_class[0]], theirs[per_class[0]])
    assert (start.classes_kept, start.classes_new) == (("Normal", "COVID"), ("Tuberculosis",))


def test_classes_that_are_all_new_keep_their_drawn_rows(tmp_path: Path) -> None:
    model = network(model_config(), 2, seed=1)
    drawn = model.state_dict()["classifier.weight"].clone()
    start = load_from_bundle(model, settings(bundle(tmp_path)), ("a", "b"))
    assert torch.equal(model.state_dict()["classifier.weight"], drawn)
    assert (start.classes_kept, start.classes_new) == ((), ("a", "b"))


def test_half_stored_weights_become_float32(tmp_path: Path) -> None:
    path = bundle(tmp_path, half=True)
    rounded = network(model_config(), 3)
    state = round_weights(rounded)
    assert torch.float16 in {tensor.dtype for tensor in state.values()}
    model = network(model_config(), 3, seed=1)
    load_from_bundle(model, settings(path), THEIRS)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, rounded.state_dict()[key])


def test_weights_that_are_not_the_networks_are_a_checkpoint_error(tmp_path: Path) -> None:
    other = model_config().model_copy(update={"decoder_channels": (8, 8, 8, 4, 4)})
    manifest = Manifest(name="false", class_names=THEIRS, preprocess=SPEC, model=model_config())
    write_bundle(tmp_path / "bundle", manifest, {WEIGHTS: save(network(other, 3).state_dict())})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_from_bundle(network(model_config(), 2), settings(tmp_path / "bundle"), ("a", "b"))


# Settings


def test_network_and_preprocessing_are_the_bundles(tmp_path: Path) -> None:
    config = settings(bundle(tmp_path))
    assert config.model == model_config()
    assert config.preprocess == SPEC
    usual = load_config()
    assert config.training.learning_rate == FINETUNING["training"]["learning_rate"] < usual.training.learning_rate
    assert config.training.epochs == FINETUNING["training"]["epochs"] < usual.training.epochs
    assert config.training.ema_decay == usual.training.ema_decay
    assert config.augment == usual.augment


def test_help_tells_the_settings_of_fine_tuning() -> None:
    told = type(Config().training).model_fields["from_bundle"].description or ""
    assert f"{FINETUNING['training']['epochs']} epochs" in told
    assert f"learning rate of {FINETUNING['training']['learning_rate']:.0e}".replace("e-0", "e-") in told


def test_the_users_settings_go_first(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nepochs = 3\nlearning_rate = 0.5\n[preprocess]\nsize = 96\n")
    path = bundle(tmp_path)
    overrides = {"training": {"learning_rate": 0.25}, "model": {"dropout": 0.5}}
    config = settings_from_bundle(str(path), "default", file, overrides)
    assert (config.training.epochs, config.training.learning_rate) == (3, 0.25)
    assert config.preprocess == SPEC.model_copy(update={"size": 96})
    assert config.model == model_config().model_copy(update={"dropout": 0.5})
    load_from_bundle(network(config.model, 2), config, ("Normal", "b"))  # neither stands in the way of the weights


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"model": {"name": "unet"}}, "model.name is unet, in the bundle encoder-unet"),
        ({"model": {"encoder": "resnet18"}}, "model.encoder is resnet18"),
        ({"model": {"pretrained": False}}, "model.pretrained is false, in the bundle true"),
        (
            {"preprocess": {"channels": 1, "fit": "pad"}},
            "channels is 1, in the bundle 3; preprocess.fit is pad",
        ),
    ],
)
def test_settings_that_contradict_the_bundle_are_refused(tmp_path: Path, overrides: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        settings(bundle(tmp_path), **overrides)
    assert "--from-bundle" in caught.value.hint


def test_another_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--preset original"):
        settings_from_bundle(str(bundle(tmp_path)), "original", None, {})


def test_a_configuration_of_another_network_is_refused_when_weights_are_loaded(tmp_path: Path) -> None:
    config = load_config(overrides={"training": {"from_bundle": str(bundle(tmp_path))}})
    with pytest.raises(ConfigError, match="contradict the bundle theirs"):
        load_from_bundle(network(model_config(), 2), config, ("a", "b"))


def test_a_path_becomes_absolute_and_default_stays_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundle(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert settings(Path("bundle")).training.from_bundle == str(path)
    asked = []
    monkeypatch.setattr(from_bundle, "resolve_bundle", lambda name: asked.append(name) or path)
    config = settings_from_bundle("default", "default", None, {})
    assert config.training.from_bundle == "default"
    assert asked == ["default"]
    save_config(config, tmp_path / "config.toml")
    assert load_config("original", tmp_path / "config.toml") == config


def test_no_bundle_there_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        settings(tmp_path / "absent")


# What the run keeps


def test_a_run_with_a_state_does_not_read_the_bundle_again(tmp_path: Path) -> None:
    path, run = bundle(tmp_path, sources=("nih", "kermany")), RunFolder(tmp_path / "run")
    config = settings(path)
    origin = starting_weights(network(model_config(), 2), config, ("Normal", "b"), run)
    start = read_start(run)
    assert start is not None
    assert (start.name, start.sources, start.classes_kept) == ("theirs", ("nih", "kermany"), ("Normal",))
    assert origin == f"those of bundle {start.bundle_id[:12]} (theirs)"
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError):  # no epoch was trained: the weights are needed
        starting_weights(network(model_config(), 2), config, ("Normal", "b"), run)
    run.state.touch()
    assert starting_weights(network(model_config(), 2), config, ("Normal", "b"), run) == origin
    assert read_start(run) == start


def test_what_a_failed_attempt_started_from_is_forgotten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    starting_weights(network(model_config(), 2), settings(bundle(tmp_path)), ("a", "b"), run)
    plain = load_config(overrides={"model": {"pretrained": False}})
    assert starting_weights(network(model_config(), 2), plain, ("a", "b"), run) is None
    assert read_start(run) is None


def test_the_card_says_what_it_started_from() -> None:
    manifest = Manifest(name="mine", class_names=("a", "Normal"), preprocess=SPEC, model=model_config())
    facts = {"images": None, "masks": None, "sources": {}, "epoch": 3, "pretrained": "those of bundle 0123"}
    start = Start("0123456789", "theirs", ("Normal",), ("a",), ("nih",))
    line = (
        "Started from bundle 0123456789 (theirs), classes kept: Normal, new: a. Its own training images came from: nih"
    )
    assert line in model_card(manifest, {**facts, "started_from": start})
    assert "Started from" not in model_card(manifest, facts)
