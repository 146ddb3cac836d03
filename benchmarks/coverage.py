"""Measure how often a 95% interval contains the true value, on simulated test sets of correlated images.

    python benchmarks/coverage.py                     1,000 test sets of each design, 500 resamples each
    python benchmarks/coverage.py --processes 2 --json benchmarks/results/coverage.json

With --json, the file is written after each design, and designs that it already holds are not run again.

A patient has 1 to 5 images of one of four classes. A logit is the sum of a class effect, a random effect of the patient
and one of the image; so is the Dice of the mask, which six in ten images have. The intervals are those of figures_of,
calibration_figures and compare, which `hilum evaluate` and `hilum compare` print. The true value of each figure is
computed from 900,000 patients (2 million images). The designs, by their patients per class:

    ordinary       99, 59, 40 and 22 (about 515 images), an accuracy of 0.79
    few errors     the same with an accuracy of 0.93
    free shares    as ordinary, with the number of patients of each class left to chance
    12, 8, 5, 3, 2 40, 30 and 20, and so many of the rarest class; 8 and 5 also with few errors
    two models     differences of two models, of ordinary; and with 12 and 5 patients of the rarest class

Within `ordinary`, the same bootstrap also runs as if every image were a patient of its own: `unclustered`.

The intervals are for the classes' shares of the test set. Where these are left to chance, the true value is therefore
that of a population with the shares of the test set; `population_coverage` is for the shares of the population.

A figure fails where its coverage is outside of 93% to 97% by more than chance explains (its exact 95% interval misses
that range). Above 97% it does not fail where the intervals claim to be of at least 95% in most sets (`at_least`:
hilum.metrics.bootstrap.Interval). A figure is refused where most sets have no interval for it. Exit code 1 if a figure
fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from measuring import publish
from scipy.stats import binomtest

from hilum.bundle.prediction_sets import softmax
from hilum.evaluation.compare import compare
from hilum.metrics.bootstrap import Interval
from hilum.metrics.calibration import calibration_figures
from hilum.metrics.scores import FloatArray, Scores
from hilum.metrics.table import Key, figures_of, statistics_of
from hilum.storage import as_json, write_json

CLASSES = ("Normal", "Opacity", "COVID", "Viral")
# Of each class, how many of its patients have 1, 2, ... 5 images.
SIZES = np.array([[0.5, 0.2, 0.15, 0.1, 0.05], [0.5, 0.2, 0.15, 0.1, 0.05], [0.2] * 5, [0.3, 0.25, 0.2, 0.15, 0.1]])
SIGNAL = np.array([2.2, 1.6, 2.0, 2.4])
OFFSET = np.array([0.3, 0.2, 0.0, -0.2])
PATIENTS = (99, 59, 40, 22)
TRUE_PATIENTS, SHARE_PATIENTS = 900_000, 25_000  # the second where every test set has a true value of its own
RANGE = (0.93, 0.97)


@dataclass(frozen=True)
class Design:
    """A population and how test sets are drawn from it."""

    name: str
    patients: tuple[int, ...] = PATIENTS
    ease: float = 0.0  # added to the signal of every class
    free_shares: bool = False
    unclustered: bool = False
    two_models: bool = False


def few(rarest: int) -> tuple[int, ...]:
    return (40, 30, 20, rarest)


DESIGNS = (
    Design("ordinary", unclustered=True),
    Design("few errors", ease=1.0),
    Design("free shares", free_shares=True),
    *(Design(f"{rarest} patients", few(rarest)) for rarest in (12, 8, 5, 3, 2)),
    Design("8 patients, few errors", few(8), ease=1.0),
    Design("5 patients, few errors", few(5), ease=1.0),
    Design("two models", two_models=True),
    Design("two models, 12 patients", few(12), two_models=True),
    Design("two models, 5 patients", few(5), two_models=True),
)


def draw(design: Design, patients: int, generator: np.random.Generator) -> tuple[Scores, Scores]:
    """One test set with the scores of two models; of more than 20,000 patients, without groups."""
    shares = np.array(design.patients) / sum(design.patients)
    counts = generator.multinomial(patients, shares) if design.free_shares else np.round(shares * patients).astype(int)
    size = np.concatenate([generator.choice(5, n, p=SIZES[k]) + 1 for k, n in enumerate(counts)])
    patient = np.repeat(np.arange(size.size), size)
    labels = np.repeat(np.arange(len(CLASSES)), counts)[patient]
    n = labels.size
    image = 0.8 * generator.normal(size=(n, 4))
    own = 0.8 * generator.normal(size=(size.size, len(CLASSES)))[patient]
    overlap = (
        2.6 - 0.4 * (labels == 2) + 0.5 * generator.normal(size=size.size)[patient] + 0.5 * generator.normal(size=n)
    )
    masked = np.where(generator.random(n) < 0.6, 0.0, np.nan)
    named = size.size <= 20_000

    def scores(ease: float, noise: FloatArray, overlap: FloatArray) -> Scores:
        logits = 1.4 * ((SIGNAL + ease) * np.eye(len(CLASSES))[labels] + OFFSET + own + noise)  # 1.4: overconfident
        dice = masked + 1 / (1 + np.exp(-overlap))
        return Scores(
            files=tuple(map(str, range(n))) if named else ("",) * n, labels=labels, probabilities=softmax(logits),
            class_names=CLASSES, groups=tuple(map(str, patient)) if named else ("",) * n, sources=(None,) * n,
            dice=dice, iou=dice / (2 - dice), split="simulated", logits=logits,
        )  # fmt: skip

    first = scores(design.ease, image, overlap)
    other = 0.6 * image + 0.64 * generator.normal(size=(n, 4))
    return first, scores(design.ease + 0.2, other, overlap + 0.1 + 0.3 * generator.normal(size=n))


def intervals_of(pair: tuple[Scores, Scores], design: Design, resamples: int, seed: int) -> dict[Key, Interval]:
    """The intervals of figures_of and calibration_figures, or of compare for two models."""
    scores, other = pair
    if design.two_models:
        found = compare(scores, other, resamples=resamples, seed=seed).differences
        return {difference.key: difference.interval for difference in found}
    assert scores.logits is not None
    figures = figures_of(scores, resamples=resamples, seed=seed)
    calibration = calibration_figures(scores.logits, scores.labels, scores.clusters(), resamples=resamples, seed=seed)
    return {**figures, **{Key(name): getattr(calibration, name) for name in ("brier", "nll", "ece")}}


def values_of(scores: Scores, shares: FloatArray | None = None) -> dict[Key, float]:
    """Every figure of a large test set, with its images weighted so that the classes have these shares of patients."""
    assert scores.logits is not None
    weight = np.ones(len(scores.files))
    if shares is not None:
        weight = (shares / np.bincount(scores.labels))[scores.labels]
    values = {key: float(value[0]) for key, value in statistics_of(scores)(weight[None] / weight.mean()).items()}
    part = slice(None, None, max(1, weight.size // 400_000))  # memory
    probabilities, labels = scores.probabilities[part], scores.labels[part]
    squares = ((probabilities - np.eye(len(CLASSES))[labels]) ** 2).sum(axis=1)
    own = np.log(np.maximum(probabilities[np.arange(labels.size), labels], 1e-300))
    ece = calibration_figures(scores.logits[part], labels, np.zeros(labels.size, np.int64), resamples=2).ece.value
    brier, nll = (float(np.average(each, weights=weight[part])) for each in (squares, -own))
    return values | {Key("brier"): brier, Key("nll"): nll, Key("ece"): ece}


def true_values(design: Design, patients: int = TRUE_PATIENTS) -> dict[Key, float]:
    """Every figure of a very large test set, or every difference of the two models."""
    even = replace(design, free_shares=False)
    first, second = (values_of(scores) for scores in draw(even, patients, np.random.default_rng(1)))
    if not design.two_models:
        return first
    return {key: second[key] - value for key, value in first.items() if key.metric not in ("brier", "nll", "ece")}


@lru_cache(maxsize=1)
def _population(design: Design) -> Scores:
    return draw(replace(design, free_shares=False), SHARE_PATIENTS, np.random.default_rng(1))[0]


@dataclass(frozen=True)
class Simulated:
    """The intervals of one simulated test set.

    Attributes:
        intervals: Way (``clustered`` or ``unclustered``) to the figures.
        truth: The true values at the classes' shares of the test set; None where they are those of the population.
    """

    intervals: dict[str, dict[Key, Interval]]
    truth: dict[Key, float] | None = None


def simulate(number: int, design: Design, resamples: int) -> Simulated:
    """Draw one test set and compute its intervals."""
    pair = draw(design, sum(design.patients), np.random.default_rng([2, number]))
    found = {"clustered": intervals_of(pair, design, resamples, number)}
    if design.unclustered:
        alone = replace(pair[0], groups=("",) * len(pair[0].files))
        found["unclustered"] = intervals_of((alone, alone), design, resamples, number)
    own = None
    if design.free_shares:
        own = values_of(_population(design), np.bincount(pair[0].labels, minlength=len(CLASSES)).astype(np.float64))
    return Simulated(found, own)


@dataclass
class Tally:
    """How often the interval of a figure was above and below the truth, of at least 95%, or missing; and its width."""

    sets: int = 0
    above: int = 0
    below: int = 0
    at_least: int = 0
    missed_population: int = 0
    width: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, interval: Interval, truth: float, population: float) -> None:
        """Count one interval; without one, its reason."""
        if np.isnan(interval.low):
            self.refused[interval.no_interval or "few_groups"] += 1
            return
        self.sets += 1
        self.above += int(interval.low > truth)
        self.below += int(interval.high < truth)
        self.at_least += int(interval.at_least)
        self.missed_population += int(not interval.low <= population <= interval.high)
        self.width += interval.high - interval.low


def count(results: Iterable[Simulated], truth: Mapping[Key, float]) -> dict[str, dict[Key, Tally]]:
    """Tally all simulated test sets by way and figure."""
    tallies: dict[str, dict[Key, Tally]] = {}
    for result in results:
        for way, intervals in result.intervals.items():
            for key, interval in intervals.items():
                own = truth if result.truth is None else result.truth
                tallies.setdefault(way, {}).setdefault(key, Tally()).add(interval, own[key], truth[key])
    return tallies


def rows_of(
    design: Design, truth: Mapping[Key, float], tallies: Mapping[str, Mapping[Key, Tally]]
) -> Iterator[dict[str, Any]]:
    """One entry per figure, as JSON."""
    for key, tally in tallies["clustered"].items():
        n, missed = tally.sets, tally.above + tally.below
        none = sum(tally.refused.values())
        row: dict[str, Any] = {
            "metric": key.metric, "class_name": key.class_name, "versus": key.versus, "truth": truth[key], "sets": n,
            "without_interval": none, "reason": tally.refused.most_common(1)[0][0] if none else None,
        }  # fmt: skip
        if none > n:
            yield row | {"coverage": None, "status": "refused"}
            continue
        exact = binomtest(n - missed, n).proportion_ci(method="exact")
        row |= {
            "coverage": 1 - missed / n, "at_least": tally.at_least / n, "low": exact.low, "high": exact.high,
            "interval_above_truth": tally.above, "interval_below_truth": tally.below, "mean_width": tally.width / n,
            "status": status_of(1 - missed / n, exact.low, exact.high, tally.at_least / n > 0.5),
        }  # fmt: skip
        if design.free_shares:
            row["population_coverage"] = 1 - tally.missed_population / n
        if "unclustered" in tallies:
            other = tallies["unclustered"][key]
            row["unclustered_coverage"] = 1 - (other.above + other.below) / other.sets
        yield row


def status_of(coverage: float, low: float, high: float, at_least: bool) -> str:
    """Return ``held``, ``chance`` (outside of RANGE, but not by more than chance), ``wide`` or ``failed``."""
    if RANGE[0] <= coverage <= RANGE[1]:
        return "held"
    if high < RANGE[0] or (low > RANGE[1] and not at_least):
        return "failed"
    return "wide" if coverage > RANGE[1] and at_least else "chance"


def run(design: Design, sets: int, resamples: int, processes: int) -> dict[str, Any]:
    """Simulate one design."""
    start = time.perf_counter()
    truth = true_values(design)
    work = partial(simulate, design=design, resamples=resamples)
    if processes > 1:
        with get_context("spawn").Pool(processes) as pool:
            tallies = count(pool.imap_unordered(work, range(sets), chunksize=5), truth)
    else:
        tallies = count(map(work, range(sets)), truth)
    rows = list(rows_of(design, truth, tallies))
    seconds = time.perf_counter() - start
    return {"design": design.name, "patients": design.patients, "seconds": seconds, "figures": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="simulated test sets of each design")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--design", choices=[d.name for d in DESIGNS], action="append", help="only this one; repeat")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/coverage.json")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "sets": arguments.sets, "resamples": arguments.resamples, "level": 0.95, "range": list(RANGE), "designs": [],
    }  # fmt: skip
    if arguments.json and arguments.json.is_file():
        kept = json.loads(arguments.json.read_text(encoding="utf-8"))
        if all(kept.get(name) == value for name, value in result.items() if name != "designs"):
            result["designs"] = kept["designs"]
    order = [design.name for design in DESIGNS]
    for design in DESIGNS:
        wanted = arguments.design is None or design.name in arguments.design
        if not wanted or any(own["design"] == design.name for own in result["designs"]):
            continue
        found = run(design, arguments.sets, arguments.resamples, arguments.processes)
        result["designs"] = sorted([*result["designs"], found], key=lambda own: order.index(own["design"]))
        if arguments.json:
            write_json(arguments.json, as_json(result))
    publish("coverage", result, arguments.json)
    sys.exit(1 if report(result["designs"]) else 0)


def report(designs: Iterable[Mapping[str, Any]]) -> int:
    """Print the figures outside of RANGE, and return how many failed."""
    failed = 0
    for own in designs:
        by_status = Counter(row["status"] for row in own["figures"])
        failed += by_status["failed"]
        print(f"\n{own['design']}: {dict(by_status)}, {own['seconds']:.0f} s")
        for row in own["figures"]:
            if row["status"] in ("failed", "chance", "wide"):
                name = " ".join(filter(None, (row["metric"], row["class_name"], row["versus"])))
                print(f"  {row['status']:7} {name:28} {row['coverage']:.1%} ({row['low']:.1%}-{row['high']:.1%})")
    return failed


if __name__ == "__main__":
    main()
