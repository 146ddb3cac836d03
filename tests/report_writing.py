"""Reports on made-up data, for the tests of plots and pages."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from hilum.audit.report import AuditFinding, AuditReport, Conclusion, DataFacts
from hilum.config import load_config
from hilum.evaluation.failure_images import FailureImages
from hilum.evaluation.report import (
    Contrast,
    Estimate,
    Failure,
    Figure,
    ModelRef,
    Provenance,
    Report,
    Settings,
    SplitFacts,
    SplitRef,
)
from hilum.metrics.calibration_within import calibration_within
from hilum.metrics.scores import Scores, confusion_counts
from hilum.metrics.table import figures_of
from hilum.phantoms.chest import draw_phantom
from hilum.storage import as_json

NAMES = ("COVID", "Normal & well", "Viral Pneumonia")


def made_up_scores(count: int = 120, class_names: tuple[str, ...] = NAMES, *, seed: int = 0) -> Scores:
    """Scores of a network that is right in most cases, in two sources, with a few unlabeled images."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(class_names)
    logits = random.normal(size=(count, len(class_names))) + 2 * np.eye(len(class_names))[labels]
    labels[:3] = -1
    raised = np.exp(logits)
    dice = np.where(np.arange(count) % 2, random.uniform(0.8, 1, count), np.nan)
    return Scores(
        files=tuple(f"images/image-{row}.png" for row in range(count)),
        labels=labels,
        probabilities=raised / raised.sum(axis=1, keepdims=True),
        class_names=class_names,
        groups=tuple(f"p{row // 2}" for row in range(count)),
        sources=tuple("north" if row % 5 else "south" for row in range(count)),
        dice=dice,
        iou=dice / (2 - dice),
        split="test",
        logits=logits,
        hd95_share=10 * (1 - dice),
    )


def report_of(scores: Scores, **parts: Any) -> Report:
    """A report with the figures, matrix and contrasts of the scores; the other parts are given, or absent."""
    found = figures_of(scores, resamples=20)
    known = scores.labeled
    matrix = None
    if known.any():
        counts = confusion_counts(scores.labels[known], scores.predicted[known], len(scores.class_names))[0]
        matrix = tuple(tuple(row) for row in counts.astype(int).tolist())
    fields: dict[str, Any] = {
        "hilum_version": "0.0.0",
        "model": ModelRef(kind="run", name="runs/<one>", id="abc"),
        "split": SplitRef(
            name="test",
            digest="d" * 64,
            images=len(scores.files),
            groups=int(scores.clusters().max()) + 1,
            labeled=int(known.sum()),
            with_masks=int(scores.masked.sum()),
        ),
        "settings": Settings(resamples=20, seed=0, level=0.95),
        "class_names": scores.class_names,
        "figures": tuple(
            Figure(metric=key.metric, class_name=key.class_name, source=key.source, **vars(interval))
            for key, interval in found.items()
            if key.versus is None
        ),
        "confusion_matrix": matrix,
        "contrasts": tuple(
            Contrast(
                source=key.source,
                positive=str(key.class_name),
                negative=str(key.versus),
                n_positive=1,
                n_negative=interval.n - 1,
                auc=Estimate(**vars(interval)),
            )
            for key, interval in found.items()
            if key.versus is not None
        ),
    }
    return Report(**{**fields, **parts})


def estimate(value: float | None, spread: float = 0.05, n: int = 40) -> dict[str, Any]:
    """A value and its interval as a report holds them."""
    if value is None:
        return {"value": None, "low": None, "high": None, "n": n}
    return {"value": value, "low": value - spread, "high": value + spread, "n": n}


def trust_parts() -> dict[str, Any]:
    """Calibration, prediction sets, abstention, held-out sources, limits and failures, as JSON."""
    bins = [
        {"confidence": c, "accuracy": estimate(c - 0.1), "low": c - 0.1, "high": c + 0.05} for c in (0.4, 0.6, 0.8, 0.9)
    ]
    merged = [{**bins[0], "confidence": 0.5, "accuracy": estimate(0.4, n=80), "high": 0.65}, *bins[2:]]
    state = {"ece": estimate(0.1), "brier": estimate(0.3), "nll": estimate(0.5), "bins": bins, "diagram": merged}
    levels = [
        {
            "level": level,
            "quantiles": dict(zip(NAMES, (0.9, 0.95, 1.0), strict=True)),
            "coverage": estimate(float(level), 0.01),
            "coverage_by_class": dict.fromkeys(NAMES, estimate(float(level) - 0.02, 0.01)),
            "mean_size": estimate(1.5),
            "sizes": [60, 40, 20],
        }
        for level in ("0.90", "0.95", "0.99")
    ]
    return {
        "calibration": {"temperature": 1.37, "before": state, "after": {**state, "ece": estimate(0.04, 0.03)}},
        "calibration_within": as_json(calibration_within(made_up_scores(), None, resamples=20)),
        "conformal": levels,
        "selective": {
            "coverage": [0.25, 0.5, 0.75, 1.0],
            "risk": [0.0, 0.05, 0.1, 0.2],
            "thresholds": [0.9, 0.8, 0.7, 0.5],
            "aurc": estimate(0.08),
            "threshold": 0.8,
            "answered": estimate(0.5),
            "accuracy": estimate(0.95),
        },
        "held_out_sources": (
            {"source": "south", "trained_on": 99, "fall": estimate(-0.02)}
            | dict.fromkeys(
                ("accuracy", "accuracy_with", "balanced_accuracy", "balanced_accuracy_with"), estimate(0.7)
            ),
        ),
        "limits": ("No source has both COVID and Viral Pneumonia <b>.",),
        "failures": (
            Failure(file="images/image-1.png", label="COVID", predicted="Normal & well", probability=0.987),
            Failure(file="images/<script>.png", label="COVID", predicted="Normal & well", probability=0.912),
        ),
    }


def provenance(**parts: Any) -> Provenance:
    """The provenance of a run of three epochs on two sources, the second of which is not in its training split."""
    facts = {
        name: SplitFacts(
            images=n, groups=n // 2, labeled=n, with_masks=n // 4, classes={NAMES[0]: n // 3, NAMES[1]: n - n // 3},
            sources={"north": n} if name == "train" else {"north": n - 10, "south": 10},
        )
        for name, n in (("train", 600), ("val", 130), ("test", 120))
    }  # fmt: skip
    config = load_config(overrides={"training": {"epochs": 3, "seed": 77}, "preprocess": {"size": 64}})
    loss = {1: 2.0, 2: 1.0, 3: 1.5}
    fields: dict[str, Any] = {
        "data": facts, "partition": "drawn", "partition_seed": 42, "grouped": True, "left_out": {"unreadable": 4},
        "trained_sources": ("north",), "training": (config.model_dump(mode="json", exclude={"data": True}),),
        "initial_weights": "random", "parameters": 1_234_567,
        "epochs": tuple({"epoch": e, "train_loss": v / 2, "val_loss": v, "val_auc": None} for e, v in loss.items()),
        "software": {"hilum": "0.0.0", "torch": "2.0"}, "hardware": {"processor": "a <fast> one"},
    }  # fmt: skip
    return Provenance(**{**fields, **parts})


def failure_drawings(seed: int = 0, *, has_evidence: bool | None = True) -> FailureImages:
    """Two phantoms in place of a failure and its overlay."""
    return FailureImages(plain=image_png(seed), overlay=image_png(seed + 1), has_evidence=has_evidence)


def audit_report(**parts: Any) -> AuditReport:
    """An audit with something in every part; ``parts`` replaces some."""
    probes = [
        {"probe": name, "positive": "COVID", "negative": "Normal", "auc": estimate(value), "chance_low": 0.42}
        | {"chance_high": 0.58, "p_value": 0.0004, "counts": [20, 20], "groups": [20, 20], "severity": severity}
        for name, value, severity in (("border", 0.93, "error"), ("histogram", 0.99, "info"), ("source", None, "info"))
    ]
    score = {"accuracy": estimate(0.9), "balanced_accuracy": estimate(0.8), "auc": estimate(0.95)}
    kept = estimate(0.7)
    refit = {"refitted_auc": estimate(0.81), "information": estimate(0.6), "information_share": estimate(0.62)}
    plain = {"index": None, "balanced_index": None, "follows_background": None, **refit, "information_kept": None}
    model = {
        "images": 40, "left_out": 2, "classes": 2, "majority_class": "Normal", "majority_share": 0.6,
        "scores": [
            {"treatment": "intact", **score, **plain},
            {"treatment": "erased_inpaint", **score, **plain, "index": estimate(0.4), "information_kept": kept},
            {"treatment": "erased_mean", **score, **plain, "index": estimate(0.2)},
        ],
        "headline": "erased_inpaint", "shortcut_index": estimate(0.41), "balanced_index": estimate(0.3),
        "background_effect": None, "refitted_images": 39, "label_entropy": 0.97, "trained_on": ["erased_mean"],
    }  # fmt: skip
    robustness = [
        {"change": change, "level": level, "strength": 2.5 * level, "unit": "steps"}
        | dict.fromkeys(("accuracy", "auc", "kept", "drop", "mask_dice"), estimate(0.9 - 0.1 * level))
        for change, levels in (("intact", (0,)), ("jpeg", (1, 2)), ("blur", (1, 2)))
        for level in levels
    ]
    duplicates = {
        "exact_pairs": 1, "near_pairs": 1, "clusters": 2, "images": 4, "surplus": 2,
        "class_names": ["COVID", "Normal"], "by_class": [[1, 1], [1, 0]],
        "split_names": ["train", "test"], "by_split": [[1, 1], [1, 0]],
        "pairs": [
            {"first": "a.png", "second": "b.png", "exact": True, "similarity": 1.0},
            {"first": "c.png", "second": "d<i>.png", "exact": False, "similarity": 0.91},
        ],
    }  # fmt: skip
    findings = (
        AuditFinding(check="shortcut_border", severity="error", message="COVID can be told from the border."),
        AuditFinding(check="label_conflict", severity="warning", message="Two labels.", records=("a<b>.png",), count=7),
        AuditFinding(check="probe_histogram", severity="info", message="It may be the disease."),
    )
    data = DataFacts(
        name="images & more", images=42, readable=40, with_masks=10, groups=41, classes={"COVID": 20, "Normal": 22},
        sources={"north": {"COVID": 20}, "south": {"Normal": 15}}, splits={"train": 30, "test": 12},
    )  # fmt: skip
    fact = {"value": "10 × 10", "share": 0.5}
    files = dict.fromkeys(("COVID", "Normal"), dict.fromkeys(("size", "format", "mode", "bits"), fact))
    conclusion = Conclusion(text="The data offer <shortcuts>.", data="shortcut", model="relies_on_them", leaks=0)
    every: dict[str, Any] = {
        "hilum_version": "0.0.0", "conclusion": conclusion, "data": data, "files": files, "findings": findings,
        "duplicates": duplicates, "probes": tuple(probes), "model": model, "robustness": tuple(robustness),
        "seconds": 12.3,
    }  # fmt: skip
    return AuditReport(**{**every, **parts})


def image_png(seed: int, count: int = 1) -> bytes:
    """``count`` phantoms of 64 pixels side by side, as PNG."""
    stream = io.BytesIO()
    images = [draw_phantom(seed + place, "Normal", size=64).image for place in range(count)]
    Image.fromarray(np.hstack(images)).save(stream, "PNG")
    return stream.getvalue()
