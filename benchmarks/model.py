"""Compare a model with its baseline on the same test images: every figure of both, and the paired difference.

    python benchmarks/model.py BASELINE MODEL --metadata metadata.csv

BASELINE and MODEL are runs, or folders that `hilum evaluate` wrote, of one split. Their predictions.csv and
localization.csv give the figures over all images, the AUROCs within a source, the calibration, the Dice of children and
adults by how the mask was paired with the image, and the pointing game. Images with a lung mask and a label outside the
classes are in no predictions.csv: they are predicted with the bundles (a run's own, or those named). Their masks leave
out the lung behind the heart and are another definition. The result also has what the metadata say of the images
(sources, counts, licenses), for the model card. Intervals and tests are hilum's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import publish
from model_data import Meta, data_facts
from numpy.typing import NDArray

from hilum.backends import pytorch
from hilum.backends.open import open_backend
from hilum.bundle.bundle import WEIGHTS, Bundle, load_bundle
from hilum.bundle.prediction_sets import softmax
from hilum.data.cache import open_cache
from hilum.data.index import build_index
from hilum.data.table import read_rows, read_table
from hilum.evaluation.alignment import aligned
from hilum.evaluation.compare import compare
from hilum.evaluation.localization import EVIDENCE, GRAD_CAM, OTHER, PREDICTED, PRIOR, RANDOM, localization_result
from hilum.evaluation.localization_table import LocalizationTable
from hilum.evaluation.measure import score_records
from hilum.evaluation.results import Evaluated, read_evaluation
from hilum.format import metric_title
from hilum.metrics.bootstrap import Interval
from hilum.metrics.calibration import calibration_result
from hilum.metrics.scores import Scores
from hilum.metrics.table import Key, figures_of
from hilum.models.build import count_parameters
from hilum.run_folder import RunFolder
from hilum.storage import as_json, cache_folder
from hilum.training.runs import open_run
from hilum.types import Record

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "macro_roc_auc")
CHILDREN, ADULTS = "kermany", "ieee8023"
"""The sources with masks of the one definition, of children and of adults."""
PAIRINGS = {"exact": ("anchor", "gap_dim", "file name"), "inferred": ("gap",)}
"""How sure it is that a mask is of its image, and the values of ``mask_pairing``."""
OTHER_DEFINITION = ("shenzhen", "montgomery")
BASELINE_CAM = "grad-cam of the baseline"


@dataclass(frozen=True)
class Pair:
    """Two kinds of image inside one source, by ``original_label``."""

    source: str
    positive: str
    positives: tuple[str, ...]
    negative: str
    negatives: tuple[str, ...]


PAIRS = (
    Pair("kermany", "pneumonia", ("Bacterial Pneumonia", "Viral Pneumonia"), "Normal", ("Normal",)),
    Pair("kermany", "viral", ("Viral Pneumonia",), "bacterial pneumonia", ("Bacterial Pneumonia",)),
    Pair("nih", "Lung_Opacity", ("Lung_Opacity",), "Normal", ("Normal",)),
    Pair("ieee8023", "COVID", ("COVID",), "other pneumonia", ("Bacterial Pneumonia", "Viral Pneumonia")),
)


def row(
    section: str,
    figure: str,
    baseline: Interval | None,
    model: Interval | None,
    difference: Mapping[str, Any] | None = None,
    note: str = "",
) -> dict[str, Any]:
    """One line of the table; ``difference`` is model less baseline."""
    return {
        "section": section, "figure": figure, "baseline": as_json(baseline), "model": as_json(model),
        "difference": as_json(difference), "note": note,
    }  # fmt: skip


def overall_rows(a: Scores, b: Scores, resamples: int) -> list[dict[str, Any]]:
    """The figures over all images."""
    return _figures("all test images", {Key(metric): metric_title(metric) for metric in OVERALL}, a, b, resamples)


def within_source_rows(a: Scores, b: Scores, metas: Sequence[Meta], resamples: int) -> list[dict[str, Any]]:
    """AUROC inside one source, with DeLong's test of the difference.

    Where a kind is of two classes, it is ranked by their probabilities together.
    """
    found = []
    for pair in PAIRS:
        own = [
            np.array([_is(meta, pair.source, kinds) for meta in metas]) for kinds in (pair.positives, pair.negatives)
        ]
        name = f"{pair.source}: {pair.positive} against {pair.negative} ({own[0].sum():,} and {own[1].sum():,} images)"
        if not all(rows.any() for rows in own):
            absent = pair.negative if own[0].any() else pair.positive
            found.append(row("inside one source", name, None, None, note=f"the test split has no {absent} of it"))
            continue
        two = [_two_kinds(scores, *own, pair) for scores in (a, b)]
        key = Key("roc_auc", pair.positive, None, pair.negative)
        values = [figures_of(scores, resamples=resamples)[key] for scores in two]
        test = next(d for d in compare(two[0], two[1], resamples=resamples).differences if d.key == key)
        difference = {"value": test.difference, "low": test.low, "high": test.high, "p": test.p}
        found.append(row("inside one source", name, *values, difference))
    return found


def calibration_rows(a: Evaluated, b: Evaluated, resamples: int) -> list[dict[str, Any]]:
    """The expected calibration error at the temperature that was fitted on validation."""
    after = [calibration_result(e.scores, e.calibration, resamples=resamples).after.ece for e in (a, b)]
    return [row("all test images", "expected calibration error after temperature", *after)]


def dice_rows(a: Scores, b: Scores, metas: Sequence[Meta], resamples: int) -> list[dict[str, Any]]:
    """Dice of children and of adults, by how the mask was paired with the image."""
    found = []
    for source, people in ((CHILDREN, "children"), (ADULTS, "adults")):
        own = np.array([m["source"] == source for m in metas]) & a.masked
        parts = {
            kind: own & np.array([m["mask_pairing"] in values for m in metas]) for kind, values in PAIRINGS.items()
        }
        if all(rows.any() for rows in parts.values()):
            parts = {"exact and inferred": own, **parts}
        for kind, rows in parts.items():
            if rows.any():
                name = {Key("dice"): f"{people} ({source}), {kind} pairings"}
                found += _figures("Dice of the lung mask", name, a.subset(rows), b.subset(rows), resamples)
    return found


def pointing_rows(a: LocalizationTable | None, b: LocalizationTable | None, resamples: int) -> list[dict[str, Any]]:
    """The pointing game on regions and boxes, and the evidence less the others on the same images."""
    if a is None or b is None:
        return []
    found = []
    joined = _with_baseline(a, b)
    for part in ("all", *sorted({r.kind for r in b.rows})):
        section = f"pointing game, {'regions and boxes' if part == 'all' else part}"
        tables = [_of_kind(table, part) for table in (a, joined)]
        one, both = (localization_result(table, resamples=resamples) for table in tables)
        hits = [{method: own["hit"] for method, own in r.methods.items() if "hit" in own} for r in (one, both)]
        found += [
            row(section, method, hits[0].get(method), hits[1].get(method))
            for method in (PREDICTED, EVIDENCE, GRAD_CAM, PRIOR, OTHER, RANDOM)
            if method in hits[1]
        ]
        for difference in both.differences:
            if difference.measure == "hit" and (difference.method == EVIDENCE or difference.against == PRIOR):
                name = f"{difference.method} less {difference.against}"
                found.append(row(section, name, None, difference.difference))
    return found


def other_definition_rows(bundles: Sequence[Bundle], records: Sequence[Record], resamples: int) -> list[dict[str, Any]]:
    """Dice on images whose masks leave out the lung behind heart and diaphragm; no label is a class."""
    if not records:
        return []
    name = f"adults, the other mask definition ({', '.join(sorted({str(r.source) for r in records}))})"
    one, two = (_dice_of(bundle, records) for bundle in bundles)
    return _figures("Dice of the lung mask", {Key("dice"): name}, one, two, resamples)


def identity(folder: Path, evaluated: Evaluated, bundle: Bundle) -> dict[str, Any]:
    """What was measured: by the digest of the weights, since a bundle's own holds that of its card."""
    manifest, run = bundle.manifest, RunFolder(folder)
    settings = manifest.training
    if not settings and run.config.is_file():  # of a bundle from before they were kept in it
        settings = (open_run(folder)[1].model_dump(mode="json"),)
    return {
        "name": manifest.name,
        "network": manifest.model.name,
        "encoder": None if manifest.model.name == "unet" else manifest.model.encoder,
        "parameters": count_parameters(pytorch.open(bundle).model),
        "preprocess": manifest.preprocess.model_dump(mode="json"),
        "temperature": manifest.temperature,
        "weights": manifest.files[WEIGHTS],
        "weights_dtype": manifest.weights_dtype,
        "run_weights": evaluated.model.id if evaluated.model.kind == "run" else None,
        "trainings": [{"epochs": t["training"]["epochs"], "size": t["preprocess"]["size"]} for t in settings],
        "imagenet": bool(settings) and settings[0]["model"]["name"] != "unet" and settings[0]["model"]["pretrained"],
    }


def _figures(section: str, names: Mapping[Key, str], a: Scores, b: Scores, resamples: int) -> list[dict[str, Any]]:
    """Figures of both and their difference, in the same resamples."""
    values = [figures_of(scores, resamples=resamples) for scores in (a, b)]
    differences = {
        Key(d.metric, d.class_name, d.source, d.versus): {"value": d.difference, "low": d.low, "high": d.high}
        for d in compare(a, b, resamples=resamples).differences
    }
    return [row(section, words, values[0][key], values[1][key], differences[key]) for key, words in names.items()]


def _is(meta: Meta, source: str, kinds: Sequence[str]) -> bool:
    return meta["source"] == source and meta["original_label"] in kinds


def _two_kinds(scores: Scores, positive: NDArray[np.bool_], negative: NDArray[np.bool_], pair: Pair) -> Scores:
    """The images of two kinds, with one logit for each: that of its images' classes together."""
    if scores.logits is None:
        raise SystemExit("predictions.csv has no logit_ columns; probabilities alone saturate.")
    columns = [sorted({*scores.labels[rows].tolist()}) for rows in (positive, negative)]
    logits = np.stack([np.logaddexp.reduce(scores.logits[:, own], axis=1) for own in columns], axis=1)  # (N, 2)
    own = replace(
        scores, class_names=(pair.positive, pair.negative), logits=logits, probabilities=softmax(logits),
        labels=np.where(positive, 0, 1).astype(np.int64),
    )  # fmt: skip
    return own.subset(positive | negative)


def _of_kind(table: LocalizationTable, kind: str) -> LocalizationTable:
    return LocalizationTable(tuple(r for r in table.rows if kind in ("all", r.kind)))


def _with_baseline(a: LocalizationTable, b: LocalizationTable) -> LocalizationTable:
    """The model's rows, and after those of each image the baseline's Grad-CAM under a name of its own."""
    cams = {r.file: replace(r, method=BASELINE_CAM) for r in a.rows if r.method == GRAD_CAM}
    if {r.file for r in b.rows} != {r.file for r in a.rows}:
        raise SystemExit("The two localization.csv have different images.")
    if not cams:
        return b
    images: dict[str, list[Any]] = {}
    for own in b.rows:
        images.setdefault(own.file, []).append(own)
    return LocalizationTable(tuple(r for file, rows in images.items() for r in (*rows, cams[file])))


def _dice_of(bundle: Bundle, records: Sequence[Record]) -> Scores:
    spec, manifest = bundle.manifest.preprocess, bundle.manifest
    plain = [replace(record, label=None) for record in records]
    return score_records(
        open_backend(bundle), open_cache(plain, spec, cache_folder()), plain, [r.image_path.name for r in records],
        manifest.class_names, spec, split="test", mask_threshold=manifest.mask_threshold, distances=False,
    ).scores  # fmt: skip


def _open(folder: Path, bundle: Path | None) -> tuple[Evaluated, Bundle]:
    """The evaluation in a folder or a run's ``test/``, and the bundle of the same model."""
    run = RunFolder(folder)
    is_run = run.config.is_file()
    evaluated, _ = read_evaluation(run.results("test") if is_run else folder)
    if bundle is None and not is_run:
        raise SystemExit(f"{folder} is not a run: name its bundle with --bundle or --baseline-bundle.")
    opened = load_bundle(bundle or run.bundle)
    if evaluated.calibration and evaluated.calibration.temperature != opened.manifest.temperature:
        raise SystemExit(
            f"Expected the bundle that was evaluated in {folder}, got {opened.path} of another temperature"
        )
    return evaluated, opened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", type=Path, help="run, or an evaluation's folder")
    parser.add_argument("model", type=Path, help="run or evaluation of the same split")
    parser.add_argument("--metadata", type=Path, required=True, help="CSV that both were trained on")
    parser.add_argument("--baseline-bundle", type=Path, help="the baseline's bundle; the default is the run's own")
    parser.add_argument("--bundle", type=Path, help="the model's bundle; the default is the run's own")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/model.json")
    arguments = parser.parse_args()
    first, second = _open(arguments.baseline, arguments.baseline_bundle), _open(arguments.model, arguments.bundle)
    evaluated = (first[0], second[0])
    if evaluated[0].digest != evaluated[1].digest:
        raise SystemExit(f"The splits differ: {evaluated[0].digest} and {evaluated[1].digest}.")
    a, b = aligned(evaluated[0].scores, evaluated[1].scores)
    table = read_table(arguments.metadata)
    meta_of = {r.image_path: row for r, (_, row) in zip(table, read_rows(arguments.metadata)[1], strict=True)}
    index = build_index(arguments.metadata, classes=a.class_names, check=False)
    by_key = {index.key(record): meta_of[record.image_path] for record in index.records}
    metas = [by_key[file] for file in a.files]
    others = [r for r in table if r.source in OTHER_DEFINITION and r.mask_path]
    n = arguments.resamples
    rows = [
        *within_source_rows(a, b, metas, n), *overall_rows(a, b, n), *calibration_rows(*evaluated, n),
        *dice_rows(a, b, metas, n), *other_definition_rows((first[1], second[1]), others, n),
        *pointing_rows(evaluated[0].localization, evaluated[1].localization, n),
    ]  # fmt: skip
    split = {
        "name": a.split,
        "digest": evaluated[0].digest,
        "images": len(a.files),
        "groups": int(a.clusters().max()) + 1,
    }
    result = {
        "command": "python benchmarks/model.py BASELINE MODEL --metadata metadata.csv",
        "split": split, "resamples": n, "class_names": a.class_names,
        "models": {
            "baseline": identity(arguments.baseline, *first), "model": identity(arguments.model, *second),
        },
        "rows": rows,
        "held_out": {"baseline": as_json(evaluated[0].held_out), "model": as_json(evaluated[1].held_out)},
        "calibration": asdict(evaluated[1].calibration) if evaluated[1].calibration else None,
        "data": data_facts(index.records, meta_of),
        "other_masks": data_facts(others, meta_of),
    }  # fmt: skip
    publish("side_by_side", result, arguments.json)


if __name__ == "__main__":
    main()
