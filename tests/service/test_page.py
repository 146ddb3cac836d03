"""The page, driven in a real Chromium: upload, answer, refusal, downloads, a batch, keys, a phone."""

from __future__ import annotations

import base64
import csv
import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from dicom_images import content_of, phantom_image
from page_driving import chromium, drop, opened, phantoms, picture, rows, saved, serving, settled, shown, slide, take
from report_writing import audit_report

from hilum.service.page.gallery import Specimen, specimens

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "audit.json").write_text(audit_report().model_dump_json(), encoding="utf-8")
    log = folder / "log"
    with serving(log, "--audit", str(folder), "--max-upload", "20") as found:
        yield found
    told = log.read_text()
    assert "Traceback" not in told
    assert "phantom" not in told  # names of images are nobody's business


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A new session; what it asks of any other machine fails the test."""
    asked: list[str] = []
    wrong: list[str] = []
    with opened(browser, address) as found:
        found.on("request", lambda request: asked.append(request.url))
        found.on("pageerror", lambda error: wrong.append(str(error)))
        yield found
    own = (address, f"blob:{address}", "data:", address.replace("http", "ws"))
    outside = [url for url in asked if not url.startswith(own)]
    assert not outside
    assert not wrong


def named(caption: str) -> Specimen:
    return next(one for one in specimens() if one.caption == caption)


def test_a_phantom_of_the_gallery_is_answered(page: Any) -> None:
    take(page, "Lung opacity")
    shown(page, "phantom-lung-opacity.png")
    answer = page.get_by_label("Answer")
    assert answer.locator("h2").inner_text().split("\n") == ["Lung_Opacity", "91.1%"]
    assert "All others ruled out at 90%" in answer.inner_text()
    assert page.get_by_text("not a medical device").count() == 1
    row = rows(page).first.inner_text()
    assert "Lung_Opacity" in row
    assert "91.1%" in row


def test_films_of_all_kinds_each_get_their_row(page: Any) -> None:
    good = named("COVID").content
    drop(page, ("film.png", good), ("letter.txt", b"Dear colleague"), ("broken.png", good[:3000]),
         ("noise.png", named("Noise, not an image").content), ("<img src=x>.png", named("Normal").content))  # fmt: skip
    shown(page, "film.png")
    settled(page)
    texts = rows(page).all_inner_texts()
    assert len(texts) == 5
    assert "COVID" in texts[0]
    assert "Cannot be read" in texts[1]
    assert "Cannot be read" in texts[2]
    assert "Refused" in texts[3]
    assert "not a radiograph" in texts[3]
    assert "<img src=x>.png" in texts[4]
    rows(page).nth(3).click()
    shown(page, "noise.png", "refused")
    assert "expected at least" in page.get_by_label("Answer").inner_text()
    rows(page).nth(2).click()
    shown(page, "broken.png", "unreadable")
    assert "Cannot decode" in page.get_by_label("Answer").inner_text()
    page.get_by_label("Images shown").select_option("refused")
    rows(page).nth(3).wait_for(state="detached")
    assert rows(page).count() == 3
    drop(page, ("again.png", good))  # the same content: no second row, no second answer
    page.get_by_text("1 of 1 files were in the list already.").wait_for()
    page.get_by_label("Images shown").select_option("all")
    rows(page).nth(4).wait_for()
    assert rows(page).count() == 5


def test_downloads_hold_what_is_shown(page: Any) -> None:
    source = phantom_image(3, "Lung_Opacity", size=512)
    drop(page, ("film.dcm", content_of(source)), ("noise.png", named("Noise, not an image").content))
    shown(page, "film.dcm")
    settled(page)
    name, mask_png = saved(page, "Lung mask, PNG")
    mask = cv2.imdecode(np.frombuffer(mask_png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert name == "film-mask.png"
    assert mask.shape == (512, 512)
    assert set(np.unique(mask)) == {0, 255}
    name, overlay_png = saved(page, "Overlay, PNG")
    assert name == "film-overlay.png"
    assert cv2.imdecode(np.frombuffer(overlay_png, np.uint8), cv2.IMREAD_COLOR).shape == (512, 512 + 360, 3)
    name, segmentation = saved(page, "Segmentation, DICOM SEG")
    found = pydicom.dcmread(io.BytesIO(segmentation))
    assert name == "film.seg.dcm"
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert np.array_equal(found.pixel_array[:2].any(axis=0), mask > 0)
    name, report = saved(page, "Report, DICOM SR")
    assert pydicom.dcmread(io.BytesIO(report)).Modality == "SR"
    name, table = saved(page, "Table, CSV")
    lines = list(csv.DictReader(io.StringIO(table.decode())))
    assert name == "predictions.csv"
    assert [line["status"] for line in lines] == ["ok", "refused"]
    assert lines[0]["predicted_label"] == "Lung_Opacity"
    assert float(lines[0]["lung_fraction"]) == pytest.approx((mask > 0).mean(), abs=1e-4)
    name, content = saved(page, "ZIP")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == ["masks/film.png", "overlays/film.png", "predictions.csv"]
        assert archive.read("masks/film.png") == mask_png


def test_a_batch_is_worked_off_with_progress_while_the_list_can_be_used(page: Any) -> None:
    drop(page, *phantoms(40))
    page.get_by_text(re.compile(r"^\d+ of 40 images answered$")).wait_for(timeout=60_000)
    rows(page).nth(5).click()
    page.locator('[data-film="phantom-105.png"]').wait_for(timeout=30_000)
    page.get_by_role("button", name="Help").click()
    settled(page)
    page.get_by_role("dialog").get_by_text("next image, image before").wait_for(timeout=30_000)  # not swept away
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    page.locator('[data-film="phantom-105.png"]:not([data-status="waiting"])').wait_for()
    assert rows(page).count() == 40
    assert not [text for text in rows(page).all_inner_texts() if "waiting" in text]


def test_files_dropped_beside_the_box_are_taken_too(page: Any) -> None:
    page.evaluate(
        """content => {
             const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
             const dropped = new DataTransfer();
             dropped.items.add(new File([bytes], "dropped.png"));
             const options = {dataTransfer: dropped, bubbles: true, cancelable: true};
             document.body.dispatchEvent(new DragEvent("drop", options));
           }""",
        base64.b64encode(named("COVID").content).decode(),
    )
    shown(page, "dropped.png")


def test_phantoms_can_be_added_later(page: Any) -> None:
    take(page, "COVID")
    shown(page, "phantom-covid.png")
    page.get_by_role("button", name="Phantoms").click()
    page.get_by_role("dialog").get_by_role("button", name="Lung opacity", exact=True).click()
    page.get_by_role("dialog").wait_for(state="detached")
    rows(page).filter(has_text="Lung_Opacity").wait_for()
    assert rows(page).count() == 2


def test_keys_step_through_the_list(page: Any) -> None:
    take(page, "Take all 8")
    shown(page, "phantom-lung-opacity.png")
    settled(page)
    page.keyboard.press("ArrowDown")
    shown(page, "phantom-covid.png")
    page.keyboard.press("j")
    shown(page, "phantom-viral-pneumonia.png", "unsure")
    page.keyboard.press("k")
    shown(page, "phantom-covid.png")
    assert rows(page).nth(1).get_attribute("aria-selected") == "true"
    page.get_by_role("button", name="Remove").click()
    shown(page, "phantom-viral-pneumonia.png", "unsure")
    assert rows(page).count() == 7
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Forget all?").click()
    page.get_by_role("button", name="Take all 8").wait_for()


def test_window_inversion_original_and_region_change_the_picture_at_once(page: Any) -> None:
    take(page, "Lung opacity")
    shown(page, "phantom-lung-opacity.png")
    seen = [picture(page)]

    def changed() -> None:
        seen.append(picture(page))
        assert seen[-1] not in seen[:-1]

    for key in ("i", "l", "e", "2", "+"):
        if key in ("l", "e"):
            page.keyboard.press("w")  # inversion back, so that each change stands alone
        page.keyboard.press(key)
        if key != "2":  # the class that is shown already
            changed()
    page.keyboard.press("0")
    page.keyboard.press("l")
    page.keyboard.press("e")
    assert picture(page) == seen[0]
    page.keyboard.down("o")
    assert picture(page) == seen[3]  # as without outline and evidence
    page.keyboard.up("o")
    assert picture(page) == seen[0]
    slide(page, "width", 40)
    changed()
    slide(page, "percent", 60)
    changed()
    said = page.get_by_label("Answer").inner_text()
    assert re.search(r"over 60% of the lung. It holds \d+% of all evidence for Lung_Opacity", said)
    slide(page, "opacity", 80)
    changed()
    page.keyboard.press("1")
    page.get_by_text("Evidence for COVID, logits").wait_for()
    changed()
    began = page.evaluate("performance.now()")
    slide(page, "level", 30)
    picture(page)
    assert page.evaluate("performance.now()") - began < 1000  # 0.1 s on a quiet machine


def test_the_card_the_audit_and_the_keys_are_one_click_away(page: Any) -> None:
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Model card").click()
    dialog.get_by_text("18,213 frontal radiographs").first.wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Audit").click()
    finding = audit_report().findings[0]
    dialog.get_by_text(finding.message).first.wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Help").click()
    dialog.get_by_text("next image, image before").wait_for()


def test_nothing_runs_over_the_side_of_a_phone(browser: Any, address: str) -> None:
    with opened(browser, address, phone=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        take(page, "Take all 8")
        shown(page, "phantom-lung-opacity.png")
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        wide = page.evaluate(
            """() => [...document.querySelectorAll(".stMain *")].map(one => one.getBoundingClientRect())
               .filter(box => box.width && box.right > 391).length"""
        )
        assert wide == 0
        film = page.locator("canvas").bounding_box()
        assert film is not None
        assert film["width"] >= 360


def test_the_film_is_the_largest_thing_and_needs_no_scrolling(page: Any) -> None:
    take(page, "Lung opacity")
    shown(page, "phantom-lung-opacity.png")
    settled(page)
    picture(page)  # laid out
    page.wait_for_timeout(500)
    film, *others = (
        part.bounding_box()
        for part in (page.locator("canvas"), page.locator("ul[role=listbox]"), page.get_by_label("Answer"))
    )
    assert film["height"] >= 600
    assert film["y"] + film["height"] <= 800
    areas = [box["width"] * box["height"] for box in (film, *others)]
    assert areas[0] > 1.5 * max(areas[1:]), (film, others)


def test_another_session_sees_nothing_of_this_one(page: Any, browser: Any, address: str) -> None:
    take(page, "COVID")
    shown(page, "phantom-covid.png")
    with opened(browser, address) as other:
        assert rows(other).count() == 0
