"""Take the screenshots of the web app for the documentation: ``python scripts/web_app_screenshots.py``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from web_driving import chromium, drawn, opened, serving, settled, take  # noqa: E402

_MOST_BYTES = 400_000


def main() -> None:
    """Write docs/web_app.png and docs/web_app-phone.png."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log") as address, chromium() as browser:
        for name, phone in (("web_app.png", False), ("web_app-phone.png", True)):
            with opened(browser, address, phone=phone) as page:
                take(page, "All examples")
                settled(page, 8)
                page.locator("[role=option]").first.click()
                drawn(page)
                page.mouse.move(1, 1)
                out = ROOT / "docs" / name
                page.screenshot(path=out)
                _shrink(out, 0.75 if phone else 1)  # the phone screenshot has twice the resolution
                print(f"{out.relative_to(ROOT)}: {out.stat().st_size:,} bytes")
                assert out.stat().st_size <= _MOST_BYTES


def _shrink(path: Path, factor: float) -> None:
    """Reduce the size and the number of colors of a screenshot."""
    with Image.open(path) as image:
        size = round(image.width * factor), round(image.height * factor)
        small = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    coarse = np.minimum(np.rint(small / 2) * 2, 255).astype(np.uint8)
    Image.fromarray(coarse).save(path, optimize=True)


if __name__ == "__main__":
    main()
