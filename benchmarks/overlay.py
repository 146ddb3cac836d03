"""Measure how long an overlay takes to draw and to encode, beside the original project's way.

    python benchmarks/overlay.py --json benchmarks/results/overlay.json

Predictions for synthetic radiographs of 299 and 2,000 pixels are made first; each is drawn once per round by every way,
on one thread, and ratios are taken within rounds. The original tints the lungs at the image's own size and writes a
PNG; `hilum predict --save-overlays` draws outline, evidence and legend with at most 1,024 pixels a side. The original's
time includes bringing image and mask into the form that its drawing takes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from folder import as_the_original_draws
from measuring import command_of, machine, publish, spread

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.inference.predictor import Predictor
from hilum.inference.render import draw_overlay
from hilum.inference.result import Prediction
from hilum.inference.saving import Extras, Wanted, files_of
from hilum.phantoms.chest import PHANTOM_CLASSES, draw_phantom
from hilum.types import Radiograph

BOUNDS = {299: 4, 2000: 12}
"""Side of the image, pixels, to the most milliseconds that drawing may take."""
ORIGINAL = "original: draw and encode PNG"

Way = Callable[[Prediction], object]


def _original(result: Prediction) -> object:
    image = cv2.cvtColor(result.radiograph.pixels.astype(np.uint8), cv2.COLOR_GRAY2RGB)
    small = cv2.resize(result.mask.astype(np.float32), (256, 256))
    drawn = as_the_original_draws(np.asarray(image, np.uint8), np.asarray(small, np.float32), result.label)
    return cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))


def _hilum(wanted: Wanted) -> Way:
    return lambda result: list(files_of(Extras(), result, "a.png", wanted))


WAYS: dict[str, Way] = {
    ORIGINAL: _original,
    "draw": draw_overlay,
    "draw and encode PNG": _hilum(Wanted(overlays=True)),
    "draw and encode JPEG": _hilum(Wanted(overlays=True, overlay_format="jpg")),
}


def predictions(predictor: Predictor, side: int, count: int) -> list[Prediction]:
    """Predictions for ``count`` synthetic radiographs of ``side`` pixels that the input check accepts."""
    labels = itertools.cycle(PHANTOM_CLASSES)
    phantoms = (draw_phantom(seed, label, size=side) for seed, label in zip(range(10 * count), labels, strict=False))
    results = (predictor.predict(Radiograph(phantom.image)) for phantom in phantoms)
    return list(itertools.islice((result for result in results if isinstance(result, Prediction)), count))


def measure(results: list[Prediction], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per image of every way in each round; the order rotates, and a round before is dropped."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    names = list(WAYS)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            for result in results:
                WAYS[name](result)
            taken[name].append(1000 * (time.perf_counter() - start) / len(results))
    return {name: values[1:] for name, values in taken.items()}


def summary(taken: dict[str, list[float]], bound: float) -> list[dict[str, Any]]:
    """A row per way: times, and how many times the speed of the original's in the same round."""
    return [
        {
            "way": name,
            "ms": spread(values),
            "times_the_original": spread([first / own for first, own in zip(taken[ORIGINAL], values, strict=True)]),
            "bound": bound if name == "draw" else None,
        }
        for name, values in taken.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=12, help="images of each size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/overlay.json")
    arguments = parser.parse_args()
    before = machine()
    predictor = Predictor(load_bundle(resolve_bundle("default")))
    cv2.setNumThreads(1)
    sizes = {}
    for side, bound in BOUNDS.items():
        results = predictions(predictor, side, arguments.count)
        sizes[str(side)] = summary(measure(results, arguments.rounds), bound)
    result = {"command": command_of(parser, arguments), "rounds": arguments.rounds, "images": arguments.count}
    publish("overlay", result | {"sizes": sizes} | before, arguments.json)


if __name__ == "__main__":
    main()
