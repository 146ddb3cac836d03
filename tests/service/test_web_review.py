"""The loop of review and training: labels and outlines corrected in Chromium, exported, evaluated and trained on."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from web_driving import drawn, give, painted, saved, settled, state

from hilum.phantoms.chest import PHANTOM_CLASSES, write_phantoms

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def exported(page: Any, *, with_images: bool = False) -> dict[str, bytes]:
    """The files of a review's export."""
    page.get_by_role("button", name="Export review").click()
    if with_images:
        page.get_by_label("With the images").check()
    name, content = saved(page, "Export")
    assert name == "hilum-review.zip"
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def rows_of(files: dict[str, bytes]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files["review.csv"].decode())))


def stroke(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw on the viewer, in fractions of its size."""
    box = page.locator("canvas.main").bounding_box()
    points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=5)
    page.mouse.up()
    painted(page)


def test_a_review_by_keys_outlives_the_page_and_is_exported(page: Any, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", 4, size=256)
    images = sorted((tmp_path / "data").glob("*/images/*.png"))
    files = [(path.name, path.read_bytes()) for path in images]
    give(page, files)
    settled(page, 4)
    drawn(page)
    page.keyboard.press("a")  # agrees, and goes on
    assert state(page, "record.name") == files[1][0]
    page.keyboard.press("Shift+Digit1")
    page.keyboard.press("n")
    page.keyboard.type('faint, "left"')
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("b")
    drawn(page)
    before = state(page, "record.prediction.lung_fraction")
    stroke(page, (0.4, 0.05), (0.6, 0.05))
    stroke(page, (0.4, 0.95), (0.6, 0.95))
    page.keyboard.press("Control+z")  # takes the second stroke back
    page.keyboard.press("b")
    painted(page)
    assert page.locator(".mark").all_inner_texts() == ["✓", "✎", "–", "…"]
    page.on("dialog", lambda dialog: dialog.accept())  # reviews that are not exported
    page.reload()
    kept = page.evaluate("JSON.stringify(localStorage)")
    assert files[0][0] not in kept  # no name, no pixels
    assert len(json.loads(kept)) == 4
    give(page, files)
    settled(page, 4)
    found = exported(page)
    rows = rows_of(found)
    assert [row["image"] for row in rows] == [name for name, _ in files]
    assert [row["decision"] for row in rows] == ["agree", "other", "not_assessable", ""]
    assert rows[0]["label"] == rows[0]["predicted_label"]
    assert rows[1]["label"] == "COVID"
    assert rows[1]["note"] == 'faint, "left"'
    assert rows[2]["label"] == rows[3]["label"] == ""
    assert [row["outline"] for row in rows] == ["", "", "", "corrected"]
    assert [bool(row["mask"]) for row in rows] == [False, False, False, True]
    mask = cv2.imdecode(np.frombuffer(found[rows[3]["mask"]], np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (256, 256)
    assert set(np.unique(mask)) == {0, 255}
    assert mask[12, 110:150].all()  # the first stroke
    assert not mask[240:, :].any()  # not the second
    assert before < (mask > 0).mean() < before + 0.05
    with_images = exported(page, with_images=True)
    assert with_images[f"review-images/{files[0][0]}"] == files[0][1]
    assert rows_of(with_images)[0]["image"] == f"review-images/{files[0][0]}"


def test_the_export_is_a_dataset_to_evaluate_and_to_train_on(
    page: Any, tmp_path: Path, hilum: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person labels 40 phantoms and accepts outlines; the unzipped review is evaluated, then trained on."""
    pytest.importorskip("torch")
    data = tmp_path / "data"
    write_phantoms(data, 40, size=128)
    (data / "metadata.csv").unlink()
    for path in [*data.glob("*/masks/*"), *data.glob("*/regions/*")]:  # images without labels or masks
        path.unlink()
    give(page, data)
    settled(page, 40)
    paths = state(page, "[...state.records.values()].map(one => one.path)")
    statuses = state(page, "[...state.records.values()].map(one => one.status)")
    page.keyboard.press("Home")
    for path in paths:
        assert state(page, "record.path") == path
        label = path.split("/")[0]
        page.keyboard.press(f"Shift+Digit{PHANTOM_CLASSES.index(label) + 1}")
        if page.get_by_role("button", name="Outline is right").is_visible():
            page.get_by_role("button", name="Outline is right").click()
        page.keyboard.press("j")
    found = exported(page)
    for name, content in found.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    rows = rows_of(found)
    assert len(rows) == 40
    assert [row["label"] for row in rows] == [path.split("/")[0] for path in paths]
    assert sum(bool(row["mask"]) for row in rows) == statuses.count("ok") >= 30

    monkeypatch.chdir(tmp_path)
    hilum("evaluate", "default", data / "review.csv", "--output", "evaluation", "--resamples", "100")
    predictions = list(csv.DictReader(io.StringIO((tmp_path / "evaluation" / "predictions.csv").read_text())))
    assert len(predictions) == 40
    hilum("train", data / "review.csv", "--from-bundle", "default", "--epochs", "1", "--output", "run")
    assert (tmp_path / "run" / "bundle").exists()
