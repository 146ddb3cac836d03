"""The bundle inside the package: what its name means, that each command takes it, and that the wheel carries it."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import pytest
from torch import nn
from typer.testing import CliRunner

from hilum.bundle import default as default_bundle
from hilum.bundle.bundle import MODEL_CARD, ONNX_MODEL, Manifest, load_bundle, write_bundle
from hilum.bundle.default import resolve_bundle
from hilum.cli import app
from hilum.config import ModelConfig, PreprocessSpec, load_config, save_config
from hilum.errors import BundleError
from hilum.export.onnx import export_onnx
from hilum.phantoms.chest import draw_phantom
from hilum.types import ModelOutput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGED = ROOT / "src" / "hilum" / "default_model"
SPEC = PreprocessSpec(size=32)


class Small(nn.Module):
    """Lung where it is bright; the first class wherever there is any light."""

    def forward(self, image):  # type: ignore[no-untyped-def]
        light = image.mean((2, 3))
        return ModelOutput(image - 0.5, (light * light.new_tensor([[1.0, -1.0]])))


def make_bundle(path: Path, name: str) -> Path:
    manifest = Manifest(name=name, class_names=("COVID", "Normal"), preprocess=SPEC, model=ModelConfig())
    write_bundle(path, manifest, {ONNX_MODEL: export_onnx(Small(), SPEC), MODEL_CARD: b"# A card\n"})
    return path


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle in the place of the one that comes with hilum; the working folder is an empty one."""
    folder = make_bundle(tmp_path / "package" / "default_model", "shipped")
    monkeypatch.setattr(default_bundle, "_FOLDER", folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture
def radiograph(tmp_path: Path) -> Path:
    assert cv2.imwrite(str(tmp_path / "radiograph.png"), draw_phantom(0, "Normal", size=64).image)
    return tmp_path / "radiograph.png"


def test_the_folder_lies_in_the_package() -> None:
    assert default_bundle._FOLDER == PACKAGED


def test_the_word_is_the_packaged_bundle_and_a_path_is_a_path(packaged: Path) -> None:
    assert resolve_bundle("default") == packaged
    assert resolve_bundle("runs/first/bundle") == Path("runs/first/bundle")
    assert resolve_bundle(Path("model.hilum")) == Path("model.hilum")


def test_a_folder_of_the_users_called_default_is_reached_with_a_dot(packaged: Path) -> None:
    make_bundle(Path("default"), "mine")
    assert load_bundle(resolve_bundle("default")).manifest.name == "shipped"
    assert load_bundle(resolve_bundle("./default")).manifest.name == "mine"
    assert load_bundle(resolve_bundle(Path("default"))).manifest.name == "mine"


def test_nothing_is_the_packaged_bundle(packaged: Path) -> None:
    assert resolve_bundle() == resolve_bundle(None) == packaged


@pytest.mark.parametrize("kind", [str, Path])
def test_a_runs_folder_is_taken_for_its_bundle(packaged: Path, kind: type) -> None:
    Path("run").mkdir()
    save_config(load_config(), Path("run/config.toml"))
    with pytest.raises(BundleError, match="run") as caught:
        resolve_bundle(kind("run"))
    assert caught.value.hint.endswith("hilum export run")
    make_bundle(Path("run/bundle"), "of the run")
    assert resolve_bundle(kind("run")) == Path("run/bundle")
    assert load_bundle(resolve_bundle(kind("run"))).manifest.name == "of the run"


def test_a_bundle_in_a_folder_with_a_config_is_itself(packaged: Path) -> None:
    make_bundle(Path("mine"), "mine")
    Path("mine/config.toml").touch()
    assert resolve_bundle("mine") == Path("mine")


def test_an_install_without_a_bundle_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "default_model").mkdir()  # as an interrupted build may leave it
    monkeypatch.setattr(default_bundle, "_FOLDER", tmp_path / "default_model")
    with pytest.raises(BundleError, match="no packaged model") as caught:
        resolve_bundle("default")
    assert "hilum export RUN" in caught.value.hint
    assert "./default" in caught.value.hint
    assert resolve_bundle("other") == Path("other")


@pytest.mark.parametrize("words", [[], ["--bundle", "default"]])
def test_predict_uses_it_when_no_bundle_is_named(packaged: Path, radiograph: Path, words: list[str]) -> None:
    result = CliRunner().invoke(app, ["predict", str(radiograph), "--gate", "none", "--output", "out", *words])
    assert result.exit_code == 0, result.output
    header, row = Path("out/predictions.csv").read_text().splitlines()
    assert [name for name in header.split(",") if name.startswith("prob_")] == ["prob_COVID", "prob_Normal"]
    assert f"{radiograph.name},ok,COVID," in row


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "IMAGE"],
        ["info"],
        ["evaluate", "default", "DATA"],
        ["recalibrate", "default", "DATA", "--output", "new.hilum"],
        ["audit", "DATA", "--bundle", "default"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_that_takes_a_bundle_knows_the_name(
    radiograph: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(default_bundle, "_FOLDER", tmp_path / "absent")
    monkeypatch.chdir(tmp_path)
    places = {"IMAGE": str(radiograph), "DATA": str(phantoms)}
    result = CliRunner().invoke(app, [places.get(word, word) for word in words])
    assert result.exit_code == 2, result.output
    assert f"no packaged model at '{tmp_path / 'absent'}'" in result.output


def test_the_wheel_carries_the_folder() -> None:
    """The building itself is in tests/repository/test_lean_install.py."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "default_model/*" in settings["tool"]["setuptools"]["package-data"]["hilum"]


def test_the_packaged_bundle_is_whole_and_small() -> None:
    manifest = load_bundle(PACKAGED).manifest
    network = {"model.onnx", "model-int8.onnx", "model.safetensors", "gate.onnx", "features.npz"}
    assert {*manifest.files} == {*network, "MODEL_CARD.md", "training_hashes.npy", "self_test.npz"}
    assert {name: own.accepted for name, own in manifest.agreement.items()} == {"int8": True, "bf16": True}
    assert (PACKAGED / "training_hashes.npy").stat().st_size <= 500_000
    assert (PACKAGED / "gate.onnx").stat().st_size <= 1_000_000
    assert {file.name for file in PACKAGED.iterdir()} == {"bundle.json", *manifest.files}
    assert sum(file.stat().st_size for file in PACKAGED.iterdir()) <= 21_000_000
