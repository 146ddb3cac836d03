"""`pip install .` without extras, in a clean environment, predicts from a bundle without torch."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from hilum.bundle.bundle import load_bundle
from hilum.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
TRAIN_ONLY = "torch torchvision lightning monai timm kornia segmentation_models_pytorch sklearn matplotlib safetensors"


def _run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    """Run a command, away from this checkout and this environment, and return what it prints; `code` is expected."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    words = [str(part) for part in command]
    result = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    printed = result.stdout + result.stderr
    assert result.returncode == code, f"{words} ended with {result.returncode}\n{printed}"
    return printed


def _copy_project(folder: Path) -> Path:
    """The files a build needs, copied: setuptools writes into the tree it builds."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    return folder


@pytest.fixture(scope="module")
def lean(trained_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment with hilum and its own dependencies only.

    The bundle inside the package is that of ``trained_run``.
    """
    home = tmp_path_factory.mktemp("lean") / "venv"
    project = _copy_project(tmp_path_factory.mktemp("project"))
    packaged = project / "src" / "hilum" / "default_model"
    shutil.rmtree(packaged, ignore_errors=True)
    shutil.copytree(trained_run.bundle, packaged)
    uv = Path(sys.executable).with_name("uv")
    venv.create(home, with_pip=not uv.exists(), symlinks=True)
    python = home / "bin" / "python"
    installer = [uv, "pip", "install", "--python", python] if uv.exists() else [python, "-m", "pip", "install"]
    _run(*installer, "--constraint", ROOT / "constraints.txt", project, cwd=home)
    return home / "bin"


@pytest.mark.slow
def test_only_the_lean_part_is_installed(lean: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    found = _run(lean / "python", "-c", code, "hilum", *TRAIN_ONLY.split(), cwd=tmp_path)
    assert found.strip() == "['hilum']"


@pytest.mark.slow
def test_import_and_help(lean: Path, tmp_path: Path) -> None:
    home = _run(lean / "python", "-c", "import hilum; print(hilum.__file__)", cwd=tmp_path)
    assert Path(home.strip()).is_relative_to(lean.parent)  # the installed package, not this checkout
    assert "predict" in _run(lean / "hilum", "--help", cwd=tmp_path)


@pytest.mark.slow
def test_predicts_from_a_bundle(lean: Path, phantoms: Path, trained_run: RunFolder, tmp_path: Path) -> None:
    image = min((phantoms / "Normal" / "images").iterdir())
    out = tmp_path / "out"
    _run(
        lean / "hilum",
        "predict",
        image,
        "--bundle",
        trained_run.bundle,
        "--gate",
        "none",
        "--output",
        out,
        cwd=tmp_path,
    )
    with (out / "predictions.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    probabilities = {name.removeprefix("prob_"): float(p) for name, p in row.items() if name.startswith("prob_")}
    assert Path(row["file"]).name == image.name
    assert row["reason"] == ""
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert probabilities[row["predicted_label"]] == max(probabilities.values())
    assert 0 <= float(row["lung_fraction"]) <= 1


@pytest.mark.slow
def test_the_wheel_brings_the_default_bundle(
    lean: Path, phantoms: Path, trained_run: RunFolder, tmp_path: Path
) -> None:
    own = load_bundle(trained_run.bundle).manifest
    said = _run(lean / "hilum", "info", "--json", cwd=tmp_path)
    assert json.loads(said)["bundle_id"] == own.bundle_id
    image = min((phantoms / "Normal" / "images").iterdir())
    said = _run(lean / "hilum", "predict", image, "--gate", "none", "--output", tmp_path / "out", cwd=tmp_path)
    assert image.name in said
    assert ",ok," in (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_audits_a_folder_and_says_what_it_left_out(lean: Path, phantoms: Path, tmp_path: Path) -> None:
    """The page needs jinja2 and the templates, which the wheel must bring."""
    printed = _run(lean / "hilum", "audit", phantoms, "--output", tmp_path / "audit", cwd=tmp_path)
    assert "48 of 48 images read" in printed
    assert "not run: probes" in printed
    assert "</html>" in (tmp_path / "audit" / "audit.html").read_text(encoding="utf-8")
    assert (tmp_path / "audit" / "audit.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "recalibrate", "quantize"])
def test_what_needs_the_extra_says_so(
    command: str, lean: Path, phantoms: Path, trained_run: RunFolder, tmp_path: Path
) -> None:
    words: dict[str, list[str | Path]] = {
        "train": [phantoms],
        "evaluate": [trained_run.bundle, phantoms],
        "compare": [trained_run.root, trained_run.root],
        "recalibrate": [trained_run.bundle, phantoms, "--output", "new.hilum"],
        "quantize": [trained_run.bundle, phantoms, "--output", "new.hilum"],
    }
    printed = _run(lean / "hilum", command, *words[command], cwd=tmp_path, code=2)
    assert 'pip install ".[train]"' in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.iterdir())
