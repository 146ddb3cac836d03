"""Count the errors of a bundle on the validation split: between which classes of which source, and how sure it was.

    python benchmarks/errors.py ../shared/data/metadata.csv --json benchmarks/results/errors.json

Where errors are made with confidence, the labels may be wrong; where they are between two classes of one source, the
image may not tell. Intervals are exact and treat images as independent.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measuring import proportion, publish

from hilum.backends.open import open_backend
from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.config import SplitConfig
from hilum.data.cache import open_cache
from hilum.data.index import build_index
from hilum.data.split import make_split, records_of
from hilum.evaluation.measure import score_records
from hilum.metrics.scores import Scores
from hilum.storage import cache_folder

CONFIDENT = 0.9
"""Least probability of the predicted class of a confident answer."""
LISTED = 5
"""Least number of images of a row; what has fewer is summed."""
SWAPPED = ("Lung_Opacity", "Viral Pneumonia")
"""Classes that are also counted as one: bacterial and viral pneumonia of children."""


def counted(scores: Scores) -> dict[str, Any]:
    """The errors of a network on N images."""
    names, labels = np.array(scores.class_names), scores.labels
    predicted, sure = scores.probabilities.argmax(axis=1), scores.probabilities.max(axis=1) >= CONFIDENT
    wrong = predicted != labels
    places = [
        (names[labels[row]], names[predicted[row]], scores.sources[row] or "", bool(sure[row]))
        for row in np.flatnonzero(wrong)
    ]
    of_all = Counter(place[:3] for place in places)
    of_sure = Counter(place[:3] for place in places if place[3])
    rows = [
        {
            "label": label, "predicted": other, "source": source, "images": count,
            "confident": of_sure[label, other, source],
        }
        for (label, other, source), count in of_all.most_common()
        if count >= LISTED
    ]  # fmt: skip
    swaps = wrong & np.isin(names[labels], SWAPPED) & np.isin(names[predicted], SWAPPED)
    return {
        "n": len(labels),
        "accuracy": proportion(int((~wrong).sum()), len(labels)),
        "swaps": proportion(int(swaps.sum()), int(wrong.sum())),
        "accuracy_as_one": proportion(int((~wrong | swaps).sum()), len(labels)),
        "answered": proportion(int(sure.sum()), len(labels)),
        "accuracy_of_answered": proportion(int((sure & ~wrong).sum()), int(sure.sum())),
        "rows": rows,
        "others": _rest(rows, len(places), sum(place[3] for place in places)),
    }


def _rest(rows: list[dict[str, Any]], images: int, confident: int) -> Mapping[str, int]:
    return {
        "images": images - sum(row["images"] for row in rows),
        "confident": confident - sum(row["confident"] for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="dataset: a CSV with a split column")
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="result file: benchmarks/results/errors.json")
    arguments = parser.parse_args()
    bundle = load_bundle(resolve_bundle(arguments.bundle))
    manifest = bundle.manifest
    index = build_index(arguments.data, classes=manifest.class_names)
    split = make_split(index, SplitConfig())
    records = records_of(index, split, "val")
    scored = score_records(
        open_backend(bundle, precision="fp32"), open_cache(records, manifest.preprocess, cache_folder()), records,
        [index.key(record) for record in records], manifest.class_names, manifest.preprocess, split="val",
        temperature=manifest.applied_temperature,
    )  # fmt: skip
    header = {
        "command": "python benchmarks/errors.py metadata.csv", "bundle": manifest.bundle_id, "confident": CONFIDENT,
        "listed": LISTED, "split_digest": split.digest,
    }  # fmt: skip
    publish("errors", header | counted(scored.scores), arguments.json)


if __name__ == "__main__":
    main()
