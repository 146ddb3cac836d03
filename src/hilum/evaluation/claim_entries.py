"""Say what an evaluation knows of each item of the CLAIM checklist.

Every entry is computed from the report. An item that the report says nothing about has no entry: nothing is assumed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from hilum.config import show_value
from hilum.evaluation.claim_journal import add_journal
from hilum.evaluation.report import Provenance, Report, SplitFacts
from hilum.format import format_interval, metric_title, number
from hilum.metrics.table import OVERALL, OVERLAP, WITHIN_SOURCES

Add: TypeAlias = Callable[[int, str], None]

_EVALUATED = "Evaluated images"
_SPLITS = {"train": "Training split", "val": "Validation split", "test": "Test split", "all": _EVALUATED}
_FIT = {
    "pad": "resized with its aspect ratio kept and padded with black to a square",
    "stretch": "stretched to a square",
}
_TRAINING = {
    "training": "Training (optimizer AdamW)",
    "loss": "Loss",
    "augment": "Augmentation",
    "shortcuts": "Measures against shortcuts",
}
_MOST_CONFUSED = 3


def entries_of(report: Report) -> dict[int, tuple[str, ...]]:
    """Return the number of an item to what the report knows of it; an item without an entry is left out."""
    found: dict[int, list[str]] = defaultdict(list)

    def add(item: int, text: str) -> None:
        found[item].append(text)

    _add_data(report, add)
    _add_partitions(report, add)
    if report.provenance is not None:
        _add_model(report.provenance, add)
        _add_training(report.provenance, add)
    _add_evaluation(report, add)
    _add_performance(report, add)
    _add_failures(report, add)
    add_journal(report, add)
    _add_rest(report, add)
    return {item: tuple(found[item]) for item in sorted(found)}


def _add_data(report: Report, add: Add) -> None:
    split, origin = report.split, report.provenance or Provenance()
    overlap, seen = report.training_overlap, report.contaminated
    for name, facts in origin.data.items():
        title = _EVALUATED if seen and name == split.name else _title(name)
        if facts.sources:
            add(7, f"{title}, images by source: {_named(facts.sources)}.")
        if facts.classes:
            add(36, f"{title}, images by class: {_named(facts.classes)}.")
        add(35, f"{_title(name)}: {_counts(facts)}.")
    if origin.left_out:
        excluded = f"Files excluded by the checks of hilum: {_named(origin.left_out)}."
        add(8, excluded)
        add(35, excluded)
    if spec := _settings(origin, "preprocess"):
        gray = "gray values" if spec.get("channels") == 1 else "gray values, repeated for three channels,"
        fit = _FIT.get(str(spec.get("fit")), str(spec.get("fit")))
        add(9, f"Each image is {fit} of {spec.get('size')} pixels; {gray} are scaled to [0, 1].")
    if classes := _last(origin).get("classes"):
        add(10, f"Trained on the images of the classes {', '.join(classes)}.")
    for known, what, metrics in (
        (split.labeled, "label", "classification"),
        (split.with_masks, "reference lung mask", "segmentation"),
    ):
        if known < split.images:
            without = f"{split.images - known:,} of {split.images:,} evaluated images have no {what}"
            add(12, f"{without} and are left out of the {metrics} metrics; nothing is imputed.")
    add(14, f"Classes: {', '.join(report.class_names)}.")
    if split.name in ("train", "val") or seen == split.images:
        return  # no test set
    title = _EVALUATED if seen else _title(split.name)
    labels = f"{split.labeled:,} of {split.images:,} images have a label"
    add(17, f"{title}: {labels}, {split.with_masks:,} a reference lung mask.")
    add(21, f"{title}: {split.images:,} images in {split.groups:,} groups.")
    if seen and overlap is not None:
        add(21, f"Not in the model's training data: {overlap.unseen:,} images in {overlap.unseen_groups:,} groups.")


def _add_partitions(report: Report, add: Add) -> None:
    origin = report.provenance or Provenance()
    if origin.partition == "drawn":
        drawn = f"Drawn by hilum at random, seed {origin.partition_seed}"
        add(19, f"{drawn}: whole groups, stratified by class and, where possible, by source.")
    elif origin.partition == "given":
        add(19, "Given with the data.")
    if len(origin.data) > 1:
        for name, facts in origin.data.items():
            add(19, f"{_title(name)}: {_counts(facts)}.")
        add(
            20,
            "By group: the data name groups, and hilum refuses a partition in which a group is in two parts."
            if origin.grouped
            else "By image: the data name no groups (patients), so images of one patient may be in several parts.",
        )
    if report.split.digest is not None:
        add(19, f"SHA-256 of the {'partition' if origin.partition else 'list of images'}: {report.split.digest}")
    overlap = report.training_overlap
    if report.model.kind == "bundle" and report.overlap_sentence is not None and overlap is not None:
        add(20, f"Compared with the perceptual hashes of the bundle's training images: {report.overlap_sentence}")


def _add_model(origin: Provenance, add: Add) -> None:
    if model := _settings(origin, "model"):
        network = str(model.get("name", "network"))
        if network != "unet" and model.get("encoder"):
            network += f", encoder {model['encoder']}"
        add(1, f"Deep learning: a neural network ({network}) for class and lung mask of a chest radiograph.")
        size = "" if origin.parameters is None else f", {origin.parameters:,} parameters"
        add(22, f"Network: {network}{size}.")
        evidence = "" if model.get("name") == "unet" else ", an evidence map per class"
        add(22, f"Outputs: a logit per class, a lung mask{evidence}.")
        add(22, f"Settings: {_switched_on(model, leave_out=('name', 'encoder', 'encoder_weights'))}.")
    if origin.software:
        add(23, f"Evaluated with {', '.join(f'{name} {version}' for name, version in origin.software.items())}.")
    if origin.initial_weights is not None:
        add(24, f"Initial weights: {origin.initial_weights}.")


def _add_training(origin: Provenance, add: Add) -> None:
    for section, title in _TRAINING.items():
        if chosen := _switched_on(_settings(origin, section)):
            add(25, f"{title}: {chosen}.")
    if len(origin.training) > 1:
        add(25, f"The last of {len(origin.training)} trainings; report.html has the settings of all.")
    if origin.hardware:
        add(25, f"Hardware of the evaluation: {', '.join(f'{name} {v}' for name, v in origin.hardware.items())}.")
    if origin.best_epoch is not None:
        chosen = f"Epoch {origin.best_epoch} of {len(origin.epochs)}"
        add(26, f"{chosen}: the lowest loss on the validation split.")
    add(27, "The evaluated model is a single network, not an ensemble.")
    if decay := _settings(origin, "training").get("ema_decay"):
        add(27, f"Its weights are an exponential moving average over training steps (decay {decay}).")


def _add_evaluation(report: Report, add: Add) -> None:
    settings = report.settings
    if metrics := list(dict.fromkeys(figure.metric for figure in report.figures)):
        add(28, f"{', '.join(metric_title(metric) for metric in metrics)}.")
    if report.calibration is not None:
        add(28, f"Calibration: {', '.join(metric_title(name) for name in ('ece', 'brier', 'nll'))}.")
    if report.conformal:
        add(28, "Prediction sets (split-conformal): coverage per class, set size.")
    if report.selective is not None:
        add(28, "Abstention: risk and coverage.")
    add(
        29,
        f"{100 * settings.level:g}% confidence intervals with standard errors from a bootstrap of whole groups within "
        f"classes, {settings.resamples:,} resamples, seed {settings.seed}: Wilson's for shares of images, Student's t "
        "on the logit scale for other figures; exact binomial bounds where a value is 0 or 1.",
    )
    for figure in report.figures:
        if figure.metric == "accuracy" and figure.source is not None:
            add(30, f"Accuracy within the source {figure.source}: {format_interval(figure, with_n=True)}.")
    for held in report.held_out_sources:
        without = format_interval(held["accuracy"], with_n=True)
        add(30, f"Trained without the source {held['source']}: accuracy on its images {without}.")
    if report.localization is not None:
        for method, measures in report.localization["methods"].items():
            if "hit" in measures:
                hit = format_interval(measures["hit"], with_n=True)
                add(31, f"{metric_title('hit', first=True)}, {method}: {hit}.")
    if report.failures:
        add(31, "report.html shows lung outline and evidence on wrong predictions, where the network gives evidence.")
    if report.model.kind == "run":
        overlap = report.training_overlap
        text = f"Evaluated on the {_title(report.split.name).lower()} of the dataset that the model was trained on"
        if report.split.name != "test":
            text += ", which is not a test"
        elif overlap is not None and overlap.known == "all" and not overlap.seen:
            text += ", which was used neither for training nor for selection"
        add(32, f"{text}.")
    _add_external(report, add)


def _add_external(report: Report, add: Add) -> None:
    origin = report.provenance
    if origin is None or origin.trained_sources is None or report.split.name not in origin.data:
        return
    own = set(origin.data[report.split.name].sources)
    if new := sorted(own - set(origin.trained_sources)):
        add(33, f"Evaluated sources that the model was not trained on: {', '.join(new)}.")
    if known := sorted(own & set(origin.trained_sources)):
        add(33, f"Evaluated sources that the model was trained on, so not external: {', '.join(known)}.")


def _add_performance(report: Report, add: Add) -> None:
    overlap = report.training_overlap
    if overlap is not None and overlap.seen and report.overlap_sentence is not None:
        add(37, report.overlap_sentence)
    for metric in ("balanced_accuracy", "macro_roc_auc", "dice"):
        if text := _measured(report, metric):
            add(2, f"{text[0].upper()}{text[1:]}.")
    for metric in (*OVERALL, WITHIN_SOURCES, *OVERLAP):
        if text := _measured(report, metric):
            add(37, f"{text[0].upper()}{text[1:]}.")
    if report.calibration is not None:
        ece = format_interval(report.calibration["after"]["ece"], with_n=True)
        add(37, f"{metric_title('ece', first=True)} {ece}.")
    for name in report.class_names:
        own = [_measured(report, metric, name) for metric in ("recall", "specificity", "precision", "roc_auc")]
        if known := [text for text in own if text]:
            add(38, f"{name}, one-vs-rest: {'; '.join(known)}.")
    for pair in report.contrasts:
        if pair.source is not None and pair.auc.value is not None:
            area = f"{metric_title('roc_auc')} {format_interval(pair.auc, with_n=True)}"
            add(38, f"{pair.positive} against {pair.negative} within {pair.source}: {area}.")


def _add_failures(report: Report, add: Add) -> None:
    if report.confusion_matrix is None:
        return
    confused = [
        (counted, truth, predicted)
        for truth, row in zip(report.class_names, report.confusion_matrix, strict=True)
        for predicted, counted in zip(report.class_names, row, strict=True)
        if truth != predicted and counted
    ]
    wrong, total = sum(counted for counted, _, _ in confused), sum(map(sum, report.confusion_matrix))
    add(39, f"{wrong:,} of {total:,} labeled images are misclassified.")
    for counted, truth, predicted in sorted(confused, key=lambda entry: -entry[0])[:_MOST_CONFUSED]:
        add(39, f"{truth} predicted as {predicted}: {counted:,}.")
    if report.failures:
        most = number(report.failures[0].probability)
        add(39, f"report.html shows the {len(report.failures)} of highest probability, up to {most}.")


def _add_rest(report: Report, add: Add) -> None:
    for sentence in report.limits:
        add(40, sentence)
    if report.provenance is not None and report.provenance.training:
        add(42, "report.html and report.json have all settings.")
    add(43, f"Software: hilum {report.hilum_version}.")
    if report.model.id is not None:
        what = "weights" if report.model.kind == "run" else report.model.kind
        add(43, f"SHA-256 of the {what}: {report.model.id}")


def _measured(report: Report, metric: str, class_name: str | None = None) -> str:
    """A metric with its interval and n; empty where it is undefined."""
    figure = report.figure(metric, class_name)
    if figure is None or figure.value is None:
        return ""
    return f"{metric_title(metric)} {format_interval(figure, with_n=True)}"


def _title(split: str) -> str:
    return _SPLITS.get(split, f"{split} split")


def _counts(facts: SplitFacts) -> str:
    return (
        f"{facts.images:,} images in {facts.groups:,} groups, {facts.labeled:,} labeled, {facts.with_masks:,} with a "
        "lung mask"
    )


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counted:,}" for name, counted in counts.items())


def _last(origin: Provenance) -> Mapping[str, Any]:
    return origin.training[-1] if origin.training else {}


def _settings(origin: Provenance, section: str) -> Mapping[str, Any]:
    found = _last(origin).get(section)
    return found if isinstance(found, Mapping) else {}


def _switched_on(settings: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> str:
    """The settings that are neither 0, false nor none, by their names in ``hilum train --set``."""
    shown = {key: value for key, value in settings.items() if key not in leave_out and value}
    return ", ".join(f"{key} {show_value(value).replace(',', ' ')}" for key, value in shown.items())
