"""What a user sees when something is wrong: exit code 2, one message with its hint, and nothing lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

from hilum.config import load_config, save_config
from hilum.phantoms.chest import draw_phantom
from hilum.run_folder import RunFolder

TINY = ("--size", "64", "--epochs", "1", "--batch-size", "8", "--device", "cpu")
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def refused(hilum: Hilum, *arguments: str | Path) -> str:
    """What a command says that must fail as a user can act on: exit code 2, one line that begins with Error."""
    output = hilum(*arguments, code=2)
    assert len([line for line in output.splitlines() if line.startswith("Error: ")]) == 1, output
    return output


def state_of(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file with its size and time of change."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def world(trained_run: RunFolder, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: data, earlier results, and all that can be wrong. A refusal must leave it as it is."""
    here = tmp_path_factory.mktemp("world")
    shutil.copytree(phantoms, here / "data")
    (here / "data" / "metadata.csv").unlink()
    (here / "data" / "Empty" / "images").mkdir(parents=True)
    (here / "nothing").mkdir()
    assert cv2.imwrite(str(here / "image.png"), draw_phantom(0, "Normal", size=256).image)
    for name in ("file", "index.csv", "split.json", "results/predictions.csv", "notes/letter.txt"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("an earlier result")
    damaged = shutil.copytree(trained_run.bundle, here / "damaged")
    content = bytearray((damaged / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "model.onnx").write_bytes(content)
    (here / "unknown-key.toml").write_text("[training]\nepoch = 3\n")
    (here / "syntax.toml").write_text("[training\nepochs = 3\n")
    (here / "range.toml").write_text("[training]\nepochs = 0\n")
    (here / "oldrun").mkdir()
    save_config(load_config(), here / "oldrun" / "config.toml")
    (here / "oldrun" / "last.ckpt").write_text("a state")
    return here


Hilum = Callable[..., str]
Command = Callable[[Path, RunFolder], list[str | Path]]

REFUSALS: dict[str, tuple[Command, str]] = {
    "index, empty folder": (lambda w, r: ["index", w / "nothing", "--output", w / "index.csv"], "class folders"),
    "index, no such folder": (lambda w, r: ["index", w / "absent", "--output", w / "index.csv"], "does not exist"),
    "index, a file": (lambda w, r: ["index", w / "image.png", "--output", w / "index.csv"], "folder or a CSV"),
    "index, unknown class": (
        lambda w, r: ["index", w / "data", "--class", "Covid", "--output", w / "index.csv"],
        "COVID, Lung_Opacity, Normal, Viral Pneumonia",
    ),
    "index, empty class": (
        lambda w, r: ["index", w / "data", "--class", "Empty", "--output", w / "index.csv"],
        "class folder Empty",
    ),
    "index, unwritable": (lambda w, r: ["index", w / "data", "--output", w / "file" / "index.csv"], "Cannot write"),
    "split, one class": (lambda w, r: ["split", w / "index.csv", "--output", w / "split.json"], "`image` column"),
    "split, nothing to train on": (
        lambda w, r: ["split", w / "data", "--test-fraction", "0.9", "--output", w / "split.json"],
        "split.val_fraction + split.test_fraction",
    ),
    "phantom, folder in use": (lambda w, r: ["phantom", w / "notes"], "not an empty folder"),
    "phantom, below a file": (lambda w, r: ["phantom", w / "file" / "x", "--count", "4"], "Cannot write"),
    "train, no data": (lambda w, r: ["train", "--output", w / "new"], "No data to train on"),
    "train, empty folder": (lambda w, r: ["train", w / "nothing", "--dry-run"], "class folders"),
    "train, one class": (
        lambda w, r: ["train", w / "data", "--class", "COVID", "--output", w / "file" / "new"],
        "Cannot write to",
    ),
    "train, unwritable": (lambda w, r: ["train", w / "data", "--output", w / "file"], "Cannot write to"),
    "train, folder holds a run": (lambda w, r: ["train", w / "data", "--output", w / "oldrun"], "--resume"),
    "train, unknown key": (
        lambda w, r: ["train", w / "data", "--config", w / "unknown-key.toml", "--output", w / "new"],
        "did you mean `training.epochs`",
    ),
    "train, TOML syntax": (
        lambda w, r: ["train", w / "data", "--config", w / "syntax.toml", "--output", w / "new"],
        "not valid TOML",
    ),
    "train, value out of range": (
        lambda w, r: ["train", w / "data", "--config", w / "range.toml", "--output", w / "new"],
        "`training.epochs`",
    ),
    "train, flag out of range": (lambda w, r: ["train", w / "data", "--size", "50"], "`preprocess.size`"),
    "train, no such file": (lambda w, r: ["train", w / "data", "--config", w / "absent.toml"], "No such file"),
    "train, unknown device": (lambda w, r: ["train", w / "data", "--dry-run", "--device", "tpu"], "'tpu'"),
    "train, folder holds a finished run": (
        lambda w, r: ["train", w / "data", "--output", r.root],
        "finished run",
    ),
    "train, unknown class": (
        lambda w, r: ["train", w / "data", "--class", "Covid", "--output", w / "new", "--dry-run"],
        "Covid",
    ),
    "train, absent folder": (lambda w, r: ["train", w / "absent", "--dry-run"], "absent"),
    "train, resume no run": (lambda w, r: ["train", "--resume", w / "notes"], "config.toml"),
    "train, resume and more": (lambda w, r: ["train", "--resume", w / "oldrun", "--epochs", "9"], "--resume continues"),
    "evaluate, no run": (lambda w, r: ["evaluate", w / "notes"], "config.toml"),
    "export, no run": (lambda w, r: ["export", w / "notes"], "config.toml"),
    "export, not trained": (lambda w, r: ["export", w / "oldrun"], "trained weights"),
    "export, over something else": (
        lambda w, r: ["export", r.root, "--output", w / "notes"],
        "is not a hilum bundle",
    ),
    "export, below a file": (lambda w, r: ["export", r.root, "--output", w / "file" / "b.hilum"], "Cannot write"),
    "export, opset": (lambda w, r: ["export", r.root, "--opset", "9", "--output", w / "new"], "opset of 11 to 23"),
    "import, no checkpoint": (lambda w, r: ["import-checkpoint", w / "image.png", "--output", w / "new"], "image.png"),
    "import, absent": (lambda w, r: ["import-checkpoint", w / "absent.pth", "--output", w / "new"], "absent.pth"),
    "predict, empty folder": (
        lambda w, r: ["predict", w / "nothing", "--bundle", r.bundle, "--output", w / "results"],
        "No images found in",
    ),
    "predict, directory named as a file": (
        lambda w, r: ["predict", w / "data" / "Empty", "--bundle", r.bundle, "--output", w / "results"],
        "No images found in",
    ),
    "predict, absent": (
        lambda w, r: ["predict", w / "absent.png", "--bundle", r.bundle, "--output", w / "results"],
        "absent.png",
    ),
    "predict, no bundle": (
        lambda w, r: ["predict", w / "image.png", "--bundle", w / "notes", "--output", w / "results"],
        "is not a bundle",
    ),
    "predict, bundle is an image": (
        lambda w, r: ["predict", w / "image.png", "--bundle", w / "image.png", "--output", w / "results"],
        "a zip",
    ),
    "predict, changed byte": (
        lambda w, r: ["predict", w / "image.png", "--bundle", w / "damaged", "--output", w / "results"],
        "was changed",
    ),
    "predict, unwritable": (
        lambda w, r: ["predict", w / "image.png", "--bundle", r.bundle, "--output", w / "file"],
        "Cannot write",
    ),
    "predict, below a file": (
        lambda w, r: ["predict", w / "image.png", "--bundle", r.bundle, "--output", w / "file" / "x"],
        "Cannot write",
    ),
    "predict, unknown device": (
        lambda w, r: ["predict", w / "image.png", "--bundle", r.bundle, "--device", "npu", "--output", w / "results"],
        "'npu'",
    ),
    "predict, run without a bundle": (
        lambda w, r: ["predict", w / "image.png", "--bundle", w / "oldrun", "--output", w / "results"],
        "hilum export",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_names_what_is_wrong_and_loses_nothing(
    hilum: Hilum, case: str, world: Path, trained_run: RunFolder
) -> None:
    command, said = REFUSALS[case]
    before = state_of(world, trained_run.root)
    output = refused(hilum, *command(world, trained_run))
    assert said in output
    assert state_of(world, trained_run.root) == before


@no_cuda
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["train", "data", "--dry-run", "--device", "cuda", "--size", "64"], "CUDA device"),
        (["predict", "image.png", "--backend", "pytorch", "--device", "cuda", "--output", "results"], "device cuda"),
        (["predict", "image.png", "--backend", "onnxruntime", "--device", "cuda", "--output", "results"], "cuda"),
        (["predict", "image.png", "--device", "cuda:1", "--output", "results"], "cuda:1"),
    ],
)
def test_cuda_where_there_is_none(
    hilum: Hilum, command: list[str], said: str, world: Path, trained_run: RunFolder
) -> None:
    before = state_of(world, trained_run.root)
    names = {"data", "image.png", "results"}
    words = [world / word if word in names else word for word in command]
    output = refused(hilum, *words, *(["--bundle", trained_run.bundle] if command[0] == "predict" else []))
    assert re.search(said, output)
    assert "cpu" in output  # the hint
    assert state_of(world, trained_run.root) == before


def test_one_class_is_too_few_to_train_on(hilum: Hilum, world: Path, tmp_path: Path) -> None:
    assert "at least 2 classes" in refused(
        hilum, "train", world / "data", "--class", "COVID", "--output", tmp_path / "run", *TINY
    )
