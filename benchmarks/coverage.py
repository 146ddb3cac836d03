"""Measure how often a 95% interval contains the true value, on simulated test sets of correlated images.

    python benchmarks/coverage.py                     1,000 test sets of each design, 1,000 resamples each
    python benchmarks/coverage.py --processes 2 --json benchmarks/results/coverage.json

A test set has 220 patients with 1 to 5 images (about 515 images) of four uneven classes. A logit is the sum of a class
effect, a random effect of the patient and one of the image; so is the Dice of the mask, which six in ten images have.
The intervals are those of figures_of and calibration_figures, which `hilum evaluate` prints. The true value of each
figure is computed from 900,000 patients (2 million images). The designs:

    ordinary       an accuracy of 0.79; the number of patients of each class is fixed, as `hilum split` fixes it
    few errors     the same with an accuracy of 0.93
    free shares    as ordinary, with the number of patients of each class left to chance

Within `ordinary`, the same bootstrap also runs as if every image were a patient of its own: `unclustered`.

The claim is coverage from 93% to 97% for the figures of CLAIMED in the ordinary design. Exit code 1 if one of them is
outside by more than chance explains (its exact 95% interval misses that range). The ECE is shown beside them: its
interval errs on the wide side by design (hilum.metrics.calibration).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from measuring import publish
from scipy.stats import binomtest

from hilum.bundle.prediction_sets import softmax
from hilum.metrics.bootstrap import Interval
from hilum.metrics.calibration import calibration_figures
from hilum.metrics.scores import Scores
from hilum.metrics.table import BY_CLASS, OVERALL, Key, figures_of, statistics_of

CLASSES = ("Normal", "Opacity", "COVID", "Viral")
SHARES = np.array([0.45, 0.27, 0.18, 0.10])
# Of each class, how many of its patients have 1, 2, ... 5 images.
SIZES = np.array([[0.5, 0.2, 0.15, 0.1, 0.05], [0.5, 0.2, 0.15, 0.1, 0.05], [0.2] * 5, [0.3, 0.25, 0.2, 0.15, 0.1]])
SIGNAL = np.array([2.2, 1.6, 2.0, 2.4])
OFFSET = np.array([0.3, 0.2, 0.0, -0.2])
PATIENTS, TRUE_PATIENTS = 220, 900_000
CLAIMED = {Key(metric) for metric in (*OVERALL, "dice", "iou", "brier")} | {
    Key(metric, name) for metric in BY_CLASS for name in CLASSES
}
RANGE = (0.93, 0.97)


@dataclass(frozen=True)
class Design:
    """A population and how test sets are drawn from it."""

    name: str
    ease: float = 0.0  # added to the signal of every class
    free_shares: bool = False
    unclustered: bool = False


DESIGNS = (
    Design("ordinary", unclustered=True),
    Design("few errors", ease=1.0),
    Design("free shares", free_shares=True),
)


def draw(design: Design, patients: int, generator: np.random.Generator) -> Scores:
    """One test set. Its groups are empty beyond 100,000 patients, where nothing asks for them."""
    exact = np.round(SHARES * patients).astype(np.int64)
    counts = generator.multinomial(patients, SHARES) if design.free_shares else exact
    size = np.concatenate([generator.choice(5, n, p=SIZES[k]) + 1 for k, n in enumerate(counts)])
    patient = np.repeat(np.arange(size.size), size)
    labels = np.repeat(np.arange(len(CLASSES)), counts)[patient]
    n = labels.size
    logits = (SIGNAL + design.ease) * np.eye(len(CLASSES))[labels] + OFFSET
    logits += 0.8 * generator.normal(size=(size.size, len(CLASSES)))[patient] + 0.8 * generator.normal(size=(n, 4))
    logits *= 1.4  # overconfident, so that there is a calibration error
    overlap = (
        2.6 - 0.4 * (labels == 2) + 0.5 * generator.normal(size=size.size)[patient] + 0.5 * generator.normal(size=n)
    )
    dice = np.where(generator.random(n) < 0.6, 1 / (1 + np.exp(-overlap)), np.nan)
    few = size.size <= 100_000
    return Scores(
        files=tuple(map(str, range(n))) if few else ("",) * n, labels=labels, probabilities=softmax(logits),
        class_names=CLASSES, groups=tuple(map(str, patient)) if few else ("",) * n, sources=(None,) * n, dice=dice,
        iou=dice / (2 - dice), split="simulated", logits=logits,
    )  # fmt: skip


def intervals_of(scores: Scores, resamples: int, seed: int) -> dict[Key, Interval]:
    """Every interval that hilum evaluate prints of a split without sources."""
    assert scores.logits is not None
    found = figures_of(scores, resamples=resamples, seed=seed)
    calibration = calibration_figures(scores.logits, scores.labels, scores.clusters(), resamples=resamples, seed=seed)
    return {**found, Key("brier"): calibration.brier, Key("ece"): calibration.ece}


def true_values(design: Design, patients: int = TRUE_PATIENTS) -> dict[Key, float]:
    """Every figure of a very large test set."""
    scores = draw(design, patients, np.random.default_rng(1))
    assert scores.logits is not None
    values = {key: float(value[0]) for key, value in statistics_of(scores)(np.ones((1, len(scores.files)))).items()}
    rows = slice(None, None, 5)  # memory
    part, labels = scores.logits[rows], scores.labels[rows]
    calibration = calibration_figures(part, labels, np.arange(labels.size), resamples=2)
    return values | {Key("brier"): calibration.brier.value, Key("ece"): calibration.ece.value}


def simulate(number: int, design: Design, patients: int, resamples: int) -> dict[str, dict[Key, Interval]]:
    """The intervals of one simulated test set, per way."""
    scores = draw(design, patients, np.random.default_rng([2, number]))
    found = {"clustered": intervals_of(scores, resamples, number)}
    if design.unclustered:
        alone = replace(scores, groups=("",) * len(scores.files))
        found["unclustered"] = intervals_of(alone, resamples, number)
    return found


def count(results: Iterable[dict[str, dict[Key, Interval]]], truth: dict[Key, float]) -> dict[str, dict[Key, Any]]:
    """Per way and figure: how often the interval was above and below the truth, and its width."""
    tallies: dict[str, dict[Key, Any]] = {}
    for result in results:
        for way, intervals in result.items():
            for key, interval in intervals.items():
                tally = tallies.setdefault(way, {}).setdefault(key, {"sets": 0, "above": 0, "below": 0, "width": 0.0})
                if np.isnan(interval.low):  # undefined, or from one group
                    continue
                tally["sets"] += 1
                tally["above"] += int(interval.low > truth[key])
                tally["below"] += int(interval.high < truth[key])
                tally["width"] += interval.high - interval.low
    return tallies


def rows_of(truth: dict[Key, float], tallies: dict[str, dict[Key, Any]]) -> Iterator[dict[str, Any]]:
    """One entry per figure, as JSON."""
    for key, tally in tallies["clustered"].items():
        n, missed = tally["sets"], tally["above"] + tally["below"]
        exact = binomtest(n - missed, n).proportion_ci(method="exact")
        row = {
            "metric": key.metric, "class_name": key.class_name, "versus": key.versus, "truth": truth[key], "sets": n,
            "coverage": 1 - missed / n, "low": exact.low, "high": exact.high,
            "interval_above_truth": tally["above"], "interval_below_truth": tally["below"],
            "mean_width": tally["width"] / n, "claimed": key in CLAIMED,
        }  # fmt: skip
        if "unclustered" in tallies:
            other = tallies["unclustered"][key]
            row["unclustered_coverage"] = 1 - (other["above"] + other["below"]) / other["sets"]
        yield row


def run(design: Design, sets: int, patients: int, resamples: int, processes: int) -> dict[str, Any]:
    start = time.perf_counter()
    truth = true_values(design)
    work = partial(simulate, design=design, patients=patients, resamples=resamples)
    if processes > 1:
        with get_context("spawn").Pool(processes) as pool:
            tallies = count(pool.imap_unordered(work, range(sets), chunksize=5), truth)
    else:
        tallies = count(map(work, range(sets)), truth)
    rows = list(rows_of(truth, tallies))
    return {"design": design.name, "seconds": time.perf_counter() - start, "figures": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="simulated test sets of each design")
    parser.add_argument("--patients", type=int, default=PATIENTS)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--design", choices=[d.name for d in DESIGNS], action="append", help="only this one; repeat")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/coverage.json")
    arguments = parser.parse_args()
    chosen = [d for d in DESIGNS if arguments.design is None or d.name in arguments.design]
    results = [
        run(design, arguments.sets, arguments.patients, arguments.resamples, arguments.processes) for design in chosen
    ]
    settings = {"sets": arguments.sets, "patients": arguments.patients, "resamples": arguments.resamples}
    publish("coverage", settings | {"level": 0.95, "range": RANGE, "designs": results}, arguments.json)
    claimed = [
        row for result in results if result["design"] == "ordinary" for row in result["figures"] if row["claimed"]
    ]
    outside = [row for row in claimed if not RANGE[0] <= row["coverage"] <= RANGE[1]]
    failed = [row for row in outside if row["high"] < RANGE[0] or row["low"] > RANGE[1]]
    print(
        f"\nordinary: {len(claimed)} figures claimed, {len(claimed) - len(outside)} within 93-97%, {len(failed)} failed"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
