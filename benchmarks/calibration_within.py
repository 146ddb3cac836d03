"""Measure the coverage of the calibration figures of sources, and how often equal sources are said to differ.

    python benchmarks/calibration_within.py          1,000 test sets of each kind, 1,000 resamples each
    python benchmarks/calibration_within.py --sets 100 --resamples 200 --json benchmarks/results/calibration_within.json

A test set has two classes from four sources, each with 150 patients with 1 to 3 images (about 240 images). What an
image shows is alike within a patient. The log-odds that the model reports in a source are a known multiple of the true
ones, so that the calibration slope is 1 / multiple. Images below a confidence of 0.8 are abstained on. The kinds:

    equal          calibrated in all sources: no source and no predicted class differs
    different      underconfident in one source, overconfident in another

The claim: the 95% intervals of each figure cover its true value in 93 to 97% of the test sets, and some part of the
equal kind is said to differ in at most 5%. Exit code 1 if an exact 95% interval of these shares excludes it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from measuring import proportion, publish
from scipy.special import expit

from hilum.bundle.calibration import Calibration
from hilum.bundle.prediction_sets import softmax
from hilum.metrics.calibration_within import calibration_within
from hilum.metrics.scores import Scores

PATIENTS = 150
SPREAD = 2.0
THRESHOLD = 0.8
KINDS = {"equal": (1.0, 1.0, 1.0, 1.0), "different": (0.6, 1.0, 1.0, 2.0)}
"""Kind to the multiple of the true log-odds that is reported in each of four sources."""
FIGURES = ("in_the_large", "slope", "intercept", "answered", "accuracy")
ALPHA = 0.05
BAND = (0.93, 0.97)
_TRUE_IMAGES = 1_000_000


def draw(multiples: tuple[float, ...], generator: np.random.Generator) -> Scores:
    """One test set."""
    patients = PATIENTS * len(multiples)
    patient = np.repeat(np.arange(patients), generator.integers(1, 4, patients))
    shown = generator.normal(size=patients)[patient] + generator.normal(size=patient.size)
    odds = SPREAD * np.sqrt(0.5) * shown
    labels = (generator.random(odds.size) < expit(odds)).astype(np.int64)
    source = patient // PATIENTS
    reported = odds * np.array(multiples)[source]
    logits = np.stack([-reported / 2, reported / 2], axis=1)
    nothing = np.full(odds.size, np.nan)
    return Scores(
        files=tuple(map(str, range(odds.size))), labels=labels, probabilities=softmax(logits), class_names=("a", "b"),
        groups=tuple(map(str, patient)), sources=tuple(f"source {s}" for s in source), dice=nothing, iou=nothing,
        split="simulated", logits=logits,
    )  # fmt: skip


@cache
def true_values(multiple: float) -> dict[str, float]:
    """The figures of a source with that multiple on a very large test set."""
    odds = np.abs(np.random.default_rng(1).normal(0, SPREAD, _TRUE_IMAGES))
    chance, reported = expit(odds), odds * multiple
    confidence = expit(reported)
    intercept = 0.0
    for _ in range(30):  # Newton's method
        expected = expit(reported + intercept)
        intercept += float((chance - expected).mean() / (expected * (1 - expected)).mean())
    answered = confidence >= THRESHOLD
    return {
        "in_the_large": float((confidence - chance).mean()),
        "slope": 1 / multiple,
        "intercept": intercept,
        "answered": float(answered.mean()),
        "accuracy": float(chance[answered].mean()),
    }


def simulate(number: int, multiples: tuple[float, ...], resamples: int) -> dict[str, Any]:
    """Hits and intervals of each figure over the sources, and whether parts are said to differ."""
    scores = draw(multiples, np.random.default_rng([5, number]))
    calibration = Calibration(1.0, {}, THRESHOLD, 0.95, 0, 0, "val")
    found = calibration_within(scores, calibration, resamples=resamples, seed=number)
    sources = [part for part in found.parts if part.kind == "source"]
    counts = {figure: [0, 0] for figure in FIGURES}
    for part, multiple in zip(sources, multiples, strict=True):
        for figure, value in true_values(multiple).items():
            interval = getattr(part, figure)
            if np.isfinite(interval.low):
                counts[figure][0] += bool(interval.low <= value <= interval.high)
                counts[figure][1] += 1
    apart = [bool(part.differs) for part, multiple in zip(sources, multiples, strict=True) if multiple != 1]
    return {"counts": counts, "any": any(part.differs for part in found.parts), "apart": apart}


def run(kind: str, sets: int, resamples: int, processes: int) -> dict[str, Any]:
    """All test sets of a kind."""
    start = time.perf_counter()
    work = partial(simulate, multiples=KINDS[kind], resamples=resamples)
    if processes > 1:
        with get_context("spawn").Pool(processes) as pool:
            found = list(pool.imap_unordered(work, range(sets), chunksize=5))
    else:
        found = list(map(work, range(sets)))
    hits = {figure: np.sum([one["counts"][figure] for one in found], axis=0) for figure in FIGURES}
    apart = [flag for one in found for flag in one["apart"]]
    return {
        "kind": kind,
        "multiples": KINDS[kind],
        "coverage": {figure: proportion(int(own[0]), int(own[1])) for figure, own in hits.items()},
        "any": proportion(sum(one["any"] for one in found), sets),
        "apart": proportion(sum(apart), len(apart)),
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="simulated test sets of each kind")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the shares")
    arguments = parser.parse_args()
    results = [run(kind, arguments.sets, arguments.resamples, arguments.processes) for kind in KINDS]
    settings = {"sets": arguments.sets, "resamples": arguments.resamples, "patients": PATIENTS}
    publish("calibration_within", settings | {"kinds": results}, arguments.json)
    failed = [
        f"{result['kind']} {figure}"
        for result in results
        for figure, share in result["coverage"].items()
        if share["high"] < BAND[0] or share["low"] > BAND[1]
    ]
    failed += ["equal sources"] if results[0]["any"]["low"] > ALPHA else []
    print(f"\nfailed: {', '.join(failed) or 'none'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
