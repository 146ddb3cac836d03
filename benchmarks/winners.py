"""Measure how often `hilum compare` calls one of two equally good models better, and how often the better of two.

    python benchmarks/winners.py                     1,000 equal and 300 different pairs of models, 1,000 resamples each
    python benchmarks/winners.py --processes 2 --json benchmarks/results/winners.json

A test set has 240 patients with 1 to 5 images (about 560 images) of four uneven classes, the rarest with 24 patients,
from four uneven sources, three of which lack a class. Both models see what an image shows, and each adds an error of
its own for the patient and for the image, to the logits as to the overlap of the masks. The kinds of pairs:

    equal          the errors of both have one distribution, so that every figure of a model has the same true value
    different      the classes are farther apart for B, and its masks overlap more

A pair is compared as `hilum compare` does it, with the default primary figure, and by the former rule: AUROCs adjusted
by Holm's method, each other figure alone at 0.05. For the different pairs, the margin is the true difference of the
primary figure, so that finding equivalence is an error, too.

The claim: of the equal pairs, a better model is named in at most 5%, in the primary figure as in any figure, and an
adjusted p value is at most 0.05 in at most 5%; of the different ones, at most 5% are found equivalent. Exit code 1 if
the exact 95% interval of one of these shares is above 5%.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from measuring import proportion, publish

from hilum.bundle.prediction_sets import softmax
from hilum.evaluation.compare import ALPHA, Difference, compare
from hilum.metrics.scores import FloatArray, Scores
from hilum.metrics.table import WITHIN_SOURCES, Key, statistics_of

CLASSES = ("Normal", "Opacity", "COVID", "Viral")
SOURCES = ("one", "two", "three", "four")
# Patients of each class (columns) in each source (rows), of 240.
PATIENTS = np.array([[44, 24, 10, 0], [30, 16, 12, 12], [24, 0, 14, 12], [18, 16, 8, 0]])
SIZES = np.array([0.4, 0.2, 0.15, 0.15, 0.1])  # of patients with 1, 2, ... 5 images
SIGNAL = np.array([2.0, 1.5, 1.8, 2.2])
TRUE_COPIES = 400  # of the patients, for true values


@dataclass(frozen=True)
class Kind:
    """How much better B is: factors of its signal, and an addition to the logit of its Dice."""

    name: str
    signal: float = 1.0
    overlap: float = 0.0


KINDS = (Kind("equal"), Kind("different", signal=1.25, overlap=0.1))


def draw(kind: Kind, generator: np.random.Generator, copies: int = 1) -> tuple[Scores, Scores]:
    """One test set with the scores of both models."""
    cells = [(s, k) for s in range(len(SOURCES)) for k in range(len(CLASSES)) for _ in range(PATIENTS[s, k] * copies)]
    source, label = np.array(cells).T
    patient = np.repeat(np.arange(len(cells)), generator.choice(5, len(cells), p=SIZES) + 1)
    labels, n = label[patient], patient.size

    def noise(columns: int) -> FloatArray:
        return generator.normal(size=(len(cells), columns))[patient] + generator.normal(size=(n, columns))

    shown, seen = 0.6 * noise(len(CLASSES)), 0.35 * noise(1)[:, 0]
    drawn = generator.random(n) < 0.6
    few = copies == 1

    def scores(signal: float, overlap: float) -> Scores:
        logits = signal * SIGNAL * np.eye(len(CLASSES))[labels] + shown + 0.5 * noise(len(CLASSES))
        chance = 2.6 + overlap + seen + 0.3 * noise(1)[:, 0]
        dice = np.where(drawn, 1 / (1 + np.exp(-chance)), np.nan)
        return Scores(
            files=tuple(map(str, range(n))) if few else ("",) * n, labels=labels, probabilities=softmax(logits),
            class_names=CLASSES, groups=tuple(map(str, patient)), sources=tuple(SOURCES[s] for s in source[patient]),
            dice=dice, iou=dice / (2 - dice), split="simulated", logits=logits,
            hd95_share=np.where(drawn, 0.3 * (1 - dice) * np.exp(0.3 * generator.normal(size=n)), np.nan),
        )  # fmt: skip

    return scores(1.0, 0.0), scores(kind.signal, kind.overlap)


def true_difference(kind: Kind, copies: int = TRUE_COPIES) -> float:
    """The difference of the primary figure on a very large test set."""
    both = draw(kind, np.random.default_rng(1), copies)
    values = [statistics_of(scores)(np.ones((1, len(scores.files))))[Key(WITHIN_SOURCES)][0] for scores in both]
    return float(values[1] - values[0])


def simulate(number: int, kind: Kind, margin: float, resamples: int) -> dict[str, Any]:
    """What one pair of models leads to."""
    start = time.process_time()
    found = compare(*draw(kind, np.random.default_rng([3, number])), margin=margin, resamples=resamples, seed=number)
    old = better_before(found.differences)
    headline = {difference.key for difference in found.headline}
    return {
        "primary": found.primary.better,
        "any": sorted({d.better for d in found.differences if d.better}),
        "adjusted": any(d.p_adjusted is not None and d.p_adjusted <= ALPHA for d in found.differences),
        "equivalent": found.equivalence is not None and found.equivalence.p <= ALPHA,
        "figures": len(found.differences),
        "shown": sum(d.better is not None for d in found.differences),
        "old_winner": any(model for key, model in old.items() if key in headline),
        "old_any": any(old.values()),
        "seconds": time.process_time() - start,
    }


def better_before(differences: Sequence[Difference]) -> dict[Key, str | None]:
    """The better model in each figure by the former rule, from p values of each figure alone."""
    families: dict[bool, list[Difference]] = {False: [], True: []}
    for d in differences:
        if d.metric == "roc_auc" and (d.versus is None or d.source is not None):
            families[d.versus is not None].append(d)
    adjusted = {d.key: d.p for d in differences}
    for own in families.values():
        adjusted.update(zip((d.key for d in own), holm([d.p for d in own]), strict=True))
    return {d.key: d.ahead if adjusted[d.key] < ALPHA else None for d in differences}


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted by Holm's method (1979)."""
    order = np.argsort(p_values)
    steps = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted.tolist()


def run(kind: Kind, pairs: int, margin: float, resamples: int, processes: int) -> dict[str, Any]:
    """All pairs of a kind."""
    work = partial(simulate, kind=kind, margin=margin, resamples=resamples)
    if processes > 1:
        with get_context("spawn").Pool(processes) as pool:
            found = list(pool.imap_unordered(work, range(pairs), chunksize=5))
    else:
        found = list(map(work, range(pairs)))

    def share(*hits: bool) -> dict[str, Any]:
        return proportion(sum(hits), pairs)

    return {
        "kind": kind.name,
        "pairs": pairs,
        "figures": max(one["figures"] for one in found),
        "primary": share(*(one["primary"] is not None for one in found)),
        "primary_wrong": share(*(one["primary"] == "A" for one in found)),
        "any": share(*(bool(one["any"]) for one in found)),
        "adjusted": share(*(one["adjusted"] for one in found)),
        "figures_shown": float(np.mean([one["shown"] for one in found])),
        "equivalent": share(*(one["equivalent"] for one in found)),
        "old_winner": share(*(one["old_winner"] for one in found)),
        "old_any": share(*(one["old_any"] for one in found)),
        "cpu_seconds": sum(one["seconds"] for one in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000, help="simulated pairs of equally good models")
    parser.add_argument("--different", type=int, default=300, metavar="N", help="simulated pairs of different models")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the shares: benchmarks/results/winners.json")
    arguments = parser.parse_args()
    margin = true_difference(KINDS[1])
    again = {"margin": margin, "resamples": arguments.resamples, "processes": arguments.processes}
    equal, different = run(KINDS[0], arguments.pairs, **again), run(KINDS[1], arguments.different, **again)
    settings = {"resamples": arguments.resamples, "patients": int(PATIENTS.sum()), "margin": margin, "level": ALPHA}
    publish("winners", settings | {"kinds": [equal, different]}, arguments.json)
    claimed = {
        "primary": equal["primary"],
        "any": equal["any"],
        "adjusted": equal["adjusted"],
        "equivalent": different["equivalent"],
    }
    failed = [name for name, share in claimed.items() if share["low"] > ALPHA]
    print(f"\nfailed: {', '.join(failed) or 'none'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
