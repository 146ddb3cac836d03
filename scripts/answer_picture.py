"""Draw the README's picture anew: the packaged model's answer on a phantom. ``python scripts/answer_picture.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import hilum
from hilum.phantoms.chest import write_phantoms

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "overlay.png"
MOST_BYTES = 300_000


def main() -> None:
    """Write PICTURE: the phantom that the README and the quickstart predict on."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder) / "phantoms", 8, seed=0, size=640)
        image = Path(folder) / "phantoms" / "Lung_Opacity" / "images" / "Lung_Opacity-00003.png"
        result = hilum.load().predict(image)
    picture = result.overlay().convert("RGB")
    pixels = np.asarray(picture)
    gray = np.ptp(pixels, axis=2) == 0
    # Most bytes are the phantom's noise: 43 levels of gray are enough to look at. Colors stay as they are.
    levels = np.where(gray[:, :, None], np.rint(pixels / 6) * 6, pixels).clip(0, 255).astype(np.uint8)
    Image.fromarray(levels).save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    print(f"{PICTURE.relative_to(ROOT)}: {picture.width} x {picture.height}, {size:,} bytes")
    assert size <= MOST_BYTES


if __name__ == "__main__":
    main()
