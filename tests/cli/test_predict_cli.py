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

from hilum.backends import measure
from hilum.backends.choice import Speed
from hilum.backends.open import Engine
from hilum.cli import predict
from hilum.imaging import reader_pool
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
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "predictions.json"}
    good, noise = rows(tmp_path / "out" / "predictions.csv")
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
    hilum("predict", images / "=good.png", "--output", tmp_path / "good", "--strict")
    hilum("predict", images / "noise.png", "--output", tmp_path / "noise", code=1)
    hilum("predict", images, "--output", tmp_path / "new", "--quiet", "--json", code=2)


def test_a_second_run_goes_on_or_is_refused(hilum: Callable[..., str], images: Path, tmp_path: Path) -> None:
    out = ("--output", tmp_path)
    hilum("predict", images, *out)
    before = (tmp_path / "predictions.csv").stat()
    again = hilum("predict", images, *out)
    assert "2 of 2 images were predicted earlier" in again
    assert "Wrote" not in again
    assert "predictions.csv is complete" in again
    assert (tmp_path / "predictions.csv").stat().st_mtime_ns == before.st_mtime_ns
    assert "--overwrite" in hilum("predict", images, *out, "--gate", "none", code=2)
    hilum("predict", images, *out, "--gate", "none", "--overwrite")
    assert [row["status"] for row in rows(tmp_path / "predictions.csv")] == ["ok", "ok"]


def test_parquet_is_typed_and_the_only_table(hilum: Callable[..., str], images: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    hilum("predict", images, "--output", tmp_path / "out")
    hilum("predict", images, "--output", tmp_path / "out", "--format", "parquet", "--save-masks", "--overwrite")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"predictions.parquet", "predictions.json", "masks"}
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


def test_a_backend_and_a_precision_by_name(hilum: Callable[..., str], images: Path, tmp_path: Path) -> None:
    for backend in ("onnxruntime", "openvino"):
        hilum("predict", images, "--output", tmp_path / backend, "--backend", backend, "--precision", "fp32", "--quiet")
    one, two = (rows(tmp_path / backend / "predictions.csv")[0] for backend in ("onnxruntime", "openvino"))
    names = [name for name in one if name.startswith("prob_")]
    assert [float(one[name]) for name in names] == pytest.approx([float(two[name]) for name in names], abs=1e-4)
    hilum("predict", images, "--output", tmp_path, "--backend", "pytorch", "--precision", "int8", code=2)


def test_engines_are_measured_for_many_images_only(
    hilum: Callable[..., str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    asked: list[float] = []

    def speeds(bundle: object, engines: list[Engine], seconds: float) -> list[Speed]:
        asked.append(seconds)
        return [Speed(*engine, 1.0 if engine.backend == "onnxruntime" else 7.0) for engine in engines]

    monkeypatch.setattr(measure, "measure_speeds", speeds)
    assert "OpenVINO" not in hilum("predict", images, "--output", tmp_path / "few")
    assert asked == []
    monkeypatch.setattr(predict, "_MEASURED", 1)
    assert hilum("predict", images, "--output", tmp_path / "named", "--quiet", "--backend", "onnxruntime") == ""
    assert asked == []
    assert "OpenVINO, fp32" in hilum("predict", images, "--output", tmp_path / "many")
    assert "OpenVINO" not in hilum("predict", images, "--output", tmp_path / "again")  # chosen before
    assert asked == [measure.SECONDS]


def test_the_engine_of_an_earlier_run_is_named(hilum: Callable[..., str], images: Path, tmp_path: Path) -> None:
    """Trap: hilum bench chose another engine, and --backend auto could not resume."""
    out, words = ["--output", tmp_path / "out"], ["--backend", "openvino", "--precision", "int8"]
    hilum("predict", images, *out, "--backend", "onnxruntime", "--precision", "fp32", "--quiet")
    refused = hilum("predict", images, *out, *words, code=2)
    assert "Resume it with --backend onnxruntime --precision fp32." in refused
    hilum("predict", images, *out, "--backend", "onnxruntime", "--precision", "fp32")
    assert "--precision" not in hilum("predict", images, *out, "--backend", "openvino", "--precision", "fp32", code=2)
    both = hilum("predict", images, *out, *words, "--batch-size", "4", code=2)
    assert "Resume" not in both  # it would be refused again
    assert "--overwrite" in both


@pytest.mark.parametrize(
    "ignored",
    [
        ["--ray-address", "head:6379"], ["--workers", "2"], ["--cpus-per-worker", "1"], ["--gpus-per-worker", "0"],
        ["--image-columns"], ["--shard-rows", "1000"], ["--shard-rows", "5", "--format", "csv"],
        ["--engine", "ray", "--format", "csv"], ["--engine", "ray", "--json"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_option_that_would_be_ignored_is_refused(
    hilum: Callable[..., str], images: Path, tmp_path: Path, ignored: list[str]
) -> None:
    printed = hilum("predict", images, "--output", tmp_path / "out", *ignored, code=2)
    assert ignored[-2 if len(ignored) % 2 == 0 else -1].removeprefix("--") in printed
    assert not (tmp_path / "out").exists()


def test_a_file_whose_decoding_does_not_end_is_refused_by_name(
    hilum: Callable[..., str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a child process, which is killed; the other images are predicted."""
    hang = "import hilum.imaging.reader_pool as pool\nread = pool._READERS['radiograph']\n"
    hang += "def hostile(content, origin, max_pixels):\n    while 'slow' in origin: pass\n"
    hang += "    return read(content, origin=origin, max_pixels=max_pixels)\npool._READERS['radiograph'] = hostile\n"
    monkeypatch.setattr(reader_pool, "_CHILD", hang + reader_pool._CHILD)
    monkeypatch.setitem(reader_pool.ReaderPool.__init__.__kwdefaults__, "seconds", 1.0)
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("slow.tif", "whole.tif"):
        Image.open(images / "=good.png").save(folder / name, compression="tiff_lzw")
    hilum("predict", folder, images / "=good.png", "--output", tmp_path / "out", "--quiet")
    slow, whole, png = rows(tmp_path / "out" / "predictions.csv")
    assert (slow["status"], whole["status"], png["status"]) == ("unreadable", "ok", "ok")
    assert "slow.tif takes more than 1 s" in slow["reason"]
    assert float(whole["prob_Normal"]) == pytest.approx(float(png["prob_Normal"]), abs=1e-6)
    verdicts = hilum("gate", folder)
    assert verdicts.count("takes more than 1 s") == 1
