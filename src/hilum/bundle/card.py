"""Write the model card of a bundle as Markdown: training data, test metrics, calibration and limitations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hilum.bundle.bundle import Manifest, TrainingHashes
from hilum.bundle.calibration import temperature_text, threshold_text
from hilum.format import at_least_note, bounds, capital, metric_title, number

NOT_A_DEVICE = "It is a research tool, not a medical device."
INTERVALS = (
    "95% confidence intervals (CI) are from a bootstrap that resamples whole groups (patients, near-duplicates) within "
    "classes."
)
SAME_SOURCES = (
    "The test split comes from the same sources as the training split; expect lower figures on images from elsewhere."
)
CANNOT_TELL = (
    "Where class and source coincide in the training data, the network may have learned the source. A predicted class "
    "is not a diagnosis, and a high probability does not replace looking at the image."
)
"""Statements shared by all model cards, including that of the packaged model (benchmarks/model_card.py)."""


def model_card(manifest: Manifest, data: Mapping[str, Any]) -> str:
    """Return a model card (Mitchell et al. 2019) as Markdown.

    Args:
        manifest: Manifest of the bundle, before it is sealed.
        data: ``images`` and ``masks`` per split, or None; ``sources``, name to number of images; ``epoch``;
            ``pretrained``; ``seeds``, the content of seeds.json if the run is one of several seeds, or None; optionally
            ``started_from``, a hilum.training.from_bundle.Start or None, and
            ``seen_of_test``, the number of test images that its bundle was trained on and the total number, or None if
            unknown.
    """
    spec = manifest.preprocess
    rows = [_row(figure) for figure in manifest.metrics.get("test", []) if figure["source"] is None]
    network = network_name(manifest.model.name, manifest.model.encoder)
    sources = ", ".join(f"{name} ({count:,})" for name, count in data["sources"].items()) or "not given"
    lines = [
        f"# {manifest.name}",
        "",
        "A multi-task chest radiograph model made with hilum: class, lung mask and, where the network has it, "
        f"evidence. {NOT_A_DEVICE}",
        "",
        f"- Classes: {', '.join(manifest.class_names)}",
        f"- Network: {network}; input {spec.channels} x {spec.size} x {spec.size}, {spec.fit}, gray levels in [0, 1]",
        f"- Weights of epoch {data['epoch']}; encoder weights at the start: {data['pretrained'] or 'random'}",
        *_seeds(data.get("seeds")),
        *_start(data.get("started_from"), data.get("seen_of_test")),
        f"- Images (train / val / test): {_slashed(data['images'])}; lung masks: {_slashed(data['masks'])}",
        f"- Sources of the images: {sources}",
        f"- Split: SHA-256 {manifest.split_digest or 'unknown'}; hilum {manifest.hilum_version}, {manifest.created}",
        f"- {sentence_of_hashes(manifest.training_hashes)}",
        "",
        "## Performance on the test split",
        "",
        "| figure | value | 95% CI | n |",
        "|---|---|---|---|",
        *rows,
        "",
        " ".join(filter(None, (INTERVALS, at_least_note("".join(rows)), SAME_SOURCES))),
        "",
        *_calibration(manifest),
        "## Limitations",
        "",
        CANNOT_TELL,
        "",
    ]
    return "\n".join(lines)


def network_name(name: str, encoder: str | None) -> str:
    """Return the display name of a network and its encoder; ``unet`` has none."""
    return name if name == "unet" or encoder is None else f"{name}, {encoder}"


def sentence_of_hashes(facts: TrainingHashes | None) -> str:
    """Return a statement on the hashes of training images in a bundle."""
    if facts is None:
        return (
            "The bundle carries no hashes of its training images, so hilum cannot tell whether the model was trained "
            "on an image."
        )
    part = "" if facts.complete else " Those of an earlier training or calibration are not known."
    return (
        f"The bundle carries a perceptual hash (32 bytes, {facts.method}) of {facts.images:,} training and validation "
        "images, by which `hilum evaluate`, `compare` and `audit` recognize them, also resized or re-encoded."
        f"{part} An image cannot be reconstructed from its hash, but anyone who has an image can tell whether it was "
        f"there; `hilum export --no-training-hashes` leaves the hashes out. {facts.note}"
    ).rstrip()


def _seeds(content: Mapping[str, Any] | None) -> list[str]:
    if content is None or content["chosen"] is None:
        return []
    shown = [
        f"{metric_title(entry['metric'])} {number(entry['sd'])} ({number(entry['low'])} to {number(entry['high'])})"
        for entry in content["spread"]
        if entry["metric"] in ("accuracy", "macro_roc_auc", "dice") and entry["class_name"] is entry["source"] is None
    ]
    return [
        f"- One of {len(content['seeds'])} trainings from different random seeds; the lowest validation loss has seed "
        f"{content['chosen']}. Standard deviation (range) over the seeds on the test split: {', '.join(shown)}",
    ]


def _start(start: Any, seen: tuple[int, int] | None) -> list[str]:
    if start is None:
        return []
    sources = ", ".join(start.sources) or "not known"
    kept, new = (", ".join(names) or "none" for names in (start.classes_kept, start.classes_new))
    among = "whether images of the test split below were among them is not known"
    if seen is not None:
        among = f"{seen[0]:,} of {seen[1]:,} images of the test split were among them, and no figure below is of these"
    return [
        f"- Started from bundle {start.bundle_id} ({start.name}), classes kept: {kept}, new: {new}. Its own training "
        f"images came from: {sources}; {among}.",
    ]


def _calibration(manifest: Manifest) -> list[str]:
    facts = manifest.calibration
    if not facts:
        return []
    return [
        "## Calibration",
        "",
        f"Fitted on {facts['images']:,} images of {facts['groups']:,} groups (split {facts['split']}). "
        f"{capital(temperature_text(manifest, manifest.class_names))}; prediction sets at "
        f"{manifest.prediction_set_level} coverage, per class. It abstains "
        f"{threshold_text(manifest, manifest.class_names)}.",
        "",
    ]


def _slashed(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "unknown"
    return " / ".join(f"{counts[name]:,}" for name in ("train", "val", "test"))


def _row(figure: Mapping[str, Any]) -> str:
    name = ", ".join(filter(None, (metric_title(figure["metric"]), figure["class_name"])))
    return f"| {name} | {number(figure['value'])} | {bounds(figure) or 'none'} | {figure['n']:,} |"
