"""The web app in Chromium: the queue, the list, the viewer and the answer."""

from __future__ import annotations

import base64
import io
import json
import re
import statistics
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dicom_writing import content_of, dataset_of
from web_driving import (
    chromium,
    drawn,
    give,
    opened,
    painted,
    phantoms,
    picture,
    saved,
    serving,
    settled,
    state,
    take,
)  # fmt: skip

from hilum.bundle.bundle import MODEL_CARD, load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.phantoms.chest import draw_phantom
from hilum.service.phantoms import example_png

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("serving") / "log") as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as found:
        yield found


def marked(count: int) -> list[tuple[str, bytes]]:
    """Phantoms with a patch at the top left, whose gray level tells which one it is."""
    made = []
    for number in range(count):
        image = draw_phantom(300 + number, "Normal", size=256).image.copy()
        image[:64, :64] = 20 + 10 * number
        made.append((f"marked-{number:02}.png", cv2.imencode(".png", image)[1].tobytes()))
    return made


# The list's selected row, the answer and the viewer, each read from what is on the screen.
_COMPARE = """
async ([steps, every]) => {
  const { store } = hilum;
  const canvas = document.querySelector("canvas.main"), pen = canvas.getContext("2d");
  const seen = [], keys = new Set();
  const read = () => {
    const { clientWidth: width, clientHeight: height } = canvas;
    const side = Math.min(width, height), ratio = devicePixelRatio;
    const at = [width, height].map(long => Math.round(ratio * ((long - side) / 2 + side / 16)));
    const gray = pen.getImageData(...at, 1, 1).data[0];
    const row = document.querySelector("[role=option][aria-selected=true]");
    const name = row?.querySelector(".name").textContent;
    const corner = document.querySelector(".frame.main .corner.tl").textContent.split("\\n")[0];
    const answer = document.querySelector("#panel dl dd")?.textContent;
    const shown = Math.round((gray - 20) / 10);
    const label = document.querySelector("#panel h2")?.textContent, told = row?.querySelector("b")?.textContent;
    seen.push({ name, corner, answer, shown, label, told });
    keys.add(name);
  };
  for (let step = 0; step < steps; step += 1) {
    const key = Math.floor(step / 15) % 2 ? "k" : "j";
    dispatchEvent(new KeyboardEvent("keydown", { key }));
    read();  // before the next frame: all as before
    await new Promise(done => requestAnimationFrame(done));
    read();  // after it: all as now
    await new Promise(done => setTimeout(done, every));
    read();
  }
  return { seen, images: keys.size };
}
"""


def test_list_answer_and_viewer_never_disagree(page: Any) -> None:
    """The second defect of the earlier app: for half a second, an answer stood beside another image."""
    give(page, marked(20))
    settled(page, 20)
    drawn(page)
    result = page.evaluate(_COMPARE, [100, 20])
    assert len(result["seen"]) == 300
    assert result["images"] >= 16
    wrong = [
        one for one in result["seen"]
        if not (one["name"] == one["corner"] == one["answer"] == f"marked-{one['shown']:02}.png")
        or one["label"] != one["told"]
    ]  # fmt: skip
    assert wrong == []


def test_nothing_lies_over_the_answers_while_a_batch_runs(page: Any) -> None:
    """The first defect: elements of the start page stayed until the batch was done."""
    give(page, phantoms(48))
    page.wait_for_function("() => hilum.store.get().records.size === 48")
    looks = page.evaluate(
        """async () => {
          const looks = [];
          const isOpen = one => ["waiting", "working"].includes(one.status);
          while ([...hilum.store.get().records.values()].some(isOpen)) {
            await new Promise(done => setTimeout(done, 50));
            const top = selector => {
              const box = document.querySelector(selector).getBoundingClientRect();
              const found = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
              return Boolean(found?.closest(selector));
            };
            const hidden = document.querySelector("#welcome").hidden;
            looks.push([top("canvas.main"), top("#panel"), top("[role=listbox]"), hidden]);
          }
          return looks;
        }"""
    )
    assert len(looks) >= 5
    assert all(all(look) for look in looks)
    settled(page, 48)


def test_the_queue_pauses_and_goes_on(page: Any) -> None:
    give(page, phantoms(40))
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function("() => ![...hilum.store.get().records.values()].some(one => one.status === 'working')")
    before = state(page, "[...state.records.values()].filter(one => one.status === 'waiting').length")
    assert before > 0
    page.wait_for_timeout(500)
    assert state(page, "[...state.records.values()].filter(one => one.status === 'waiting').length") == before
    page.get_by_role("button", name="Resume").click()
    settled(page, 40)


def test_the_same_content_is_taken_once(page: Any) -> None:
    (name, content), other = phantoms(2)
    give(page, [(name, content), ("copy.png", content), other])
    settled(page, 2)
    page.get_by_role("status").get_by_text("copy.png").wait_for()


def test_a_folder_is_read_with_its_subfolders(page: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (first, second) = phantoms(2)
    (folder / "a.png").write_bytes(first[1])
    (folder / "sub" / "b.png").write_bytes(second[1])
    (folder / "notes.txt").write_text("no image")
    give(page, folder)
    settled(page, 2)
    assert state(page, "[...state.records.values()].map(one => one.path)") == ["a.png", "sub/b.png"]
    page.get_by_role("status").get_by_text("1 file").wait_for()


def test_files_that_are_dropped_are_taken(page: Any) -> None:
    page.evaluate(
        """content => {
             const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
             const dropped = new DataTransfer();
             dropped.items.add(new File([bytes], "dropped.png"));
             const options = {dataTransfer: dropped, bubbles: true, cancelable: true};
             document.body.dispatchEvent(new DragEvent("drop", options));
           }""",
        base64.b64encode(example_png("phantom-covid.png")).decode(),
    )
    settled(page, 1)
    assert state(page, "record.name") == "dropped.png"


def test_a_refusal_says_what_to_do_and_is_corrected(page: Any) -> None:
    take(page, "Sideways")
    settled(page, 1)
    panel = page.locator("#panel")
    assert "side" in panel.locator("h2").inner_text()
    assert not re.search(r"\d", panel.locator("h2").inner_text())
    panel.get_by_text("Details").click()
    assert "expected at least" in panel.locator("dl").inner_text()
    panel.get_by_role("button", name="Rotate and analyze").click()
    page.wait_for_function("() => [...hilum.store.get().records.values()][0].status === 'ok'", timeout=30_000)
    drawn(page)
    assert state(page, "record.prediction.predicted_label") == "Normal"
    assert state(page, "record.display.turn") == 1  # shown upright: it was rotated counterclockwise


def test_an_uncertain_answer_is_as_visible_as_the_label(page: Any) -> None:
    take(page, "Faint opacity")
    settled(page, 1)
    notice = page.locator("#panel p.uncertain")
    label, uncertain = page.locator("#panel h2"), notice.bounding_box()
    assert notice.inner_text() == "Uncertain: a person should decide"
    assert uncertain["y"] > label.bounding_box()["y"]
    assert uncertain["y"] - label.bounding_box()["y"] < 80
    assert uncertain["width"] * uncertain["height"] >= label.bounding_box()["width"] * label.bounding_box()["height"]
    assert page.locator("[role=option] .tag.uncertain").count() == 1


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


def drag(page: Any, start: tuple[float, float], end: tuple[float, float], **how: Any) -> None:
    """Drag on the viewer, in fractions of its size."""
    box = page.locator("canvas.main").bounding_box()
    points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down(**how)
    page.mouse.move(*points[1], steps=4)
    page.mouse.up(**how)
    painted(page)


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


def dicom(patient: str = "Mustermann^Erika") -> bytes:
    """A 12-bit phantom with two windows and a pixel spacing."""
    image = draw_phantom(3, "Lung_Opacity", size=512).image
    dataset = dataset_of(image.astype(np.uint16) << 4, 12, PatientName=patient, StudyDate="20240131")
    dataset.ImagerPixelSpacing = [0.5, 0.5]
    dataset.WindowCenter, dataset.WindowWidth = ["2048", "1000"], ["4096", "800"]
    dataset.WindowCenterWidthExplanation = ["WIDE", "NARROW"]
    return content_of(dataset)


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


def test_downloads_are_those_of_the_service(page: Any, address: str) -> None:
    content = example_png("phantom-covid.png")
    take(page, "COVID")
    settled(page, 1)
    page.locator("#actions").get_by_role("button", name="Download").click()
    name, overlay = saved(page, "Overlay, PNG")
    assert name == "phantom-covid-overlay.png"
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    asked = page.context.request.post(f"{address}/v1/predict?include=overlay", data=content, headers=headers)
    assert overlay == asked.body()
    _, mask = saved(page, "Lung mask, PNG")
    asked = page.context.request.post(f"{address}/v1/predict?include=mask", data=content, headers=headers)
    pixels = [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_UNCHANGED) for one in (mask, asked.body())]
    np.testing.assert_array_equal(*pixels)
    name, archive = saved(page, "Overlays, masks and table")
    with zipfile.ZipFile(io.BytesIO(archive)) as opened_zip:
        assert sorted(opened_zip.namelist()) == [
            "masks/phantom-covid.png", "overlays/phantom-covid.png", "predictions.csv",
        ]  # fmt: skip
        assert opened_zip.read("overlays/phantom-covid.png") == overlay
        assert opened_zip.read("predictions.csv").decode().splitlines()[1].startswith("phantom-covid.png,ok,COVID,")


def test_the_card_the_audit_and_the_keys_are_one_click_away(page: Any) -> None:
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Model card").click()
    card = load_bundle(resolve_bundle(DEFAULT)).read(MODEL_CARD).decode()
    counted = re.search(r"^[\d,]+ frontal radiographs", card, re.MULTILINE)
    assert counted
    dialog.get_by_text(counted[0]).first.wait_for()
    assert dialog.locator("details[open]").count() == 0
    dialog.get_by_text("Full model card").click()
    dialog.get_by_role("cell", name="kermany").first.wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.get_by_role("button", name="Audit").click()
    dialog.get_by_text("kermany").first.wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.keyboard.press("?")
    dialog.get_by_text("next image, previous image").wait_for()


def test_a_token_is_asked_for(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "log", token="secret") as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.locator("input[type=password]").fill("wrong")
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("dialog").get_by_role("status").filter(has_text="token").wait_for()
        page.locator("input[type=password]").fill("secret")
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="All examples").wait_for()
        take(page, "COVID")
        settled(page, 1)
        context.close()


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


def test_all_can_be_reached_and_named_without_a_pointer(page: Any) -> None:
    take(page, "All examples")
    settled(page, 8)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, textarea, canvas, [role=option]")]
           .filter(one => one.checkVisibility() && !one.labels?.length)
           .filter(one => !(one.getAttribute("aria-label") || one.textContent.trim()))
           .map(one => one.outerHTML)"""
    )
    assert nameless == []
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        )
    assert {"Open files", "Images", "Agree", "Not assessable", "Note", "Invert", "Filter"} <= reached
    active = page.locator("[role=listbox]").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"


def test_a_thousand_images_cost_little_more_than_fifty(page: Any) -> None:
    """A virtual list: few elements, bounded memory, and a step that takes no longer."""
    timing = """async () => {
      const taken = [];
      for (let step = 0; step < 40; step += 1) {
        dispatchEvent(new KeyboardEvent("keydown", { key: "j" }));
        const start = performance.now();
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        taken.push(performance.now() - start);
        await new Promise(done => setTimeout(done, 30));
      }
      return taken;
    }"""
    measured = {}
    for count, seed in ((50, 0), (950, 50)):
        give(page, phantoms(count, size=128, seed=1000 + seed))
        total = count + seed
        settled(page, total, timeout=600)
        page.keyboard.press("Home")
        page.wait_for_timeout(500)
        client = page.context.new_cdp_session(page)
        client.send("HeapProfiler.collectGarbage")
        measured[total] = {
            "rows": page.locator("[role=option]").count(),
            "elements": page.evaluate("document.querySelectorAll('*').length"),
            "heap_mb": page.evaluate("performance.memory.usedJSHeapSize") / 1e6,
            "step_ms": statistics.median(page.evaluate(timing)),
        }
    assert measured[1000]["rows"] < 30
    assert measured[1000]["elements"] <= measured[50]["elements"] + 10
    assert measured[1000]["heap_mb"] < 120
    assert measured[1000]["step_ms"] < 4 * max(measured[50]["step_ms"], 10)
