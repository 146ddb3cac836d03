"""The web app in a real Chromium: a server of its own, and the few things that tests and screenshots do with it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from hilum.inference.png import png_bytes
from hilum.phantoms.chest import PHANTOM_CLASSES, draw_phantom

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
_START = "from hilum.cli import main; main()"
_OPEN = (
    "() => [...hilum.store.get().records.values()].filter(one => ['waiting', 'working'].includes(one.status)).length"
)


@contextlib.contextmanager
def serving(log: Path, *arguments: str, token: str = "") -> Iterator[str]:
    """``hilum serve`` on a free port; its address, once it answers."""
    command = [sys.executable, "-c", _START, "serve", "--port", "0", *arguments]
    environment = {**os.environ, "COLUMNS": "200", "HILUM_TOKEN": token}
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream, stdout=stream, env=environment)
    try:
        yield _address(log, process)
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(900):
        if found := re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text()):
            try:
                with urllib.request.urlopen(f"{found[0]}/healthz", timeout=5):
                    return found[0]
            except urllib.error.URLError:
                pass
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The Chromium of this machine."""
    name = next(name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which(name),
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--enable-precise-memory-info"],
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, address: str, *, phone: bool = False, dark: bool = False) -> Iterator[Page]:
    """The app in a window of its own, once the examples are there; errors in the page fail the test."""
    options: dict[str, Any] = {"viewport": DESKTOP}
    if phone:
        options = {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    context = browser.new_context(**options, color_scheme="dark" if dark else "light", accept_downloads=True)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    page.goto(address)
    page.get_by_role("button", name="All examples").wait_for(timeout=60_000)
    yield page
    assert errors == []
    context.close()


def take(page: Page, caption: str) -> None:
    """Press an example, or all."""
    page.locator("#welcome").get_by_role("button", name=caption, exact=True).click()


def give(page: Page, files: list[tuple[str, bytes]] | Path) -> None:
    """Open files, or a folder."""
    with page.expect_file_chooser() as waiting:
        page.locator("#actions").get_by_role(
            "button", name="Open folder" if isinstance(files, Path) else "Open files"
        ).click()
    if isinstance(files, Path):
        waiting.value.set_files(files)
    else:
        waiting.value.set_files(
            [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in files]
        )


def phantoms(count: int, size: int = 192, seed: int = 100) -> list[tuple[str, bytes]]:
    """Names and PNGs of phantoms of all classes."""
    numbered = [(seed + number, PHANTOM_CLASSES[number % len(PHANTOM_CLASSES)]) for number in range(count)]
    return [(f"phantom-{seed}.png", png_bytes(draw_phantom(seed, label, size=size).image)) for seed, label in numbered]


def settled(page: Page, count: int, timeout: float = 120) -> None:
    """Wait until so many images are there and each is answered."""
    page.wait_for_function(
        f"() => hilum.store.get().records.size === {count} && ({_OPEN})() === 0", timeout=1000 * timeout
    )
    painted(page)


def drawn(page: Page) -> None:
    """Wait until the viewer shows the decoded image."""
    page.locator('canvas.main[data-content="image"]').wait_for(timeout=30_000)
    painted(page)


def painted(page: Page) -> None:
    """Wait for two frames."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def state(page: Page, expression: str) -> Any:
    """A value of the app's state: an expression of ``state`` and of the selected ``record``."""
    return page.evaluate(
        f"() => {{ const state = hilum.store.get(), record = state.records.get(state.selected); return {expression}; }}"
    )


def picture(page: Page) -> str:
    """What is on the canvas, as a data URL."""
    painted(page)
    found: str = page.locator("canvas.main").evaluate("canvas => canvas.toDataURL()")
    return found


def saved(page: Page, label: str) -> tuple[str, bytes]:
    """Name and content of a download of the open dialog."""
    with page.expect_download(timeout=180_000) as waiting:
        page.get_by_role("dialog").get_by_role("button", name=label).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()
