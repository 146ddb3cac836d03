"""The web app in Chromium: the viewer."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from dicom_writing import content_of, dataset_of
from web_driving import (
    drawn,
    give,
    opened,
    painted,
    picture,
    settled,
    state,
    take,
)  # fmt: skip

from hilum.phantoms.chest import draw_phantom

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def dicom(patient: str = "Mustermann^Erika") -> bytes:
    """A 12-bit phantom with two windows and a pixel spacing."""
    image = draw_phantom(3, "Lung_Opacity", size=512).image
    dataset = dataset_of(image.astype(np.uint16) << 4, 12, PatientName=patient, StudyDate="20240131")
    dataset.ImagerPixelSpacing = [0.5, 0.5]
    dataset.WindowCenter, dataset.WindowWidth = ["2048", "1000"], ["4096", "800"]
    dataset.WindowCenterWidthExplanation = ["WIDE", "NARROW"]
    return content_of(dataset)


def drag(page: Any, start: tuple[float, float], end: tuple[float, float], **how: Any) -> None:
    """Drag on the viewer, in fractions of its size."""
    box = page.locator("canvas.main").bounding_box()
    points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down(**how)
    page.mouse.move(*points[1], steps=4)
    page.mouse.up(**how)
    painted(page)


def test_every_tool_changes_the_view_and_is_undone(page: Any) -> None:
    take(page, "Lung opacity")
    settled(page, 1)
    drawn(page)
    first = picture(page)
    for key in "ilerh+":
        page.keyboard.press(key)
        assert picture(page) != first, key
        if key == "r":
            for _ in range(3):
                page.keyboard.press(key)
        elif key == "+":
            page.keyboard.press("f")
        else:
            page.keyboard.press(key)
        assert picture(page) == first, key
    page.keyboard.down("o")
    bare = picture(page)
    page.keyboard.up("o")
    assert picture(page) == first != bare
    page.keyboard.press("2")
    same = picture(page)  # the class that is shown already
    page.keyboard.press("1")
    assert same == first != picture(page)
    assert (
        page.get_by_role("button", name="Show the evidence for COVID").count()
        or state(page, "state.evidenceClass") == "COVID"
    )


def test_the_pointer_windows_zooms_moves_and_measures(page: Any) -> None:
    take(page, "Normal")
    settled(page, 1)
    drawn(page)
    drag(page, (0.5, 0.5), (0.4, 0.4))
    window = state(page, "record.display.window")
    assert window["width"] < 255
    assert "C " in page.locator(".frame.main .corner.bl").inner_text()
    page.keyboard.press("0")
    assert state(page, "record.display.window") is None
    box = page.locator("canvas.main").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.wheel(0, -400)
    painted(page)
    zoomed = state(page, "state.view")
    assert zoomed["zoom"] > 1.5
    assert zoomed["x"] < 0  # towards the pointer
    assert zoomed["y"] < 0
    drag(page, (0.5, 0.5), (0.7, 0.5), button="middle")
    assert state(page, "state.view")["x"] < zoomed["x"]
    page.keyboard.press("z")
    painted(page)
    assert page.locator(".frame.main .corner.br").inner_text() == "100%"
    page.keyboard.press("f")
    page.keyboard.press("t")
    drag(page, (0.4, 0.6), (0.6, 0.6))
    drag(page, (0.3, 0.7), (0.7, 0.7))
    assert "0.50" in page.locator("#stage .status").inner_text()
    assert [one["kind"] for one in state(page, "record.rulers")] == ["heart", "thorax"]


def test_two_images_are_compared_with_linked_zoom(page: Any) -> None:
    take(page, "All examples")
    settled(page, 8)
    page.keyboard.press("c")
    page.keyboard.press("j")
    page.locator('canvas.other[data-content="image"]').wait_for(timeout=30_000)
    page.keyboard.press("+")
    painted(page)
    assert [corner.inner_text() for corner in page.locator(".corner.br").all()][0:2] == [
        page.locator(".frame.main .corner.br").inner_text()
    ] * 2
    names = [page.locator(f".frame.{name} .corner.tl").inner_text() for name in ("other", "main")]
    assert names == ["phantom-lung-opacity.png", "phantom-covid.png"]
    page.keyboard.press("Escape")
    painted(page)
    assert page.locator("canvas.other").is_hidden()


def test_patient_and_date_are_whole_beside_another_image_and_the_hint_goes(page: Any) -> None:
    give(page, [("a-name-that-is-much-longer-than-half-of-the-viewer-is-wide.dcm", dicom()), ("b.dcm", dicom("A^B"))])
    settled(page, 2)
    page.keyboard.press("c")
    painted(page)
    assert page.locator("#notice").inner_text()
    page.keyboard.press("j")
    painted(page)
    assert page.locator("#notice").inner_text() == ""
    first, *rest = page.locator(".frame.other .corner.tl").inner_text().split("\n")
    assert first.startswith("a-name")
    assert rest == ["Mustermann, Erika", "2024-01-31"]  # a line each: only the name of the file is cut


def test_dicom_has_its_windows_its_millimeters_and_its_patient_in_the_browser_alone(page: Any, address: str) -> None:
    requests: list[Any] = []
    answers: list[Any] = []
    page.on("request", lambda request: requests.append(request))
    page.on("response", lambda answer: answers.append(answer))
    give(page, [("IM0001", dicom())])
    settled(page, 1)
    drawn(page)
    corner = page.locator(".frame.main .corner.tl").inner_text()
    assert "Mustermann, Erika" in corner
    assert "2024-01-31" in corner
    presets = page.get_by_label("Window preset")
    assert presets.locator("option").all_inner_texts() == ["As analyzed", "WIDE", "NARROW", "Full range"]
    before = picture(page)
    presets.select_option(label="NARROW")
    assert state(page, "record.display.window.center") == 1000
    assert picture(page) != before
    presets.select_option(label="WIDE")  # the first window, which the model reads
    wide = picture(page)
    presets.select_option(label="As analyzed")
    assert picture(page) == wide == before
    page.keyboard.press("m")
    drag(page, (0.3, 0.5), (0.7, 0.5))
    assert re.search("ImagerPixelSpacing", page.locator("#stage .status").inner_text())
    assert page.evaluate("() => [...hilum.store.get().records.values()][0].rulers.length") == 1
    posted = [request for request in requests if request.method == "POST"]
    assert len(posted) >= 2
    for request in posted:
        told = request.url + json.dumps(request.headers)
        assert "Mustermann" not in told
        assert "IM0001" not in told  # nor the file's name
    for answer in answers:
        assert answer.url.startswith(address)
        assert b"Mustermann" not in answer.body() + json.dumps(answer.headers).encode()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_runs_over_the_side_of_a_phone(browser: Any, address: str, dark: bool) -> None:
    with opened(browser, address, phone=True, dark=dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        take(page, "All examples")
        settled(page, 8)
        for name in ("Viewer", "Images"):
            page.locator("#tabs").get_by_role("button", name=name).click()
            painted(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            wide = page.evaluate(
                """() => [...document.querySelectorAll("#room *")]
                   .filter(one => !one.closest(".tools") && one.getBoundingClientRect().right > 391).length"""
            )
            assert wide == 0
        page.locator("[role=option]").first.click()
        painted(page)
        canvas = page.locator("canvas.main").bounding_box()
        assert canvas["width"] >= 360


def test_the_image_is_the_largest_thing_and_needs_no_scrolling(page: Any) -> None:
    take(page, "Lung opacity")
    settled(page, 1)
    drawn(page)
    boxes = [page.locator(one).bounding_box() for one in ("canvas.main", "[role=listbox]", "#panel")]
    assert boxes[0]["height"] >= 560
    assert boxes[0]["y"] + boxes[0]["height"] <= 800
    areas = [box["width"] * box["height"] for box in boxes]
    assert areas[0] > 1.5 * max(areas[1:])
    assert page.evaluate("document.documentElement.scrollHeight") <= 800
    assert page.evaluate("(panel => panel.scrollWidth - panel.clientWidth)(document.querySelector('#panel'))") == 0
