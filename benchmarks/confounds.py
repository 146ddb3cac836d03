"""Measure how many planted shortcuts the audit's probes flag, and how many clean datasets.

    python benchmarks/confounds.py --json benchmarks/results/confounds.json

Each simulated dataset has phantoms of two classes (Normal and COVID, with their opacities), patients of one to three
images drawn from one pool, a random source and one confound, in half of the images or tied to the class. Features,
probes and verdicts are those of `hilum audit`. A dataset is flagged when a finding is an error.

The effect is the AUROC of the confound for the class, as it was drawn, minus 0.5. Clean datasets have the confound in
half of the images of either class; a flag there is a false alarm. Exit code 1 unless 95% of the effects of at least
0.10 and at most 5% of the clean datasets are flagged.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from measuring import proportion, publish

from hilum.audit.features import FileFacts, image_features
from hilum.audit.findings import verdicts
from hilum.audit.probes import run_probes
from hilum.phantoms.chest import Phantom, draw_phantom
from hilum.phantoms.confound import CONFOUNDED_CLASSES, CONFOUNDS, Confound, draw_presence, plan_patients, plant
from hilum.types import Radiograph

SIZE = 64
LEAST_EFFECT = 0.10
STRENGTHS = (0.2, 1.0)
FACTS = FileFacts("PNG", "L")


@dataclass(frozen=True)
class Outcome:
    """One simulated dataset."""

    kind: str
    strength: float
    effect: float
    images: int
    flagged: bool
    auc: float  # the largest of the shortcut probes
    p_value: float  # the smallest of them
    probe: str  # which had it


def draw_pool(patients: int) -> list[list[Phantom]]:
    """Patients of one to three images, the classes in turn, so that patient i is of class i % 2."""
    labels, owner = plan_patients(3 * patients, np.random.default_rng(77))
    pool: list[list[Phantom]] = [[] for _ in range(patients)]
    for number, (label, patient) in enumerate(zip(labels.tolist(), owner.tolist(), strict=True)):
        if patient < patients:
            pool[patient].append(draw_phantom(number, CONFOUNDED_CLASSES[label], size=SIZE, patient=patient))
    return pool


def simulate(pool: list[list[Phantom]], kind: Confound, strength: float, count: int, seed: int) -> Outcome:
    """Draw one dataset from the pool and audit it."""
    rng = np.random.default_rng((50, seed))
    chosen: list[tuple[Phantom, int]] = []
    by_class = [iter(rng.permutation(len(pool) // 2) * 2 + side) for side in (0, 1)]
    while len(chosen) < count:
        for patients in by_class:
            patient = int(next(patients))
            chosen += [(phantom, patient) for phantom in pool[patient]]
    labels = np.array([patient % 2 for _, patient in chosen], np.int64)
    present = draw_presence(labels, strength, rng)
    hospitals = rng.integers(0, 3, len(pool))
    rows = []
    for (phantom, _), has in zip(chosen, present.tolist(), strict=True):
        image, (lungs,) = plant(phantom.image, [phantom.lung_mask], kind, has, rng)
        rows.append(image_features(Radiograph(image), FACTS, lungs))
    results = run_probes(
        {name: np.stack([row[name] for row in rows]) for name in rows[0]},
        labels,
        CONFOUNDED_CLASSES,
        [f"patient-{patient}" for _, patient in chosen],
        [f"hospital-{hospitals[patient]}" for _, patient in chosen],
        seed=seed,
    )
    shortcuts = [result for result in results if result.shortcut and result.measurable]
    best = max(shortcuts, key=lambda result: (-result.p_value, result.auc.value))
    effect = (present[labels == 1].mean() - present[labels == 0].mean()) / 2
    flagged = any(finding.severity == "error" for finding in verdicts(results))
    return Outcome(kind, strength, float(effect), len(chosen), flagged, best.auc.value, best.p_value, best.probe)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Detection and false alarms, over all and per kind."""
    clean = [one for one in outcomes if one.strength == 0]
    tied = [one for one in outcomes if one.strength > 0 and one.effect >= LEAST_EFFECT]
    weak = [one for one in tied if one.effect < 2 * LEAST_EFFECT]
    groups = {"all": (tied, clean), **{kind: _of_kind(kind, tied, clean) for kind in CONFOUNDS}}
    table = {
        name: {"detected": proportion(*_hits(found)), "false_alarms": proportion(*_hits(alarms))}
        for name, (found, alarms) in groups.items()
    }
    return {"table": table, "detected_at_0.10_to_0.20": proportion(*_hits(weak))}


def _of_kind(kind: str, tied: list[Outcome], clean: list[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    return [one for one in tied if one.kind == kind], [one for one in clean if one.kind == kind]


def _hits(outcomes: list[Outcome]) -> tuple[int, int]:
    return sum(one.flagged for one in outcomes), len(outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=int, default=24, help="clean datasets per kind of confound")
    parser.add_argument("--tied", type=int, default=24, help="datasets per kind with the confound tied to the class")
    parser.add_argument("--count", type=int, default=400, help="images per dataset")
    parser.add_argument("--patients", type=int, default=1200, help="patients in the pool")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the datasets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, as in results/confounds.json")
    arguments = parser.parse_args()
    began = time.perf_counter()
    pool = draw_pool(arguments.patients)
    outcomes: list[Outcome] = []
    for number, kind in enumerate(CONFOUNDS):
        spread = np.linspace(*STRENGTHS, arguments.tied).round(3).tolist()
        for index, strength in enumerate([0.0] * arguments.clean + spread):
            outcomes.append(
                simulate(pool, kind, strength, arguments.count, seed=arguments.seed * 10_000 + number * 1000 + index)
            )
        print(f"{kind}: done after {time.perf_counter() - began:.0f} s", file=sys.stderr)
    figures = summary(outcomes)
    total = figures["table"]["all"]
    passed = total["detected"]["value"] >= 0.95 and total["false_alarms"]["value"] <= 0.05
    result = {
        "images": arguments.count,
        "seed": arguments.seed,
        "size": SIZE,
        "strengths": STRENGTHS,
        "least_effect": LEAST_EFFECT,
        **figures,
        "seconds": time.perf_counter() - began,
        "passed": passed,
        "data_sets": [asdict(one) for one in outcomes],
    }
    publish("confounds", result, arguments.json)
    sys.exit(0 if passed else "A BOUND IS NOT MET")


if __name__ == "__main__":
    main()
