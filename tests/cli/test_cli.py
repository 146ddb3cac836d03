"""The command line: the whole chain, and what a user sees when something is wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hilum._version import __version__
from hilum.bundle.bundle import load_bundle
from hilum.cli.app import COMMANDS
from hilum.evaluation.results import load_report
from hilum.phantoms.chest import draw_phantom
from hilum.run_folder import RunFolder

HEAVY = ("torch", "numpy", "pydantic", "cv2", "onnxruntime", "pydicom", "PIL", "rich")
TINY = ("--size", "64", "--epochs", "1", "--batch-size", "8", "--device", "cpu")

Hilum = Callable[..., str]


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    """The rows of predictions.csv by the file's name."""
    with table.open(newline="", encoding="utf-8") as stream:
        return {Path(row["file"]).name: row for row in csv.DictReader(stream)}


def state_of(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file with its size and time of change."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def image(path: Path, seed: int = 0, size: int = 256) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), draw_phantom(seed, "Normal", size=size).image)
    return path


def write_odd_files(folder: Path) -> None:
    """One file of each kind that real folders hold, made of a good image."""
    good = image(folder / "good.png", seed=1)
    (folder / "truncated.png").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "text.jpg").write_text("Dear colleague, please find the image enclosed.")
    (folder / "empty.png").touch()
    pixels = draw_phantom(2, "Normal", size=256).image
    assert cv2.imwrite(str(folder / "one-pixel.png"), np.full((1, 1), 90, np.uint8))
    assert cv2.imwrite(str(folder / "sixteen-bit.png"), pixels.astype(np.uint16) * 257)
    Image.fromarray(pixels).convert("RGBA").save(folder / "rgba.png")
    Image.fromarray(pixels).convert("RGB").convert("CMYK").save(folder / "cmyk.jpg", quality=95)


# Help


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from hilum.cli import main\n"
        "try: main()\n"
        f"finally: print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert {*re.findall(r"^\W*([a-z-]+) {2,}", done.stdout, re.MULTILINE)} >= set(COMMANDS)
    assert "not a medical device" in done.stdout


def test_version(hilum: Hilum) -> None:
    assert hilum("--version").strip() == f"hilum {__version__}"


def test_a_missing_option_is_a_usage_error(hilum: Hilum) -> None:
    assert "--output" in hilum("recalibrate", "bundle", "images", code=2)


def test_the_installed_command_ends_with_2_and_one_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from hilum.cli import main; main()", "index", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: No class folders")
    assert "Traceback" not in done.stderr


def test_an_interrupt_is_one_line(hilum: Hilum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*inputs: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hilum.data.find_remote.find_inputs", interrupt)  # by name: what imports it keeps it
    assert "Interrupted" in hilum("predict", tmp_path, "--bundle", tmp_path, code=130)


@pytest.mark.parametrize(
    "words",
    [
        ["predict", ""], ["predict", "a.png", ""], ["gate", ""], ["index", ""], ["split", ""], ["train", ""],
        ["audit", ""], ["evaluate", "default", ""], ["evaluate", ""], ["recalibrate", "default", ""],
        ["compare", "", ""],
        ["predict", "a.png", "--out", ""], ["predict", "a.png", "--out="], ["index", ".", "--out="], ["info", ""],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_word_is_not_the_current_folder(
    hilum: Hilum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(b"an image")
    assert hilum(*words, code=2).startswith("Error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# The chain


@pytest.mark.slow
def test_from_phantoms_to_predictions(hilum: Hilum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, run = tmp_path / "data", tmp_path / "run"
    assert "40 radiographs" in hilum("phantom", data, "--count", "40")
    assert "Wrote index.csv" in hilum("index", data)
    assert "Wrote split.json" in hilum("split", "index.csv", "--seed", "7")
    before = state_of(tmp_path)
    planned = hilum("train", "index.csv", "--dry-run", "--split-file", "split.json", *TINY)
    assert "Classes: COVID, Lung_Opacity, Normal, Viral Pneumonia" in planned
    assert "Nothing was written." in planned
    assert state_of(tmp_path) == before
    trained = hilum("train", "index.csv", "--output", run, "--split-file", "split.json", *TINY)
    assert f"Next: hilum predict FILES --bundle {run}/bundle" in trained
    assert "epoch   1/1" in trained
    digest = json.loads(Path("split.json").read_text())["digest"]
    assert json.loads((run / "split.json").read_text())["digest"] == digest
    assert load_bundle(run / "bundle").manifest.split_digest == digest
    printed = hilum("evaluate", run, "--split", "val", "--resamples", "100")
    assert printed.splitlines()[1].startswith("val split: ")
    assert f"Report in {run}/val/report.html" in printed
    for split in ("test", "val"):  # the first is train's own
        left = {path.name for path in (run / split).iterdir()}
        assert left >= {"report.json", "report.html", "evaluation.json", "predictions.csv", "plots"}
        report = load_report(run / split / "report.json")
        assert (report.split.name, report.split.digest) == (split, digest)
    assert "labels equal in 100%" in hilum("export", run, "--output", "model.hilum", "--name", "Demo")
    assert load_bundle(Path("model.hilum")).manifest.name == "Demo"
    for backend in ("onnxruntime", "pytorch"):
        output = hilum(
            "predict", data, "--bundle", "model.hilum", "--backend", backend, "--output", backend,
            "--limit", "6", "--seed", "3", "--save-overlays", "--save-masks",
        )  # fmt: skip
        assert f"Wrote {backend}/predictions.csv" in output
    one, two = (rows_of(tmp_path / backend / "predictions.csv") for backend in ("onnxruntime", "pytorch"))
    assert one.keys() == two.keys()
    assert len(one) == 6
    for name, row in one.items():
        assert row["status"] == two[name]["status"]
        assert row["predicted_label"] == two[name]["predicted_label"]
        if row["status"] == "ok":
            for column in (column for column in row if column.startswith("prob_")):
                assert float(row[column]) == pytest.approx(float(two[name][column]), abs=1e-4)
    predicted = sum(row["status"] == "ok" for row in one.values())
    assert predicted > 0
    assert len(list(Path("onnxruntime", "masks").rglob("*.png"))) == predicted
    assert len(list(Path("pytorch", "overlays").rglob("*.png"))) == predicted


@pytest.mark.slow
def test_a_toml_file_holds_all_of_it_and_flags_go_first(hilum: Hilum, phantoms: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'data = "{phantoms}"\n[preprocess]\nsize = 96\n[training]\nepochs = 2\nbatch_size = 8\n')
    output = hilum("train", "--config", settings, "--dry-run", "--size", "64", "--device", "cpu")
    assert "batch of 8" in output
    assert "for 2 epochs" in output


# Odd files


def test_index_reports_odd_files_and_keeps_the_rest(hilum: Hilum, tmp_path: Path) -> None:
    images, masks = tmp_path / "data" / "Normal" / "images", tmp_path / "data" / "Normal" / "masks"
    write_odd_files(images)
    image(tmp_path / "data" / "COVID" / "images" / "other.png", seed=3)
    (tmp_path / "data" / "Empty" / "images").mkdir(parents=True)
    masks.mkdir()
    lung = draw_phantom(1, "Normal", size=256).lung_mask.astype(np.uint8) * 255
    assert cv2.imwrite(str(masks / "good.png"), cv2.resize(lung, (128, 128), interpolation=cv2.INTER_NEAREST))
    assert cv2.imwrite(str(masks / "rgba.png"), lung[:, :100])
    assert cv2.imwrite(str(masks / "stranger.png"), lung)
    table = tmp_path / "index.csv"
    output = hilum("index", tmp_path / "data", "--output", table)
    for finding, names in {
        "error unreadable_image:": ("truncated.png", "text.jpg"),
        "error empty_file:": ("empty.png",),
        "error constant_image:": ("one-pixel.png",),
        "info mask_size:": ("good.png",),
        "warning mask_aspect:": ("rgba.png",),
        "warning mask_without_image:": ("stranger.png",),
        "warning empty_class:": ("Empty",),
    }.items():
        (line,) = [line for line in output.splitlines() if line.startswith(finding)]
        assert f" ({len(names)}): " in line
        assert all(name in line for name in names)
    with table.open(newline="") as stream:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(stream)}
    assert set(rows) == {"good.png", "rgba.png", "cmyk.jpg", "sixteen-bit.png", "other.png"}
    assert [name for name, row in rows.items() if row["mask"]] == ["good.png"]


def test_index_does_not_overwrite_what_it_reads(hilum: Hilum, phantoms: Path, tmp_path: Path) -> None:
    table = tmp_path / "index.csv"
    hilum("index", phantoms, "--output", table)
    before = table.read_bytes()
    hilum("index", table, "--output", table, code=2)
    assert table.read_bytes() == before


def test_training_names_the_files_it_leaves_out(hilum: Hilum, phantoms: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(phantoms, data)
    broken = sorted((data / "Normal" / "images").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    output = hilum("train", data, "--output", run, *TINY)
    assert re.search(rf"error unreadable_image: .* \(1\): .*{broken.name}", output)
    kept = {finding["check"]: finding for finding in json.loads((run / "findings.json").read_text())}
    assert kept["unreadable_image"]["records"] == [f"Normal/images/{broken.name}"]
    assert broken.name not in (run / "index.csv").read_text()


def test_predict_gives_every_odd_file_its_row(hilum: Hilum, trained_run: RunFolder, tmp_path: Path) -> None:
    write_odd_files(tmp_path / "in")
    (tmp_path / "in" / "folder.png").mkdir()
    output = hilum("predict", tmp_path / "in", "--bundle", trained_run.bundle, "--output", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert {name: row["status"] for name, row in rows.items()} == {
        "good.png": "ok",
        "sixteen-bit.png": "ok",
        "rgba.png": "ok",
        "cmyk.jpg": "ok",
        "one-pixel.png": "refused",
        "truncated.png": "unreadable",
        "text.jpg": "unreadable",
        "empty.png": "unreadable",
    }
    assert "shorter side, pixels: 1, expected at least 64" in rows["one-pixel.png"]["reason"]
    assert "empty file" in rows["empty.png"]["reason"]
    assert "PNG, JPEG, WebP, BMP, TIFF or DICOM" in rows["text.jpg"]["reason"]
    assert rows["sixteen-bit.png"]["predicted_label"] == rows["rgba.png"]["predicted_label"] != ""
    assert output.count("unreadable") == 3
    hilum("predict", tmp_path / "in", "--bundle", trained_run.bundle, "--output", tmp_path / "open", "--gate", "none")
    opened = rows_of(tmp_path / "open" / "predictions.csv")
    assert opened["one-pixel.png"]["status"] == "ok"
    assert opened["truncated.png"]["status"] == "unreadable"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_gets_its_row(hilum: Hilum, trained_run: RunFolder, tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png").chmod(0)
    hilum("predict", tmp_path / "in", "--bundle", trained_run.bundle, "--output", tmp_path / "out")
    assert rows_of(tmp_path / "out" / "predictions.csv")["a.png"]["status"] == "unreadable"
