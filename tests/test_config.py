"""The configuration: presets, layers, TOML there and back, and what is said about a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hilum.config import Config, load_config, parse_settings, save_config
from hilum.errors import ConfigError


def test_the_original_preset_is_the_original_project() -> None:
    config = load_config("original")
    assert config.model.name == "unet"
    assert config.preprocess.model_dump() == {"size": 256, "channels": 3, "fit": "stretch"}
    assert (config.split.val_fraction, config.split.test_fraction, config.split.seed) == (0.15, 0.15, 42)
    changes = config.augment
    assert (changes.flip_p, changes.rotation_degrees, changes.rotation_p) == (0.5, 10, 0.3)
    assert (changes.noise_std, changes.noise_p, changes.affine_p, changes.tone_p) == (5 / 255, 0.5, 0, 0)
    assert (config.loss.segmentation_weight, config.loss.classification_weight) == (1, 2)
    training = config.training
    assert (training.epochs, training.batch_size) == (100, 16)
    assert (training.learning_rate, training.weight_decay) == (1e-4, 1e-4)
    assert (training.schedule, training.plateau_factor, training.plateau_patience) == ("plateau", 0.5, 15)
    assert (training.min_learning_rate, training.clip_norm, training.checkpoint_every) == (1e-7, 1.0, 20)
    assert (training.ema_decay, training.early_stopping) == (0, 0)


def test_the_default_preset() -> None:
    config = load_config()
    assert config.model.name == "evidence"
    assert config.augment.flip_p == 0.5
    assert min(config.shortcuts.background_p, config.shortcuts.erase_p, config.shortcuts.lesion_p) > 0
    assert config.augment.affine_p > 0
    assert config.preprocess.channels == 1
    assert config.training.early_stopping > 0
    assert config.training.ema_decay > 0


@pytest.mark.parametrize("preset", ["default", "original"])
def test_toml_there_and_back_gives_the_same(preset: Any, tmp_path: Path) -> None:
    config = load_config(
        preset,
        overrides={
            "data": Path("some/Röntgen"),
            "classes": ["Normal", "Viral Pneumonia"],
            "model": {"decoder_channels": [16, 8, 8, 4, 4], "encoder_weights": Path("a.safetensors")},
            "augment": {"noise_std": 1 / 3},
        },
    )
    save_config(config, tmp_path / "config.toml")
    for base in ("default", "original"):  # the file is whole, so it does not matter which preset it changes
        assert load_config(base, tmp_path / "config.toml") == config  # type: ignore[arg-type]
    assert "Röntgen" in (tmp_path / "config.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", ["default", "original"])
def test_what_is_none_stays_none_over_toml(preset: Any, tmp_path: Path) -> None:
    config = load_config(preset)
    save_config(config, tmp_path / "config.toml")
    again = load_config("original", tmp_path / "config.toml")
    assert again == config
    assert again.model.encoder_weights is None
    assert again.classes is None


def test_flags_go_before_the_file_and_the_file_before_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nepochs = 7\nbatch_size = 3\n[augment]\nflip_p = 0.25\n")
    config = load_config("original", path, {"training": {"batch_size": 5}})
    assert config.training.batch_size == 5
    assert config.training.epochs == 7
    assert config.augment.flip_p == 0.25
    assert config.training.learning_rate == 1e-4  # of the preset, untouched by the layers beside it
    assert config.model.name == "unet"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[training]\nepoch = 3\n", "unknown setting `training.epoch`, did you mean `training.epochs`?"),
        ("[trainig]\nepochs = 3\n", "unknown setting `trainig.epochs`, did you mean `training.epochs`?"),
        ("[training]\nepochs = 0\n", "`training.epochs`"),
        ("[training]\nepochs = 'many'\n", "'many'"),
        ("[preprocess]\nsize = 100\n", "`preprocess.size`"),
        ("[preprocess]\nchannels = 2\n", "`preprocess.channels`"),
        ("[augment]\nflip_p = 1.5\n", "1.5"),
        ("[model]\nname = 'vit'\n", "`model.name`"),
        ("[split]\nval_fraction = 0.6\ntest_fraction = 0.4\n", "split.val_fraction + split.test_fraction"),
        ("[loss]\nsegmentation_weight = 0\nclassification_weight = 0\n", "above 0"),
        ("training = 3\n", "`training`"),
    ],
)
def test_a_bad_setting_is_named_with_its_file(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config("default", path)
    assert named in caught.value.message
    assert "bad.toml" in caught.value.message


def test_a_file_is_not_blamed_for_what_overrides_it(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text("[training]\nepochs = 3\n")
    with pytest.raises(ConfigError) as caught:
        load_config("default", path, {"training": {"epochs": 0}})
    assert "`training.epochs`" in caught.value.message
    assert "good.toml" not in caught.value.message


def test_names_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text("[split]\nsplit_seed = 7\n[shortcuts]\nlocalisation_weight = 0.5\n")
    config = load_config("default", path)
    assert (config.split.seed, config.shortcuts.localization_weight) == (7, 0.5)


def test_assignments_are_nested_as_in_toml() -> None:
    found = parse_settings(["training.epochs=3", "training.epochs = 4", "model.encoder_weights=none", "a.b=c=d"])
    assert found == {"training": {"epochs": "4"}, "model": {"encoder_weights": None}, "a": {"b": "c=d"}}
    loss = parse_settings(["loss.class_weights=none"])
    assert load_config(overrides=loss).loss.class_weights == "none"  # a choice of this name, not None


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("threads", "auto", "auto"), ("threads", "3", 3), ("threads", "0", 0), ("channels_last", "auto", "auto"),
        ("channels_last", "false", False), ("compile", "true", True), ("precision", "auto", "auto"),
    ],
)  # fmt: skip
def test_a_setting_that_is_measured_may_be_set(key: str, text: str, value: object, tmp_path: Path) -> None:
    config = load_config(overrides=parse_settings([f"training.{key}={text}"]))
    assert getattr(config.training, key) == value
    assert type(getattr(config.training, key)) is type(value)
    save_config(config, tmp_path / "config.toml")
    assert load_config("original", tmp_path / "config.toml") == config


def test_a_bad_value_of_a_measured_setting_is_named_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"training": {"threads": -1, "channels_last": "perhaps"}})
    assert str(caught.value).count("`training.threads`: expected auto or integer >= 0, got -1") == 1
    assert str(caught.value).count("`training.channels_last`: expected auto or true or false, got 'perhaps'") == 1


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"training": {"epochs": -1, "color": "red"}})
    assert "`training.epochs`" in str(caught.value)
    assert "unknown setting `training.color`" in str(caught.value)


@pytest.mark.parametrize("content", [b"[training\nepochs = 3", b"\xff\xfe\x00", b"a = \x80"])
def test_a_file_that_is_no_toml(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_config(path=path)


def test_a_file_that_is_absent_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(path=tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"[Dd]irectory"):
        load_config(path=tmp_path)


def test_settings_cannot_be_changed_afterwards() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.training.epochs = 3  # type: ignore[misc]
