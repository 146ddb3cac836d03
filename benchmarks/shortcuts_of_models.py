"""Measure two models without the lungs: the same test images, the same lungs erased, the same resamples.

    python benchmarks/shortcuts_of_models.py metadata.csv --baseline BUNDLE --model BUNDLE
    python benchmarks/shortcuts_of_models.py metadata.csv --baseline BUNDLE --model BUNDLE --limit 800

The treatments, the shortcut index, the classifiers refitted to the outputs and the intervals are those of
hilum.audit.model_shortcuts. The lungs of an image are
its reference mask where there is one, else the prediction of MODEL, for both models alike, resampled to each one's
input size. Differences are model minus baseline. --limit draws that many images, stratified by class and source, with a
fixed seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import publish
from numpy.typing import NDArray

from hilum.audit import refit
from hilum.audit.erasure import has_lungs
from hilum.audit.findings import model_findings
from hilum.audit.model_shortcuts import ModelShortcuts, audit_model, index_of
from hilum.audit.treatments import CHECK, ERASURES, HEADLINE, PARTS, TREATMENTS
from hilum.backends.base import Backend, BackendOutput, Floats
from hilum.backends.open import open_backend
from hilum.bundle.bundle import WEIGHTS, Bundle, load_bundle
from hilum.bundle.prediction_sets import softmax
from hilum.config import Config, PreprocessSpec
from hilum.data.cache import open_cache
from hilum.data.index import build_index
from hilum.data.split import make_split, records_of
from hilum.evaluation.compare import compare
from hilum.evaluation.measure import score_records
from hilum.format import metric_title
from hilum.imaging.preprocess import fit_mask
from hilum.metrics.bootstrap import bootstrap
from hilum.metrics.scores import FloatArray, Scores, divide
from hilum.storage import as_json, cache_folder
from hilum.types import Record

SHARED = ("accuracy", "macro_roc_auc")
"""What is compared in each treatment."""
AUROC = metric_title("roc_auc")
REFITTED = f"{AUROC}, refitted"
SEED = 0


class Images(NamedTuple):
    """M images in one model's square."""

    images: NDArray[np.uint8]  # (M, S, S)
    lungs: NDArray[np.bool_]  # (M, S, S)
    scores: Scores  # of the model on the images as they are


class Recorder:
    """An engine that keeps the logits it gave: audit_model asks for every image after every treatment, in order."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.logits: list[FloatArray] = []

    def run(self, images: Floats) -> BackendOutput:
        """See hilum.backends.base.Backend."""
        output = self.backend.run(images)
        self.logits.append(output.classification.astype(np.float64))
        return output

    def by_treatment(self, count: int) -> dict[str, FloatArray]:
        """Treatment to its logits (M, K)."""
        logits = np.concatenate(self.logits)
        names = TREATMENTS[: len(logits) // count]  # without the swaps where there is one class alone
        return dict(zip(names, logits.reshape(len(names), count, -1), strict=True))


def drawn(records: Sequence[Record], limit: int, seed: int = SEED) -> list[Record]:
    """``limit`` of the records, shared out over (class, source) as they are; all where there are no more."""
    generator = np.random.default_rng(seed)
    strata = np.unique([f"{r.label}\0{r.source}" for r in records], return_inverse=True)[1]
    place = np.zeros(len(records))  # in [0, 1), evenly over each stratum
    for stratum in range(int(strata.max()) + 1):
        own = np.flatnonzero(strata == stratum)
        place[own] = (generator.permutation(own.size) + generator.random()) / own.size
    chosen = np.sort(np.argsort(place, kind="stable")[:limit])
    return [records[row] for row in chosen]


def prepared(bundle: Bundle, records: Sequence[Record], names: Sequence[str]) -> Images:
    """The images that have lungs, by the reference mask or by the model's own."""
    manifest = bundle.manifest
    cache = open_cache(records, manifest.preprocess, cache_folder())
    scored = score_records(
        open_backend(bundle), cache, records, names, manifest.class_names, manifest.preprocess, split="test",
        temperature=manifest.temperature, mask_threshold=manifest.mask_threshold, keep_lungs=True, distances=False,
    )  # fmt: skip
    if scored.lungs is None or not has_lungs(scored.lungs).any():
        raise SystemExit("No image has lungs to erase: there is no mask, and MODEL finds no lung.")
    return Images(cache.images, scored.lungs, scored.scores)


def in_squares(given: Images, specs: Sequence[PreprocessSpec], records: Sequence[Record]) -> list[Images]:
    """The same images and lungs in each model's square; lungs that are too small in one are taken from all."""
    lungs = [np.stack([fit_mask(own, spec) for own in given.lungs]) for spec in specs]
    kept = np.logical_and.reduce([has_lungs(own) for own in lungs])[:, None, None]
    images = [open_cache(records, spec, cache_folder()).images for spec in specs]
    return [Images(image, own & kept, given.scores) for image, own in zip(images, lungs, strict=True)]


def audited(
    backend: Backend, spec: PreprocessSpec, temperature: float, images: Images, resamples: int, name: str
) -> tuple[ModelShortcuts, dict[str, Scores]]:
    """The audit of one model, and its answers (as Scores) on the images that count, per treatment."""
    recorder, scores = Recorder(backend), images.scores

    def progress(done: int, of: int) -> None:
        print(f"\r{name}: {done:,} of {of:,}", end="" if done < of else "\n", file=sys.stderr)

    result = audit_model(
        recorder, images.images, images.lungs, scores.labels, scores.class_names, scores.clusters(), spec,
        temperature=temperature, resamples=resamples, seed=SEED, progress=progress,
    )  # fmt: skip
    rows = np.flatnonzero((scores.labels >= 0) & has_lungs(images.lungs))
    answers = {
        treatment: _scores_of(scores, rows, logits, temperature)
        for treatment, logits in recorder.by_treatment(rows.size).items()
    }
    return result, answers


def differences(a: dict[str, Scores], b: dict[str, Scores], resamples: int) -> dict[str, Any]:
    """Model less baseline of each treatment, of the indices and of the refits; and the ratio of the indices."""
    found: dict[str, Any] = {}
    for treatment in a:
        for d in compare(a[treatment], b[treatment], resamples=resamples, seed=SEED).headline:
            if d.metric in SHARED and d.class_name is None:
                found[f"{treatment} {d.metric}"] = {"value": d.difference, "low": d.low, "high": d.high, "n": d.n}
    labels, clusters = a["intact"].labels, a["intact"].clusters()
    folds = refit.folds_of(labels, clusters)
    read = ("intact", *ERASURES, *PARTS)
    refits = [{} if folds is None else {t: refit.refitted(own[t].logits, folds) for t in read} for own in (a, b)]
    right = [{t: (s.predicted == labels).astype(np.float64) for t, s in own.items()} for own in (a, b)]

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        total = weights.sum(axis=1)
        guess = np.stack([weights[:, labels == k].sum(axis=1) for k in np.unique(labels)]).max(axis=0) / total
        values = {}
        for name in ERASURES:
            one, two = (
                np.maximum(index_of(weights @ own[name] / total, weights @ own["intact"] / total, guess), 0)
                for own in right
            )
            values[f"{name} index"] = two - one
            values[f"{name} index ratio"] = divide(two, one)  # none where the baseline takes no shortcut
        if folds is not None:
            for name in refits[0]:
                one, two = (refit.refitted_auc(own[name], folds, weights) for own in refits)
                values[f"{name} refitted"] = two - one
        return values

    every = dict.fromkeys(statistics(np.ones((1, labels.size))), np.ones(labels.size, np.bool_))
    bounds = {key: (-1.0, 1.0) for key in every if key.endswith("refitted")}
    return found | bootstrap(statistics, every, clusters, strata=labels, bounds=bounds, resamples=resamples, seed=SEED)


def rows_of(results: Sequence[ModelShortcuts], apart: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of the table, in the form of benchmarks/model.py."""

    def line(section: str, figure: str, values: Sequence[Any], key: str) -> dict[str, Any]:
        one, two = map(as_json, values)
        return {
            "section": section,
            "figure": figure,
            "baseline": one,
            "model": two,
            "difference": as_json(apart.get(key)),
            "note": "",
        }

    lines = []
    for name in ERASURES:
        values = [result.score(name).index for result in results]
        lines.append(line("shortcut index", name.replace("_", " "), values, f"{name} index"))
    for score in results[0].scores:
        pairs = [result.score(score.treatment) for result in results]
        words = score.treatment.replace("_", " ")
        lines.append(line("accuracy", words, [p.accuracy for p in pairs], f"{score.treatment} accuracy"))
    for score in results[0].scores:
        pairs = [result.score(score.treatment) for result in results]
        words = score.treatment.replace("_", " ")
        lines.append(line(AUROC, words, [p.auc for p in pairs], f"{score.treatment} macro_roc_auc"))
    for score in results[0].scores:
        values = [result.score(score.treatment).refitted_auc for result in results]
        if None not in values:
            words = score.treatment.replace("_", " ")
            lines.append(line(REFITTED, words, values, f"{score.treatment} refitted"))
    if results[0].background_effect is not None:
        values = [result.background_effect for result in results]
        lines.append(line("accuracy", "lost to a background of another class", values, "none"))
    return sorted(lines, key=lambda own: ("shortcut index", AUROC, REFITTED, "accuracy").index(own["section"]))


def _scores_of(scores: Scores, rows: NDArray[np.int64], logits: FloatArray, temperature: float) -> Scores:
    """The answers on images ``rows`` after one treatment; the label is that of the lungs."""
    nothing = np.full(rows.size, np.nan)
    return replace(
        scores, files=tuple(scores.files[row] for row in rows), labels=scores.labels[rows], logits=logits,
        probabilities=softmax(logits, temperature), groups=tuple(scores.groups[row] for row in rows),
        sources=(None,) * rows.size, dice=nothing, iou=nothing, hd95_share=None,
    )  # fmt: skip


def _identity(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {"name": manifest.name, "network": manifest.model.name, "weights": manifest.files[WEIGHTS]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="dataset: a folder or a CSV with a split")
    parser.add_argument("--baseline", type=Path, required=True, help="bundle of the baseline")
    parser.add_argument("--model", type=Path, required=True, help="bundle of the same classes; it predicts the lungs")
    parser.add_argument("--limit", type=int, default=0, help="maximum number of test images; 0 takes all")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/shortcuts.json"
    )
    arguments = parser.parse_args()
    bundles = [load_bundle(path) for path in (arguments.baseline, arguments.model)]
    manifests = [bundle.manifest for bundle in bundles]
    alike = [(m.preprocess.fit, m.class_names) for m in manifests]
    if alike[0] != alike[1]:
        raise SystemExit(f"The models differ in preprocessing or classes: {alike[0]} and {alike[1]}.")
    index = build_index(arguments.data, classes=manifests[1].class_names, check=False)
    split = make_split(index, Config().split)
    everything = records_of(index, split, "test")
    records = drawn(everything, arguments.limit) if arguments.limit else list(everything)
    images = prepared(bundles[1], records, [index.key(record) for record in records])
    n, masks = arguments.resamples, sum(record.mask_path is not None for record in records)
    squares = in_squares(images, [m.preprocess for m in manifests], records)
    found = [
        audited(open_backend(bundle), m.preprocess, m.temperature, own, n, name)
        for bundle, m, own, name in zip(bundles, manifests, squares, ("baseline", "model"), strict=True)
    ]
    results = [result for result, _ in found]
    apart = differences(found[0][1], found[1][1], n)
    rows, ratio = rows_of(results, apart), as_json(apart[f"{HEADLINE} index ratio"])
    option = f" --limit {arguments.limit}" if arguments.limit else ""
    result = {
        "command": f"python benchmarks/shortcuts_of_models.py metadata.csv --baseline B --model M{option}",
        "split": {"name": "test", "digest": split.digest, "images": len(everything)},
        "images": results[1].images, "left_out": results[1].left_out, "reference_masks": masks, "seed": SEED,
        "resamples": n, "headline": HEADLINE, "check": CHECK, "majority_share": results[1].majority_share,
        "models": dict(zip(("baseline", "model"), map(_identity, bundles), strict=True)),
        "rows": rows, "ratio": ratio,
        "findings": [f"{f.severity}: {f.message}" for f in model_findings(results[1])],
    }  # fmt: skip
    publish("shortcuts", result, arguments.json)


if __name__ == "__main__":
    main()
