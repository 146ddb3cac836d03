"""The page in a real Chromium: a server of its own, and the few things that tests and screenshots do with it."""

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

from playwright.sync_api import Locator, Page, sync_playwright

from hilum.inference.render import png_bytes
from hilum.phantoms.chest import PHANTOM_CLASSES, draw_phantom

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
_START = "from hilum.cli import main; main()"


@contextlib.contextmanager
def serving(log: Path, *arguments: str) -> Iterator[str]:
    """``hilum app`` on a free port; its address, once it answers."""
    command = [sys.executable, "-c", _START, "app", "--port", "0", *arguments]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream, stdout=stream, env={**os.environ, "COLUMNS": "200"})
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
    for _ in range(600):
        if found := re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text()):
            try:
                with urllib.request.urlopen(f"{found[0]}/_stcore/health", timeout=5):
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
            executable_path=shutil.which(name), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, address: str, *, phone: bool = False) -> Iterator[Page]:
    """The page in a window of its own, thereby in a session of its own, once the gallery is there."""
    options: dict[str, Any] = {"viewport": DESKTOP}
    if phone:
        options = {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    context = browser.new_context(**options, accept_downloads=True)
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Take all").wait_for(timeout=30_000)
    yield page
    context.close()


def take(page: Page, caption: str) -> None:
    """Press a phantom of the gallery, or all."""
    page.get_by_role("button", name=caption, exact=True).first.click()


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    """Give the upload box some files."""
    box = page.locator('[data-testid="stFileUploader"] input[type="file"]')
    box.set_input_files(
        [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in files]
    )


def phantoms(count: int, size: int = 192) -> list[tuple[str, bytes]]:
    """Names and PNGs of phantoms of all classes, for a batch."""
    numbered = [(100 + number, PHANTOM_CLASSES[number % len(PHANTOM_CLASSES)]) for number in range(count)]
    return [(f"phantom-{seed}.png", png_bytes(draw_phantom(seed, label, size=size).image)) for seed, label in numbered]


def shown(page: Page, name: str, status: str = "ok") -> Locator:
    """The viewer, once it shows that image with an answer of that status."""
    viewer = page.locator(f'[data-film="{name}"][data-status="{status}"]')
    viewer.wait_for(timeout=30_000)
    return viewer


def settled(page: Page) -> None:
    """Wait until every image is answered."""
    page.locator(".progress").wait_for(state="hidden", timeout=60_000)


def rows(page: Page) -> Locator:
    """The images of the list."""
    return page.locator("li[role=option]")


def picture(page: Page) -> str:
    """What is on the canvas, as a data URL."""
    found: str = page.locator("canvas").evaluate(
        """async canvas => {
             const frame = () => new Promise(requestAnimationFrame);
             do await frame(); while (canvas.width < 100);  // not yet laid out
             return canvas.toDataURL();
           }"""
    )
    return found


def slide(page: Page, name: str, value: int) -> None:
    """Move a slider of the viewer."""
    page.locator(f"#slide-{name}").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def saved(page: Page, label: str) -> tuple[str, bytes]:
    """Name and content of a download; its menu is opened and closed."""
    page.get_by_role("button", name="Download").first.click()
    with page.expect_download(timeout=30_000) as waiting:
        page.get_by_role("button", name=label).click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=label).wait_for(state="hidden")
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()
