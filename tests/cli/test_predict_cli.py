"""``hilum predict``: what it prints, its exit codes, standard input, the formats of its table."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hilum.phantoms.chest import draw_phantom


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom under a name that a spreadsheet would evaluate, and noise that the gate refuses."""
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(draw_phantom(4, "Normal", size=288).image).save(folder / "=good.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (288, 288), np.uint8)).save(folder / "noise.png")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_line_for_each_image(hilum: Callable[..., str], images: Path, tmp_path: Path) -> None:
    printed = hilum("predict", images, "--output", tmp_path / "out").splitlines()
    (table,) = (tmp_path / "out").iterdir()
    good, noise = rows(table)
    assert (good["status"], noise["status"]) == ("ok", "refused")
    assert good["abstained"] in ("0", "1")
    assert noise["predicted_label"] == noise["abstained"] == ""
    line = next(line for line in printed if line.startswith("=good.png"))
    assert good["predicted_label"] in line
    assert ("uncertain" in line) == (good["abstained"] == "1")
    assert any(line.startswith("noise.png") and "refused" in line for line in printed)


def test_json_is_one_line_an_image_and_nothing_else(hilum: Callable[..., str], images: Path, tmp_path: Path) -> None:
    lines = hilum("predict", images, "--output", tmp_path, "--json").splitlines()
    good, noise = map(json.loads, lines)
    assert (good["status"], noise["status"]) == ("ok", "refused")
    assert good["predicted_label"] == max(good["probabilities"], key=good["probabilities"].get)
    assert noise["probabilities"] is None


def test_exit_codes(hilum: Callable[..., str], images: Path, tmp_path: Path) -> None:
    assert hilum("predict", images, "--output", tmp_path, "--quiet") == ""
    hilum("predict", images, "--output", tmp_path, "--strict", code=1)
    hilum("predict", images / "=good.png", "--output", tmp_path, "--strict")
    hilum("predict", images / "noise.png", "--output", tmp_path, code=1)
    hilum("predict", images, "--output", tmp_path, "--quiet", "--json", code=2)


def test_parquet_is_typed_and_the_only_table(hilum: Callable[..., str], images: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    hilum("predict", images, "--output", tmp_path / "out")
    hilum("predict", images, "--output", tmp_path / "out", "--format", "parquet", "--save-masks")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.parquet", "masks"}
    good, noise = parquet.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert Path(good["file"]).name == "=good.png"  # no apostrophe: nothing evaluates it
    assert isinstance(good["prob_Normal"], float)
    assert isinstance(good["abstained"], bool)
    assert noise["prob_Normal"] is noise["abstained"] is None
    hilum("predict", tmp_path / "out", "--output", tmp_path / "again", code=2)  # masks of before are no images


@pytest.mark.slow
def test_names_come_from_standard_input(images: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"a\xff.png")
    odd.write_bytes((images / "=good.png").read_bytes())
    names = b"\n".join(os.fsencode(path) for path in (odd, images / "noise.png")) + b"\n"
    command = [
        sys.executable,
        "-c",
        "from hilum.cli import main; main()",
        "predict",
        "-",
        "--output",
        tmp_path / "out",
        "--quiet",
    ]
    done = subprocess.run(command, input=names, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows(tmp_path / "out" / "predictions.csv")] == ["ok", "refused"]
