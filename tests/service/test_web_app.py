"""The web app in Chromium: the queue, the list, the answer and the dialogs."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import statistics
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from web_driving import (
    drawn,
    give,
    opened,
    phantoms,
    saved,
    serving,
    settled,
    state,
    take,
)  # fmt: skip

from hilum.bundle.bundle import MODEL_CARD, load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.phantoms.chest import draw_phantom
from hilum.service.address import bind
from hilum.service.phantoms import example_png

pytestmark = [pytest.mark.browser, pytest.mark.slow]


_NONE_WORKING = "![...hilum.store.get().records.values()].some(one => one.status === 'working')"


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
    page.wait_for_function(f"() => {_NONE_WORKING}")
    before = state(page, "[...state.records.values()].filter(one => one.status === 'waiting').length")
    assert before > 0
    page.wait_for_timeout(500)
    assert state(page, "[...state.records.values()].filter(one => one.status === 'waiting').length") == before
    page.get_by_role("button", name="Resume").click()
    settled(page, 40)


def test_a_restart_of_the_service_loses_nothing(browser: Any, tmp_path: Path) -> None:
    """The page says that the service is away, keeps its answers, and goes on when it is back."""
    with bind("127.0.0.1", 0) as free:
        port = str(free.getsockname()[1])
    with contextlib.ExitStack() as first:
        address = first.enter_context(serving(tmp_path / "first", "--port", port))
        with opened(browser, address) as page:
            give(page, phantoms(60))
            answered = "[...state.records.values()].filter(one => one.prediction).map(one => one.key)"
            page.wait_for_function("() => [...hilum.store.get().records.values()].some(one => one.prediction)")
            page.get_by_role("button", name="Pause").click()
            page.wait_for_function(f"() => {_NONE_WORKING}")
            kept = state(page, answered)
            assert 0 < len(kept) < 60
            page.evaluate("() => hilum.store.set({ images: new Map() })")  # nothing is in view yet
            first.close()
            page.get_by_role("button", name="Resume").click()
            page.locator("#model.unreachable").wait_for()
            assert state(page, answered) == kept
            page.keyboard.press("j")
            with serving(tmp_path / "second", "--port", port):
                settled(page, 60)
                assert state(page, "[...state.records.values()].filter(one => one.status === 'failed').length") == 0
                assert set(kept) <= set(state(page, answered))
                page.locator("#model:not(.unreachable)").get_by_text("model:").wait_for()
                drawn(page)


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


def test_a_dialog_that_closes_takes_no_key_and_no_other_dialog_with_it(page: Any) -> None:
    """The browser's close event comes after the dialog is gone: what was pressed in between was lost."""
    lost = page.evaluate(
        """async () => {
          const { store } = hilum;
          const frame = () => new Promise(done => requestAnimationFrame(done));
          const dialog = document.querySelector("dialog");
          let lost = 0;
          for (let turn = 0; turn < 20; turn += 1) {
            store.set({ dialog: "card" });
            await frame();
            dialog.dispatchEvent(new Event("cancel", { cancelable: true })) && dialog.close();
            dispatchEvent(new KeyboardEvent("keydown", { key: "?" }));
            for (let count = 0; count < 3; count += 1) await frame();
            lost += !(store.get().dialog === "help" && dialog.open);
            store.set({ dialog: null });
            for (let count = 0; count < 3; count += 1) await frame();
          }
          return lost;
        }"""
    )
    assert lost == 0


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
