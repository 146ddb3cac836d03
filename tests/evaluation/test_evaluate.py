"""The files of an evaluation: what they hold, the same report from them again, and partial knowledge."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from report_writing import NAMES, made_up_scores, provenance, trust_parts

from hilum.bundle.prediction_sets import softmax
from hilum.bundle.training_hashes import Extent
from hilum.errors import ConfigError, DataError
from hilum.evaluation.limits import limits_of
from hilum.evaluation.localization_table import LocalizationRow, LocalizationTable
from hilum.evaluation.report import ModelRef, Report, summary_lines
from hilum.evaluation.results import (
    MOST_FAILURES,
    Evaluated,
    build_report,
    failures_of,
    load_report,
    read_evaluation,
    write_evaluation,
)
from hilum.format import format_interval, metric_title
from hilum.metrics.calibration import fit_calibration
from hilum.metrics.scores import Scores
from hilum.metrics.table import figures_of

MACRO = ("precision", "specificity", "f1", "roc_auc", "pr_auc")
MODEL = ModelRef(kind="run", name="one", id="f" * 64)
FILES = {"report.json", "report.html", "claim.html", "claim.md", "predictions.csv", "evaluation.json", "plots"} | {
    "classification_report.json"
}
Parts = dict[str, Any]


def _localization(scores: Scores, *, lungs: bool = True) -> LocalizationTable:
    random = np.random.default_rng(3)
    undefined = [float("nan")] * 5

    def measures(method: str) -> list[float]:
        values: list[float] = random.random(5).tolist()
        if method == "random in lung":
            return [*values[:4], float("nan")] if lungs else undefined
        return values if lungs else [*values[:4], 0.0]

    return LocalizationTable(
        tuple(
            LocalizationRow(
                scores.files[image], scores.groups[image], "COVID", "region", method,
                *measures(method),
            )
            for image in range(3, 12)
            for method in ("evidence", "grad-cam", "random in lung")
        )
    )  # fmt: skip


def _unlabeled(scores: Scores) -> Scores:
    return replace(scores, labels=np.full(len(scores.files), -1, np.int64))


def _unmasked(scores: Scores) -> Scores:
    nothing = np.full(len(scores.files), np.nan)
    return replace(scores, dice=nothing, iou=nothing, hd95_share=nothing)


def _seen(scores: Scores) -> Scores:
    """Of 60 groups of two, the model was trained on one image of each of the first 20, on both of the next 10."""
    rows = np.arange(120)
    return replace(scores, seen=np.where(rows < 40, rows % 2 == 0, rows < 60))


def _evaluated(scores: Scores | None = None, **parts: Any) -> Evaluated:
    """As a run's evaluation: calibrated on other images, with localization and a source left out."""
    scores = scores or made_up_scores()
    fields: Parts = {
        "digest": "d" * 64,
        "calibration": fit_calibration(made_up_scores(seed=7), digest="d" * 64),
        "localization": _localization(scores),
        "same_sources": True,
        "held_out": trust_parts()["held_out_sources"],
    }
    return Evaluated(scores, MODEL, **(fields | parts))


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow part, from which no figure comes; tests/evaluation/test_plots.py has it."""
    monkeypatch.setattr("hilum.evaluation.plots.write_plots", lambda *_: {})


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluated, Path, Report]:
    """One evaluation with all parts; shared, so do not write into its folder."""
    evaluated, folder = _evaluated(), tmp_path_factory.mktemp("evaluation") / "test"
    return evaluated, folder, write_evaluation(evaluated, folder, resamples=60, seed=5)


# --- what is written ----------------------------------------------------------------------------------------------


def test_the_files_are_there_and_json_has_no_nan(written: tuple[Evaluated, Path, Report]) -> None:
    _, folder, report = written
    assert {path.name for path in folder.iterdir()} == FILES | {"localization.csv"}
    for name in ("report.json", "evaluation.json", "classification_report.json"):
        json.loads((folder / name).read_text(encoding="utf-8"), parse_constant=_no_constant)
    assert load_report(folder / "report.json") == report
    kinds = {path.suffix for path in (folder / "plots").iterdir()}
    assert kinds == {".png", ".svg"}
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_report_says_what_was_measured_on_what(written: tuple[Evaluated, Path, Report]) -> None:
    evaluated, _, report = written
    assert report.model == MODEL
    assert report.split.model_dump() == {
        "name": "test", "digest": "d" * 64, "images": 120, "groups": 60, "labeled": 117, "with_masks": 60,
    }  # fmt: skip
    assert report.settings.model_dump() == {"resamples": 60, "seed": 5, "level": 0.95}
    assert report.class_names == NAMES
    assert [entry["source"] for entry in report.held_out_sources] == ["south"]
    assert report.calibration is not None
    assert evaluated.calibration is not None
    assert report.calibration["temperature"] == evaluated.calibration.temperature
    assert [entry["level"] for entry in report.conformal] == ["0.90", "0.95", "0.99"]
    assert report.selective is not None
    assert report.localization is not None
    assert report.localization["images"] == 9


def test_figures_are_those_of_scikit_learn(written: tuple[Evaluated, Path, Report]) -> None:
    evaluated, folder, report = written
    known = evaluated.scores.labeled
    labels, probabilities = evaluated.scores.labels[known], evaluated.scores.probabilities[known]
    predicted = probabilities.argmax(axis=1)
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(labels, predicted),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro"),
        "macro_roc_auc": sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "mcc": sklearn.metrics.matthews_corrcoef(labels, predicted),
    }
    for metric, value in expected.items():
        figure = report.figure(metric)
        assert figure is not None
        assert figure.value == pytest.approx(value)
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < value < figure.high
        assert figure.n == 117
    own = sklearn.metrics.classification_report(labels, predicted, target_names=list(NAMES), output_dict=True)
    plain = json.loads((folder / "classification_report.json").read_text())
    for name in NAMES:
        assert {key: plain[name][key] for key in own[name]} == pytest.approx(own[name])
        recall = report.figure("recall", name)
        assert recall is not None
        assert recall.value == pytest.approx(own[name]["recall"])
        assert recall.n == own[name]["support"]
    assert report.confusion_matrix is not None
    np.testing.assert_array_equal(report.confusion_matrix, sklearn.metrics.confusion_matrix(labels, predicted))
    dice = report.figure("dice")
    assert dice is not None
    assert dice.value == pytest.approx(np.nanmean(evaluated.scores.dice))
    assert dice.n == 60


def test_a_contrast_within_a_source_is_the_auc_of_those_images(written: tuple[Evaluated, Path, Report]) -> None:
    evaluated, _, report = written
    scores = evaluated.scores
    assert scores.logits is not None
    found = {(c.source, c.positive, c.negative): c for c in report.contrasts}
    contrast = found["north", NAMES[0], NAMES[2]]
    inside = np.array([source == "north" for source in scores.sources])
    rows = inside & np.isin(scores.labels, (0, 2))
    ranking = scores.logits[rows, 0] - scores.logits[rows, 2]
    assert contrast.auc.value == pytest.approx(sklearn.metrics.roc_auc_score(scores.labels[rows] == 0, ranking))
    assert contrast.n_positive == (inside & (scores.labels == 0)).sum()
    assert contrast.n_negative == (inside & (scores.labels == 2)).sum()
    assert contrast.auc.n == rows.sum()


def test_limits_are_those_of_the_scores_and_of_what_the_model_saw(written: tuple[Evaluated, Path, Report]) -> None:
    evaluated, folder, report = written
    assert report.limits == limits_of(evaluated.scores, same_sources=True, training_images="none")
    assert all(sentence in (folder / "report.html").read_text(encoding="utf-8") for sentence in report.limits)
    bare = build_report(_evaluated(same_sources=False, calibration=None), resamples=20)
    assert bare.limits == limits_of(made_up_scores(), calibrated=False, training_images="none")
    assert bare.conformal == ()


def test_images_that_the_model_was_trained_on_are_counted_and_the_rest_is_measured() -> None:
    scores = _seen(made_up_scores())
    report = build_report(_evaluated(scores, localization=None, training_images="all"), resamples=30, seed=2)
    overlap = report.training_overlap
    assert overlap is not None
    assert (overlap.known, overlap.seen, overlap.unseen, overlap.unseen_groups) == ("all", 40, 60, 30)
    expected = figures_of(scores.subset(np.arange(120) >= 60), resamples=30, seed=2)
    assert {(f.metric, f.class_name, f.source): (f.value, f.low, f.n) for f in overlap.figures} == {
        (key.metric, key.class_name, key.source): (
            pytest.approx(interval.value, nan_ok=True) if interval.value == interval.value else None,
            pytest.approx(interval.low) if interval.low == interval.low else None,
            interval.n,
        )
        for key, interval in expected.items()
        if key.versus is None
    }
    assert report.unseen_figures == overlap.figures
    assert report.figure("accuracy") == build_report(_evaluated(localization=None), resamples=30, seed=2).figure(
        "accuracy"
    )
    first, second, *rest = summary_lines(report)
    assert first == report.overlap_sentence == report.limits[0]
    assert first.startswith("40 of 120 images are in this model's training data")
    assert second.startswith("partly training data: 120 images")
    assert first not in " ".join(rest)  # said once


def test_a_model_measured_on_its_own_training_images_alone_is_not_tested() -> None:
    scores = replace(made_up_scores(), seen=np.ones(120, np.bool_))
    report = build_report(_evaluated(scores, localization=None, training_images="all"), resamples=30)
    overlap = report.training_overlap
    assert overlap is not None
    assert (overlap.seen, overlap.unseen, overlap.figures, report.unseen_figures) == (120, 0, (), ())
    first, *rest = summary_lines(report)
    assert first == report.overlap_sentence == report.limits[0]
    assert not any("test" in line for line in [first, *rest, report.title])


@pytest.mark.parametrize(("seen", "contaminated"), [(1, False), (2, True)])
def test_as_many_matches_as_chance_gives_do_not_make_a_test_split_training_data(seen: int, contaminated: bool) -> None:
    scores = replace(made_up_scores(), seen=np.arange(120) < seen)
    report = build_report(_evaluated(scores, localization=None, training_images="all"), resamples=30)
    assert report.contaminated is contaminated
    assert (report.title == "test split") is not contaminated
    assert (report.overlap_sentence in report.limits) is contaminated
    assert summary_lines(report)[0] == report.overlap_sentence


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("share", ["all", "half"])
def test_report_and_checklist_begin_with_the_training_images_and_name_no_test(share: str, tmp_path: Path) -> None:
    seen = np.arange(120) < (120 if share == "all" else 60)
    model = ModelRef(kind="bundle", name="one", id="f" * 64)
    evaluated = _evaluated(replace(made_up_scores(), seen=seen), localization=None, training_images="all")
    report = write_evaluation(replace(evaluated, model=model, held_out=()), tmp_path, resamples=20)
    sentence = str(report.overlap_sentence)
    for name in ("report.html", "claim.html"):
        page = (tmp_path / name).read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"<style>.*?</style>|<script.*?</script>|<[^>]+>", "", page, flags=re.DOTALL))
        assert 0 < text.index(sentence) < text.rindex("Result" if name == "report.html" else "Abstract")
        assert "test split" not in text.lower()
    assert (tmp_path / "claim.md").read_text().splitlines()[2] == f"**{sentence}**"


@pytest.mark.parametrize("extent", ["none", "part"])
def test_training_images_that_are_not_known_are_a_limitation(extent: Extent) -> None:
    scores = made_up_scores() if extent == "none" else replace(made_up_scores(), seen=np.zeros(120, np.bool_))
    report = build_report(_evaluated(scores, localization=None, training_images=extent), resamples=30)
    assert report.training_overlap is not None
    assert report.training_overlap.known == extent
    assert report.training_overlap.seen == (None if extent == "none" else 0)
    assert report.unseen_figures == report.figures
    assert report.overlap_sentence is None  # no "none of them" where a part is not known
    assert sum("is not known" in sentence for sentence in report.limits) == 1


def test_failures_are_the_surest_errors_worst_first() -> None:
    scores = made_up_scores(300)
    every = sorted(
        (
            (-float(row.max()), file)
            for file, label, row in zip(scores.files, scores.labels, scores.probabilities, strict=True)
            if label >= 0 and row.argmax() != label
        ),
    )
    found = failures_of(scores)
    assert len(every) > len(found) == MOST_FAILURES
    assert [(-failure.probability, failure.file) for failure in found] == every[:MOST_FAILURES]
    assert all(failure.label != failure.predicted for failure in found)
    assert failures_of(_unlabeled(scores)) == ()


# --- the same again -----------------------------------------------------------------------------------------------


VARIANTS: dict[str, Callable[[], Evaluated]] = {
    "all": _evaluated,
    "neither": lambda: _evaluated(calibration=None, localization=None),
    "no calibration": lambda: _evaluated(calibration=None),
    "no localization": lambda: _evaluated(localization=None, held_out=()),
    "no lung found": lambda: _evaluated(localization=_localization(made_up_scores(), lungs=False)),
    "no labels": lambda: _evaluated(_unlabeled(made_up_scores()), localization=None),
    "no masks": lambda: _evaluated(_unmasked(made_up_scores())),
    "no distance": lambda: _evaluated(replace(made_up_scores(), hd95_share=np.full(120, np.nan))),
    "no logits": lambda: _evaluated(replace(made_up_scores(), logits=None), calibration=None),
    "no groups or sources": lambda: _evaluated(replace(made_up_scores(), groups=("",) * 120, sources=(None,) * 120)),
    "some seen": lambda: _evaluated(_seen(made_up_scores()), training_images="all"),
    "part known": lambda: _evaluated(_seen(made_up_scores()), training_images="part"),
    "provenance": lambda: _evaluated(provenance=provenance(), localization=None),
    "all seen": lambda: _evaluated(replace(made_up_scores(), seen=np.ones(120, np.bool_)), training_images="all"),
    "an absent class": lambda: _evaluated(replace(made_up_scores(), labels=np.arange(120) % 2)),
}  # fmt: skip


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_files_give_the_same_report_to_the_byte(variant: str, tmp_path: Path) -> None:
    write_evaluation(VARIANTS[variant](), tmp_path / "one", resamples=30, seed=9)
    evaluated, settings = read_evaluation(tmp_path / "one")
    write_evaluation(evaluated, tmp_path / "two", resamples=settings.resamples, seed=settings.seed)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_table_with_its_settings_beside_it_is_the_folder(written: tuple[Evaluated, Path, Report]) -> None:
    _, folder, report = written
    evaluated, settings = read_evaluation(folder / "predictions.csv")
    assert build_report(evaluated, resamples=settings.resamples, seed=settings.seed) == report


def test_another_seed_gives_other_intervals_and_the_same_values() -> None:
    one, two = (build_report(_evaluated(localization=None), resamples=30, seed=seed) for seed in (0, 1))
    assert [figure.value for figure in one.figures] == [figure.value for figure in two.figures]
    assert [figure.low for figure in one.figures] != [figure.low for figure in two.figures]


# --- partial knowledge --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_plots")
def test_without_labels_the_lungs_alone_are_measured(tmp_path: Path) -> None:
    report = write_evaluation(_evaluated(_unlabeled(made_up_scores()), localization=None), tmp_path, resamples=20)
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"classification_report.json", "plots"}
    assert {figure.metric for figure in report.figures} == {"dice", "iou", "hd95_share"}
    assert report.confusion_matrix is report.calibration is report.selective is None
    assert report.contrasts == report.conformal == report.failures == ()
    assert report.split.labeled == 0


@pytest.mark.usefixtures("no_plots")
def test_without_masks_the_classes_alone_are_measured(tmp_path: Path) -> None:
    report = write_evaluation(_evaluated(_unmasked(made_up_scores())), tmp_path, resamples=20)
    assert not {"dice", "iou", "hd95_share"} & {figure.metric for figure in report.figures}
    assert report.figure("accuracy") is not None
    assert report.split.with_masks == 0


@pytest.mark.usefixtures("no_plots")
def test_an_absent_class_is_null_and_named_beside_macro_averages(tmp_path: Path) -> None:
    labels = np.arange(120) % 2
    report = write_evaluation(_evaluated(replace(made_up_scores(), labels=labels)), tmp_path, resamples=20)
    recall = report.figure("recall", NAMES[2])
    assert recall is not None
    assert (recall.value, recall.low, recall.high, recall.n) == (None, None, None, 0)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=_no_constant)
    left_out = {figure["metric"]: figure["left_out"] for figure in content["figures"] if figure["left_out"]}
    assert set(left_out) == {"balanced_accuracy", *(f"macro_{of}" for of in MACRO)}
    assert all(names == [NAMES[2]] for names in left_out.values())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for metric in left_out:
        figure = report.figure(metric)
        assert figure is not None
        assert f"without {NAMES[2]}" in figure.note
        assert metric_title(metric) in page
    lines = [line for line in summary_lines(report) if line.endswith(f"; {figure.note}")]
    assert len(lines) == 3  # balanced accuracy, macro F1 and macro AUROC


@pytest.mark.usefixtures("no_plots")
def test_a_class_that_is_never_predicted_is_named_beside_macro_precision(tmp_path: Path) -> None:
    scores = made_up_scores()
    probabilities = scores.probabilities.copy()
    probabilities[:, 0] = 0
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    report = build_report(_evaluated(replace(scores, probabilities=probabilities)), resamples=20)
    zero = {figure.metric: figure.as_zero for figure in report.figures if figure.as_zero}
    assert zero == {"macro_precision": (NAMES[0],)}


def test_parts_that_differ_are_limitations(tmp_path: Path) -> None:
    """Far too sure in the south: its confidence less accuracy is named, with its n."""
    scores = made_up_scores(600)
    south = np.array(scores.sources) == "south"
    assert scores.logits is not None
    random = np.random.default_rng(0)
    labels = np.where(south, random.integers(0, 3, 600), scores.labels)
    logits = np.where(south[:, None], 4 * scores.logits, scores.logits)
    changed = replace(scores, labels=labels, logits=logits, probabilities=softmax(logits))
    report = build_report(Evaluated(changed, MODEL), resamples=100)
    assert report.calibration_within is not None
    parts = {part["name"]: part for part in report.calibration_within["parts"]}
    assert parts["south"]["differs"] == ["in_the_large"]
    assert parts["south"]["in_the_large"]["value"] > 0.3
    (sentence,) = [own for own in report.limits if "within the source south" in own]
    assert format_interval(parts["south"]["in_the_large"], signed=True, with_n=True) in sentence
    assert [curve["class_name"] for curve in report.calibration_within["curves"]] == list(NAMES)


@pytest.mark.usefixtures("no_plots")
def test_another_tools_table_is_measured_as_it_is(tmp_path: Path) -> None:
    scores = made_up_scores()
    table = tmp_path / "theirs.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", *(f"prob_{name}" for name in NAMES)])
        for file, label, row in zip(scores.files, scores.labels, scores.probabilities, strict=True):
            writer.writerow([file, NAMES[label] if label >= 0 else "", *row.tolist()])
    evaluated, settings = read_evaluation(table)
    assert evaluated.model == ModelRef(kind="predictions", name="theirs.csv")
    assert evaluated.calibration is None
    assert settings.resamples == 1000
    report = write_evaluation(evaluated, tmp_path / "out", resamples=20)
    own = build_report(_evaluated(), resamples=20)
    for metric in ("accuracy", "macro_roc_auc", "mcc"):
        mine, other = report.figure(metric), own.figure(metric)
        assert mine is not None
        assert other is not None
        assert mine.value == other.value
    assert report.calibration is None
    assert report.split.groups == 120


def test_what_an_earlier_evaluation_left_is_gone(tmp_path: Path) -> None:
    write_evaluation(_evaluated(), tmp_path, resamples=20)
    before = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"localization.csv", "classification_report.json"} <= {path.name for path in tmp_path.iterdir()}
    fresh = tmp_path.with_name(tmp_path.name + "-fresh")
    bare = _evaluated(_unlabeled(made_up_scores()), localization=None)
    for folder in (tmp_path, fresh):
        write_evaluation(bare, folder, resamples=20)
    left, own = ({str(p.relative_to(f)) for f2 in [f] for p in f2.rglob("*") if p.is_file()} for f in (tmp_path, fresh))
    assert left == own
    assert before - {Path(name).name for name in own}  # or nothing had to go


# --- what is refused ----------------------------------------------------------------------------------------------


def _without(key: str) -> Callable[[Parts], object]:
    return lambda content: {name: value for name, value in content.items() if name != key}


def _with(**changes: Any) -> Callable[[Parts], object]:
    return lambda content: content | changes


ALTERED: dict[str, Callable[[Parts], object]] = {
    "a list": lambda content: [content],
    "no settings": _without("settings"),
    "another kind of model": _with(model={"kind": "oracle", "name": "x"}),
    "an unknown setting": _with(settings={"resamples": 20, "seed": 0, "level": 0.95, "method": "x"}),
    "half a calibration": lambda content: content | {"calibration": {"temperature": 1.0}},
    "held_out of words": _with(held_out=["south"]),
}


@pytest.mark.parametrize("change", list(ALTERED))
def test_altered_settings_are_refused(change: str, written: tuple[Evaluated, Path, Report], tmp_path: Path) -> None:
    _, folder, _ = written
    content = json.loads((folder / "evaluation.json").read_text())
    (tmp_path / "predictions.csv").write_bytes((folder / "predictions.csv").read_bytes())
    (tmp_path / "evaluation.json").write_text(json.dumps(ALTERED[change](content)))
    with pytest.raises(DataError):
        read_evaluation(tmp_path)


def test_a_calibration_of_other_classes_is_refused(written: tuple[Evaluated, Path, Report], tmp_path: Path) -> None:
    """Another table put beside the settings."""
    (tmp_path / "evaluation.json").write_bytes((written[1] / "evaluation.json").read_bytes())
    (tmp_path / "predictions.csv").write_text("file,label,prob_a,prob_b\nx.png,a,0.5,0.5\ny.png,b,0.5,0.5\n")
    with pytest.raises(DataError):
        read_evaluation(tmp_path)


def test_settings_that_are_no_json_are_named(written: tuple[Evaluated, Path, Report], tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_bytes((written[1] / "predictions.csv").read_bytes())
    (tmp_path / "evaluation.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match=r"evaluation\.json") as caught:
        read_evaluation(tmp_path)
    assert caught.value.hint


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        read_evaluation(tmp_path / "nowhere.csv")


def test_files_of_versions_without_provenance_and_diagram_are_read(
    written: tuple[Evaluated, Path, Report], tmp_path: Path
) -> None:
    content = json.loads((written[1] / "report.json").read_text())
    del content["provenance"], content["calibration"]["before"]["diagram"], content["calibration"]["after"]["diagram"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert load_report(tmp_path / "report.json").figures == written[2].figures
    (tmp_path / "predictions.csv").write_bytes((written[1] / "predictions.csv").read_bytes())
    settings = json.loads((written[1] / "evaluation.json").read_text())
    del settings["provenance"]
    (tmp_path / "evaluation.json").write_text(json.dumps(settings))
    assert read_evaluation(tmp_path)[0].provenance is None


def test_a_report_of_another_form_is_named(written: tuple[Evaluated, Path, Report], tmp_path: Path) -> None:
    content = json.loads((written[1] / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(content | {"format": "hilum-report-0"}))
    with pytest.raises(DataError, match=r"report\.json"):
        load_report(tmp_path / "report.json")
    with pytest.raises(DataError, match=r"absent\.json"):
        load_report(tmp_path / "absent.json")


def test_a_refused_evaluation_writes_nothing(tmp_path: Path) -> None:
    reserved = replace(made_up_scores(), class_names=("accuracy", *NAMES[1:]))
    with pytest.raises(DataError, match="accuracy"):
        write_evaluation(_evaluated(reserved), tmp_path / "out", resamples=20)
    with pytest.raises(ConfigError):
        write_evaluation(_evaluated(), tmp_path / "out", resamples=1)
    assert not (tmp_path / "out").exists()
