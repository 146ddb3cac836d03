"""Measure the time of all figures of an evaluated split with their intervals.

    python benchmarks/evaluate.py                     3,000 images, 4 classes, 8 sources, 1,000 resamples, 5 rounds

All figures that `hilum evaluate` computes for classes, sources, contrasts and masks, from one bootstrap clustered by
group (1 to 5 images), on one thread. Exit code 1 if they take more than 20 s. The result includes the load average at
the start.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from measuring import machine, publish, spread

from hilum.bundle.prediction_sets import softmax
from hilum.metrics.scores import Scores
from hilum.metrics.table import figures_of

BOUND = 20.0
CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral")


def simulated(images: int, sources: int) -> Scores:
    """Scores of the given size; every source has images of every class, and every image a mask."""
    generator = np.random.default_rng(0)
    labels = generator.choice(len(CLASSES), images, p=[0.18, 0.27, 0.45, 0.10])
    logits = 2.5 * np.eye(len(CLASSES))[labels] + generator.normal(size=(images, len(CLASSES)))
    dice = generator.beta(40, 4, images)
    # Runs of 1 to 5 images of one class are a group.
    order = np.argsort(labels, kind="stable")
    starts = np.cumsum(generator.integers(1, 6, images))
    group = np.empty(images, np.int64)
    group[order] = np.searchsorted(starts, np.arange(images), side="right")
    return Scores(
        files=tuple(map(str, range(images))), labels=labels, probabilities=softmax(logits), class_names=CLASSES,
        groups=tuple(f"{g}-{label}" for g, label in zip(group, labels, strict=True)),
        sources=tuple(f"source {s}" for s in generator.integers(0, sources, images)), dice=dice, iou=dice / (2 - dice),
        split="simulated", logits=logits, hd95_share=generator.gamma(2, 3, images),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/evaluate.json")
    arguments = parser.parse_args()
    before = machine()
    scores = simulated(arguments.images, arguments.sources)
    seconds, figures = [], 0
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        figures = len(figures_of(scores, resamples=arguments.resamples))
        seconds.append(time.perf_counter() - start)
    result = {
        "images": arguments.images, "groups": int(scores.clusters().max()) + 1, "sources": arguments.sources,
        "classes": len(CLASSES), "resamples": arguments.resamples, "figures": figures, "rounds": arguments.rounds,
        "threads": 1, "seconds": spread(seconds), "bound": BOUND,
    }  # fmt: skip
    publish("evaluate", result | before, arguments.json)
    if (median := statistics.median(seconds)) > BOUND:
        sys.exit(f"The intervals took {median:.1f} s, at most {BOUND:.0f} s is allowed")


if __name__ == "__main__":
    main()
