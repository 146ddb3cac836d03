"""``hilum gate``, ``train-gate`` and ``predict --fix-orientation``, as a user calls them."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hilum.bundle.bundle import load_bundle
from hilum.gate.stored import GATE_MODEL, load_gate
from hilum.phantoms.chest import draw_phantom
from hilum.run_folder import RunFolder

Hilum = Callable[..., str]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One image as it should be, one turned, one inverted, a page of noise, and one file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    good = draw_phantom(4_000_001, "Normal", size=256).image
    noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    arrays = {"good": good, "turned": np.rot90(good, -1), "inverted": 255 - good, "noise": noise}
    for name, pixels in arrays.items():
        assert cv2.imwrite(str(folder / f"{name}.png"), pixels)
    (folder / "text.png").write_text("no image")
    return folder


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_file_gets_a_verdict_with_its_readings(
    hilum: Hilum, trained_run: RunFolder, images: Path, tmp_path: Path
) -> None:
    output = hilum("gate", images, "--bundle", trained_run.bundle, "--output", tmp_path / "out" / "verdicts.csv")
    assert "good.png: accepted" in output
    assert (
        "turned.png: rotated 90 degrees clockwise (hilum predict --fix-orientation corrects it: rotated by 270"
        in output
    )
    assert "probability of an upright image" in output
    assert (
        "inverted.png: inverted gray scale (hilum predict --fix-orientation corrects it: gray scale inverted)" in output
    )
    assert "noise.png: not a radiograph" in output
    assert "text.png: unreadable" in output
    rows = _rows(tmp_path / "out" / "verdicts.csv")
    verdicts = {Path(row["file"]).name: row["verdict"] for row in rows}
    assert verdicts["good.png"] == "accepted"
    assert verdicts["text.png"] == "unreadable"
    failed = {(Path(row["file"]).name, row["check"]) for row in rows if row["passed"] == "0" and row["check"]}
    assert failed == {("turned.png", "rotated"), ("inverted.png", "inverted"), ("noise.png", "frontal")}
    (upright,) = [row for row in rows if row["check"] == "rotated" and row["passed"] == "0"]
    assert float(upright["value"]) < 0.5


def test_of_many_files_only_the_refused_are_shown(hilum: Hilum, trained_run: RunFolder, tmp_path: Path) -> None:
    for number in range(11):
        cv2.imwrite(str(tmp_path / f"{number}.png"), draw_phantom(4_000_100 + number, "Normal", size=128).image)
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((100, 100), 90, np.uint8))
    output = hilum("gate", tmp_path, "--bundle", trained_run.bundle)
    assert "flat.png: too flat" in output
    assert "3.png" not in output
    assert "12 files" in output


def test_a_name_that_is_no_unicode_has_its_rows(hilum: Hilum, trained_run: RunFolder, images: Path) -> None:
    odd = images / os.fsdecode(b"r\xf6ntgen.png")
    try:
        (images / "good.png").rename(odd)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    hilum("gate", odd.parent, "--bundle", trained_run.bundle, "--output", images / "verdicts.csv")
    assert "ntgen.png,accepted,too_small,1," in (images / "verdicts.csv").read_text(encoding="utf-8")


def test_strict_tells_a_script(hilum: Hilum, trained_run: RunFolder, images: Path) -> None:
    hilum("gate", images, "--bundle", trained_run.bundle, "--strict", code=1)
    hilum("gate", images / "good.png", "--bundle", trained_run.bundle, "--strict", code=0)


def test_the_classic_gate_says_what_it_measured(hilum: Hilum, trained_run: RunFolder, images: Path) -> None:
    output = hilum("gate", images, "--bundle", trained_run.bundle, "--gate", "classic")
    assert "turned.png: accepted" in output  # it cannot see it
    cv2.imwrite(str(images / "small.png"), draw_phantom(0, "Normal", size=64).image)
    output = hilum("gate", images / "small.png", "--bundle", trained_run.bundle, "--gate", "classic")
    assert "shorter side 64 px (64 x 64), expected at least 256 px" in output


def test_an_empty_folder_is_an_error(hilum: Hilum, tmp_path: Path) -> None:
    assert str(tmp_path) in hilum("gate", tmp_path, code=2)


def test_predict_mends_only_when_asked_and_says_so(
    hilum: Hilum, trained_run: RunFolder, images: Path, tmp_path: Path
) -> None:
    def predict(*words: str) -> dict[str, dict[str, str]]:
        out = tmp_path / ("fixed" if words else "plain")
        hilum("predict", images, "--bundle", trained_run.bundle, "--output", out, "--save-masks", *words)
        return {Path(row["file"]).name: row for row in _rows(out / "predictions.csv")}

    plain = predict()
    assert [plain[name]["status"] for name in ("good.png", "turned.png", "inverted.png")] == [
        "ok", "refused", "refused",
    ]  # fmt: skip
    fixed = predict("--fix-orientation")
    for name, words in (("turned.png", "rotated by 270 degrees clockwise"), ("inverted.png", "gray scale inverted")):
        assert fixed[name]["status"] == "ok"
        assert words in fixed[name]["reason"]
        assert float(fixed[name]["prob_Normal"]) == pytest.approx(float(fixed["good.png"]["prob_Normal"]), abs=1e-5)
    assert fixed["noise.png"]["status"] == "refused"
    masks = {name: cv2.imread(str(tmp_path / "fixed" / "masks" / f"{name}.png"), 0) for name in ("good", "turned")}
    np.testing.assert_array_equal(masks["turned"], np.rot90(masks["good"], -1))  # type: ignore[arg-type]


def test_fixing_needs_the_gate_that_sees_it(hilum: Hilum, images: Path) -> None:
    for words in (
        (
            "--gate",
            "none",
        ),
        ("--gate", "classic"),
    ):
        assert "learned gate" in hilum("predict", images, "--fix-orientation", *words, code=2)


def test_a_gate_of_ones_own_goes_into_a_bundle(
    hilum: Hilum, phantoms: Path, trained_run: RunFolder, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "page.png"), np.full((60, 40), 250, np.uint8))
    (tmp_path / "others.csv").write_text("image,kind\npage.png,picture\n")
    small = ("--size", "64", "--steps", "10", "--batch-size", "4", "--workers", "0")
    words = ("train-gate", phantoms, "--others", tmp_path / "others.csv", "--output", tmp_path / "gate", *small)
    output = hilum(*words)
    assert "Thresholds set on" in output
    assert "gate_state.ckpt" in hilum(*words, "--seed", "1", code=2)
    model, stored = load_gate(tmp_path / "gate")
    assert stored.training["pictures"]["picture"] == 1
    hilum("export", trained_run.root, "--output", tmp_path / "bundle", "--gate-from", tmp_path / "gate")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.read(GATE_MODEL) == model
    assert bundle.manifest.gate.learned == stored.thresholds
    assert bundle.manifest.gate.answer.lung_least is None  # too few images to say what is usual
    hilum("gate", tmp_path / "page.png", "--bundle", tmp_path / "bundle")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "80"), "multiple of 32"),
        (("--others", "nowhere.csv"), "Cannot read"),
    ],
)
def test_what_is_wrong_with_a_training_is_said(
    hilum: Hilum, phantoms: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "others.csv").write_text("image,kind\npage.png,picture\n")
    base = ("train-gate", phantoms, "--output", tmp_path / "gate", "--steps", "10", "--workers", "0")
    others = () if "--others" in words else ("--others", tmp_path / "others.csv")
    assert said in hilum(*base, *others, *words, code=2)
