"""Two models on one set: alignment, the primary metric and the others, equivalence, the words, and the command."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
from html_references import external_references
from score_making import scores_of
from sklearn.metrics import accuracy_score, roc_auc_score
from typer.testing import CliRunner

from hilum.bundle.prediction_sets import softmax
from hilum.cli.compare import app
from hilum.errors import ConfigError, DataError
from hilum.evaluation.compare import Comparison, Difference, compare, figure_id, open_scores
from hilum.evaluation.compare_page import write_comparison_page
from hilum.evaluation.decision import counts_of, figure_name, macro_notes, n_of, others, verdict
from hilum.evaluation.predictions import write_predictions
from hilum.evaluation.report import ModelRef
from hilum.evaluation.results import Evaluated, write_evaluation
from hilum.metrics.bootstrap import resampled_weights
from hilum.metrics.delong import Ranked, delong_spread
from hilum.metrics.paired import Paired, paired_draws
from hilum.metrics.scores import Scores
from hilum.metrics.table import WITHIN_SOURCES, Key, rests_on, statistics_of, within_sources


def _scores(signal: float = 1.0, seed: int = 0, count: int = 150) -> Scores:
    """Three classes, two of them in two sources; the truth is the same for every seed."""
    truth, own = np.random.default_rng(99), np.random.default_rng(seed)
    labels = truth.integers(0, 3, count)
    sources = np.where(labels == 2, "east", np.array(["east", "west"])[truth.integers(0, 2, count)])
    masked = truth.random(count) < 0.5
    logits = signal * np.eye(3)[labels] + truth.normal(size=(count, 3)) / 2 + own.normal(size=(count, 3)) / 2
    dice = np.where(masked, 0.8 + 0.15 * own.random(count), np.nan)
    return scores_of(
        np.where(truth.random(count) < 0.95, labels, -1), softmax(logits), logits=logits,
        groups=tuple(f"g{row // 2}" for row in range(count)), sources=tuple(map(str, sources)), dice=dice,
        hd95_share=np.where(masked, 10 * own.random(count), np.nan),
    )  # fmt: skip


def _shuffled(scores: Scores, seed: int = 0) -> Scores:
    """The same, in another order of files and of classes."""
    order = np.random.default_rng(seed).permutation(len(scores.files))
    columns = [2, 0, 1]
    assert scores.logits is not None
    assert scores.hd95_share is not None
    return replace(
        scores, files=tuple(scores.files[row] for row in order),
        labels=np.array([1, 2, 0, -1])[scores.labels[order]], probabilities=scores.probabilities[order][:, columns],
        logits=scores.logits[order][:, columns], class_names=tuple(scores.class_names[k] for k in columns),
        groups=tuple(scores.groups[row] for row in order), sources=tuple(scores.sources[row] for row in order),
        dice=scores.dice[order], iou=scores.iou[order], hd95_share=scores.hd95_share[order],
        seen=None if scores.seen is None else scores.seen[order],
    )  # fmt: skip


def _found(comparison: Comparison) -> dict[Key, Difference]:
    return {Key(d.metric, d.class_name, d.source, d.versus): d for d in comparison.differences}


def test_order_of_files_and_classes_changes_nothing() -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    plain, shuffled = _found(compare(a, b, resamples=50)), _found(compare(a, _shuffled(b), resamples=50))
    assert plain.keys() == shuffled.keys()
    for key, difference in plain.items():
        for name in ("a", "b", "difference", "low", "high"):
            assert getattr(difference, name) == pytest.approx(getattr(shuffled[key], name), abs=1e-12), key


def test_images_that_either_was_trained_on_are_counted_and_the_rest_is_compared_beside() -> None:
    a, b = _scores(0.5, seed=1), _scores(3.0, seed=2)  # 75 groups of two
    rows = np.arange(150)
    a, b = replace(a, seen=rows < 20), replace(b, seen=(rows >= 10) & (rows < 41))
    found = compare(a, _shuffled(b), resamples=50)
    assert found.seen == (20, 31)
    assert found.unseen is not None
    left = rows >= 42  # the other image of the group of row 40 goes too
    plain = compare(replace(a.subset(left), seen=None), replace(b.subset(left), seen=None), resamples=50)
    assert found.unseen.images == plain.images == 108
    for key, difference in _found(found.unseen).items():
        assert difference.difference == pytest.approx(_found(plain)[key].difference, abs=1e-12, nan_ok=True)
    assert _found(found)[Key("accuracy")].n > _found(found.unseen)[Key("accuracy")].n
    assert verdict(found).endswith(verdict(found.unseen))
    everything = compare(replace(a, seen=np.ones(150, np.bool_)), b, resamples=50)
    assert everything.unseen is None
    assert (everything.outcome, {d.better for d in everything.differences}) == ("inconclusive", {None})
    assert (found.outcome, {d.better for d in found.differences}) == (found.unseen.outcome, {None})


def test_without_seen_images_there_is_one_comparison() -> None:
    found = compare(replace(_scores(seed=1), seen=np.zeros(150, np.bool_)), _scores(seed=2), resamples=50)
    assert (found.seen, found.unseen) == ((0, None), None)


@pytest.mark.parametrize("with_logits", [True, False])
def test_every_figure_is_that_of_either_model(with_logits: bool) -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    if not with_logits:
        a, b = replace(a, logits=None), replace(b, logits=None)
    found = _found(compare(a, b, resamples=50))
    alone = np.ones((1, len(a.files)))
    of_a, of_b = statistics_of(a)(alone), statistics_of(b)(alone)
    assert found.keys() == of_a.keys()
    for key, difference in found.items():
        assert difference.a == pytest.approx(of_a[key][0], abs=1e-12), key
        assert difference.b == pytest.approx(of_b[key][0], abs=1e-12), key
        assert difference.difference == pytest.approx(difference.b - difference.a, abs=1e-12)
        assert difference.low < difference.high, key
        assert (difference.p < 0.05) == (difference.low > 0 or difference.high < 0), key
        assert (difference.method == "delong") == ("roc_auc" in key.metric)


def test_aurocs_have_delongs_standard_error_clustered() -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    found = _found(compare(a, b, resamples=10))
    rows, groups = a.labeled, np.array([int(name[1:]) for name in a.groups])
    for k, name in enumerate("abc"):
        own, positive = found[Key("roc_auc", name)], a.labels[rows] == k
        auroc = Ranked(rows, positive, a.probabilities[rows, k], b.probabilities[rows, k])
        spread = delong_spread([auroc], (a.labels == k).astype(np.int64), groups)
        assert own.b == pytest.approx(roc_auc_score(positive, b.probabilities[rows, k]))
        fewest = min(np.unique(groups[rows][side]).size for side in (positive, ~positive))
        assert own.groups == fewest
        expected = Paired(own.difference, spread.error, fewest, skew=spread.skew, degrees=spread.degrees)
        assert (own.low, own.high, own.p) == pytest.approx((*expected.interval(), expected.p()))


def test_the_primary_metric_is_alone_and_the_others_are_adjusted() -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    found = compare(a, b, resamples=300, seed=4)
    assert found.primary.key == Key(WITHIN_SOURCES)
    assert found.headline[0] is found.primary
    assert found.primary.p_adjusted is None
    others_found = [d for d in found.differences if not d.primary]
    assert len(others_found) == len(found.differences) - 1
    assert len(others_found) > 40
    adjusted = np.array([d.p_adjusted for d in others_found], float)
    alone = np.array([d.p for d in others_found])
    assert np.all(adjusted >= alone - 0.01)  # of 10,000 draws
    assert adjusted.min() > 3 * alone.min()
    again = compare(a, b, resamples=300, seed=4)
    assert again == found
    moved = compare(a, b, resamples=300, seed=5)
    assert moved.primary == found.primary  # DeLong's error needs no resamples
    assert moved != found


def test_the_default_primary_metric_averages_contrasts_with_enough_groups_in_a_source() -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    keys = within_sources(a)
    assert set(keys) == {
        Key("roc_auc", "a", "east", "b"), Key("roc_auc", "a", "west", "b"),
        Key("roc_auc", "a", "east", "c"), Key("roc_auc", "b", "east", "c"),
    }  # fmt: skip
    found = _found(compare(a, b, resamples=10))
    assert found[Key(WITHIN_SOURCES)].b == pytest.approx(np.mean([found[key].b for key in keys]))
    rows = rests_on(a)
    assert np.array_equal(rows[Key(WITHIN_SOURCES)], np.logical_or.reduce([rows[key] for key in keys]))
    west = np.flatnonzero((a.labels == 1) & (np.array(a.sources) == "west"))
    few = np.ones(150, np.bool_)
    few[west[np.array([a.groups[row] for row in west]) != a.groups[west[0]]]] = False  # one group of b in west
    assert Key("roc_auc", "a", "west", "b") not in within_sources(a.subset(few))
    assert len(within_sources(a.subset(few))) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sources": (None,) * 150}, Key("macro_roc_auc")),
        ({"labels": np.full(150, -1), "sources": (None,) * 150}, Key("dice")),
    ],
)
def test_without_sources_or_labels_another_metric_is_primary(change: dict[str, object], expected: Key) -> None:
    a, b = (replace(_scores(seed=seed), **change) for seed in (1, 2))  # type: ignore[arg-type]
    assert compare(a, b, resamples=10).primary.key == expected


def test_any_metric_can_be_primary() -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    for key in (Key("recall", "c"), Key("accuracy", None, "west"), Key("roc_auc", "a", "east", "b"), Key("hd95_share")):
        found = compare(a, b, primary=figure_id(key), resamples=20)
        assert found.primary.key == key
        assert found.headline[0].key == key
        assert sum(d.primary for d in found.differences) == 1
    assert figure_id(Key("roc_auc", "a", "east", "b")) == "roc_auc:a:b@east"
    for wrong in ("recall", "recall:x", "hd95", ""):
        with pytest.raises(ConfigError):
            compare(a, b, primary=wrong, resamples=20)


def test_no_model_is_better_in_any_metric_where_the_primary_one_shows_no_difference() -> None:
    poor, good = _scores(0.5, seed=1), _scores(2.5, seed=2)
    dice = np.where(np.isnan(poor.dice), np.nan, poor.dice / 2)
    good = replace(good, dice=dice, iou=dice / (2 - dice), hd95_share=poor.hd95_share)
    by_class = compare(poor, good, resamples=200)
    better = {d.key: d.better for d in by_class.differences}
    assert (by_class.outcome, better[Key(WITHIN_SOURCES)], better[Key("accuracy")]) == ("B", "B", "B")
    assert better[Key("dice")] == "A"
    unclear = compare(poor, good, primary="hd95_share", resamples=200)
    assert (unclear.outcome, {d.better for d in unclear.differences}) == ("inconclusive", {None})
    assert _found(unclear)[Key("dice")].p_adjusted == pytest.approx(0, abs=0.001)  # shown all the same
    assert "better:" not in others(unclear)


@pytest.mark.parametrize(
    ("margin", "a_not_worse", "b_not_worse", "outcome"),
    [(0.002, False, False, "inconclusive"), (0.3, True, True, "equivalent")],
)
def test_equivalence_is_two_one_sided_tests(margin: float, a_not_worse: bool, b_not_worse: bool, outcome: str) -> None:
    a, b = _scores(seed=1), _scores(seed=2)
    found = compare(a, b, margin=margin, resamples=20)
    tests = found.equivalence
    assert tests is not None
    assert (tests.p_a_not_worse <= 0.05, tests.p_b_not_worse <= 0.05) == (a_not_worse, b_not_worse)
    assert tests.p == max(tests.p_a_not_worse, tests.p_b_not_worse)
    assert (-margin < tests.low and tests.high < margin) == (tests.p <= 0.05)
    assert found.primary.low < tests.low < tests.high < found.primary.high
    assert found.outcome == outcome
    assert f"{margin:g}" in verdict(found)


def test_the_worse_model_is_not_shown_to_be_no_worse() -> None:
    a, b = _scores(seed=1), _scores(3.0, seed=2)
    gap = compare(a, b, resamples=20).primary.difference
    found = compare(a, b, margin=gap, resamples=20)
    assert found.outcome == "B"
    assert found.equivalence is not None
    assert found.equivalence.p_a_not_worse > 0.4
    assert found.equivalence.p_b_not_worse < 0.001
    worse = np.asarray(a.hd95_share) * 2
    turned = compare(a, replace(b, hd95_share=worse), primary="hd95_share", margin=1.0, resamples=50)
    assert turned.outcome == "A"
    assert turned.equivalence is not None
    assert turned.equivalence.p_b_not_worse > 0.5  # a greater distance is worse
    assert turned.equivalence.p_a_not_worse < 0.001


def test_a_model_is_not_worse_where_the_95_percent_interval_is_above_the_margin() -> None:
    a, b = _scores(seed=1), _scores(seed=2)
    reach = compare(a, b, resamples=20).primary.high  # of the 95% interval of B - A
    for margin, shown in ((1.02 * reach, True), (0.98 * reach, False)):
        again = compare(a, b, margin=margin, resamples=20)
        assert again.outcome == "inconclusive"
        assert again.equivalence is not None
        assert again.equivalence.p_a_not_worse <= 0.05  # of both margins
        assert ("A is not worse than B" in verdict(again)) == shown


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_a_margin_is_above_0(margin: float) -> None:
    with pytest.raises(ConfigError):
        compare(_scores(seed=1), _scores(seed=2), margin=margin)


def test_every_difference_names_its_n() -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    found = compare(a, b, resamples=10)
    assert (found.images, found.labeled, found.with_masks) == (150, a.labeled.sum(), a.masked.sum())
    own, other = rests_on(a), rests_on(b)
    rests = {key: own[key] | other[key] for key in own}  # of precision: what either predicts as the class
    for key, difference in _found(found).items():
        assert difference.n == rests[key].sum(), key
        if key.metric != "roc_auc":
            assert (difference.n_positive, difference.n_negative) == (None, None)
            assert n_of(difference) == f"{difference.n:,}"
            continue
        among = a.labeled if key.versus is None else rests[key]
        positive = a.labels[among] == a.class_names.index(str(key.class_name))
        assert (difference.n_positive, difference.n_negative) == (positive.sum(), (~positive).sum()), key
        assert n_of(difference) == f"{positive.sum()} / {(~positive).sum()}"


def test_the_page_has_every_figure_with_its_n(tmp_path: Path) -> None:
    a, b = _scores(0.5, seed=1), _scores(2.5, seed=2)
    rows = np.arange(150)
    for found in (
        compare(a, b, resamples=20),
        compare(replace(a, seen=rows < 20), replace(b, seen=rows < 10), resamples=20),
        compare(
            replace(a, labels=np.where(a.labels == 2, -1, a.labels)),
            replace(b, labels=np.where(a.labels == 2, -1, a.labels)),
            resamples=20,
        ),
    ):
        write_comparison_page(found, tmp_path / "ab.html", names=("<one>", "two"))
        html = (tmp_path / "ab.html").read_text(encoding="utf-8")
        assert external_references(html) == set()
        assert escape(verdict(found)) in html
        assert escape(others(found)) in html
        assert "&lt;one&gt;" in html
        parts = [found] if found.unseen is None else [found.unseen, found]
        cells = re.findall(r'</th><td class="num">([\d,/ ]+)</td>', html)
        assert sorted(cells) == sorted(n_of(d) for part in parts for d in part.differences)
        assert all(counts_of(part) in html for part in parts)


def test_classes_that_a_macro_average_leaves_out_or_counts_as_0_are_named(tmp_path: Path) -> None:
    a, b = _scores(0.5, seed=1), _scores(2.5, seed=2)
    labels = np.where(a.labels == 2, -1, a.labels)
    never = a.probabilities * [1, 0, 1] + [0, 0, 1e-6]  # A never predicts b
    a = replace(a, labels=labels, probabilities=never / never.sum(axis=1, keepdims=True), logits=None)
    found = compare(a, replace(b, labels=labels), resamples=20)
    own = _found(found)
    macro = {key for key in own if key.class_name is None and key.metric.startswith(("macro_", "balanced"))}
    macro -= {Key(WITHIN_SOURCES)}
    assert {key for key, d in own.items() if d.left_out} == macro
    assert {own[key].left_out for key in macro} == {("c",)}
    assert {key: d.as_zero for key, d in own.items() if any(d.as_zero)} == {Key("macro_precision"): (("b",), ())}
    write_comparison_page(found, tmp_path / "ab.html", names=("a", "b"))
    html = (tmp_path / "ab.html").read_text(encoding="utf-8")
    notes = macro_notes(found.headline)
    assert len(notes) == 2
    assert all(escape(note) in html for note in notes)


def test_bootstrap_is_paired() -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    found = _found(compare(a, b, resamples=400, seed=5))[Key("accuracy")]
    known = a.labeled

    def accuracies(scores: Scores, seed: int) -> np.ndarray:
        chunks = resampled_weights(a.clusters(), 400, seed, strata=a.labels)
        own, predicted = scores.labels[known], scores.predicted[known]
        return np.array([accuracy_score(own, predicted, sample_weight=w[known]) for chunk in chunks for w in chunk])

    paired = np.std(accuracies(b, 5) - accuracies(a, 5))
    apart = np.std(accuracies(b, 6) - accuracies(a, 5))
    width = found.high - found.low
    assert width == pytest.approx(2 * 1.99 * paired, rel=0.05)
    assert width < 0.95 * 2 * 1.99 * apart
    assert np.std(paired_draws(a, b, 400, 5)[Key("accuracy")]) == pytest.approx(paired)


def test_a_model_does_not_differ_from_itself() -> None:
    a = _scores()
    comparison = compare(a, _shuffled(a), margin=0.2, resamples=20)
    for difference in comparison.differences:
        assert difference.difference == pytest.approx(0, abs=1e-12)
        assert difference.p == 1
        assert difference.better is None
        if difference.metric != "hd95_share":
            assert difference.low == -difference.high < 0
    assert comparison.outcome == "equivalent"
    assert compare(a, a, margin=0.001, resamples=20).outcome == "inconclusive"  # 75 groups cannot show that


def test_the_better_model_is_named_where_the_data_tell() -> None:
    poor, good = _scores(0.5, seed=1), _scores(2.5, seed=2)
    good = replace(good, dice=poor.dice, iou=poor.iou, hd95_share=np.asarray(poor.hd95_share) + 1)
    found = compare(poor, good, resamples=200)
    better = {Key(d.metric, d.class_name): d.better for d in found.headline}
    assert better[Key("hd95_share")] == "A"
    assert {better[Key("accuracy")], better[Key("roc_auc", "a")], better[Key("roc_auc", "b")]} == {"B"}
    assert (better[Key("dice")], better[Key("iou")]) == (None, None)
    assert (found.outcome, compare(good, poor, resamples=200).outcome) == ("B", "A")
    turned = {Key(d.metric, d.class_name): d.better for d in compare(good, poor, resamples=200).headline}
    assert (turned[Key("hd95_share")], turned[Key("accuracy")]) == ("B", "A")


def test_masks_are_compared_where_both_have_them() -> None:
    a, b = _scores(seed=1), _scores(seed=2)
    fewer = np.where(np.arange(150) < 100, b.dice, np.nan)
    b = replace(b, dice=fewer, iou=fewer / (2 - fewer), hd95_share=None)
    found = _found(compare(a, b, resamples=20))
    both = ~np.isnan(fewer)
    assert found[Key("dice")].n == both.sum()
    assert found[Key("dice")].a == pytest.approx(a.dice[both].mean())
    assert Key("hd95_share") not in found


def test_groups_and_sources_come_from_the_table_that_has_them() -> None:
    a, b = _scores(seed=1), _scores(1.3, seed=2)
    bare = replace(a, groups=("",) * 150, sources=(None,) * 150)
    assert compare(bare, b, resamples=20) == compare(a, b, resamples=20)
    assert compare(a, replace(b, groups=("",) * 150), resamples=20) == compare(a, b, resamples=20)
    assert compare(bare, replace(b, groups=("",) * 150), resamples=20).groups == 150


def test_a_class_without_images_is_undefined() -> None:
    a, b = _scores(seed=1), _scores(seed=2)
    labels = np.where(a.labels == 2, -1, a.labels)
    found = _found(compare(replace(a, labels=labels), replace(b, labels=labels), resamples=20))
    empty = found[Key("roc_auc", "c")]
    assert np.isnan([empty.a, empty.difference, empty.low, empty.p, empty.p_adjusted]).all()  # type: ignore[list-item]
    assert empty.better is None
    assert 0 < float(found[Key("roc_auc", "a")].p_adjusted or 0) <= 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"files": ("x.png", *_scores().files[1:])}, "x.png"),
        ({"files": ("1.png", *_scores().files[1:])}, "1.png"),
        ({"labels": (_scores().labels + 2) % 3}, "0.png"),
        ({"class_names": ("a", "b", "d")}, "a, b, d"),
        ({"groups": ("other", *_scores().groups[1:])}, "0.png"),
        ({"sources": ("north", *_scores().sources[1:])}, "0.png"),
    ],
)
def test_what_is_not_the_same_set_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(DataError, match=named):
        compare(_scores(), replace(_scores(), **change), resamples=10)  # type: ignore[arg-type]


def test_scores_are_found_in_a_file_a_folder_and_a_run(tmp_path: Path) -> None:
    scores = _scores()
    write_predictions(scores, tmp_path / "run" / "val" / "predictions.csv")
    for path in ("run", "run/val", "run/val/predictions.csv"):
        found = open_scores(tmp_path / path, "val")
        assert found.files == scores.files
        assert found.split == "val"
    with pytest.raises(DataError):
        open_scores(tmp_path / "run", "test")
    write_evaluation(
        Evaluated(replace(scores, split="all"), ModelRef(kind="bundle", name="b")), tmp_path / "all", resamples=20
    )
    assert open_scores(tmp_path / "all", "test").split == "all"  # as the evaluation says


def test_figures_in_words() -> None:
    numbers = {
        "a": 0.5,
        "b": 0.5,
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
        "n": 1,
        "groups": 1,
        "method": "delong",
        "p": 1.0,
    }
    contrast = Difference("roc_auc", "COVID", "h1", "Normal", **numbers)  # type: ignore[arg-type]
    assert figure_name(contrast) == "AUROC of COVID against Normal within h1"
    assert figure_name(Difference("macro_precision", None, None, None, **numbers)) == "macro precision"  # type: ignore[arg-type]


def test_command_prints_the_table_and_writes_json(tmp_path: Path) -> None:
    write_predictions(_scores(0.5, seed=1), tmp_path / "one" / "test" / "predictions.csv")
    write_predictions(_shuffled(_scores(2.5, seed=2)), tmp_path / "two.csv")
    out = tmp_path / "compared.json"
    command = [
        str(tmp_path / "one"),
        str(tmp_path / "two.csv"),
        "--output",
        str(out),
        "--resamples",
        "100",
        "--seed",
        "3",
    ]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "160"}, catch_exceptions=False)
    assert result.exit_code == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    accuracy = next(d for d in content["differences"] if d["metric"] == "accuracy" and d["source"] is None)
    assert accuracy["difference"] == pytest.approx(accuracy["b"] - accuracy["a"])
    assert content["verdict"] in result.output.replace("\n", "")
    assert (content["images"], content["resamples"]) == (150, 100)
    assert content["labeled"] == accuracy["n"]
    assert next(iter(content)) == "verdict"
    assert (content["outcome"], content["seed"]) == ("B", 3)
    assert result.output.index(content["verdict"][:40]) == 0
    area = next(d for d in content["differences"] if d["metric"] == "roc_auc" and d["versus"] is None)
    assert area["n_positive"] + area["n_negative"] == content["labeled"]
    assert f"{area['n_positive']} / {area['n_negative']}" in result.output
    command[3] = str(tmp_path / "compared.html")
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert escape(content["verdict"]) in (tmp_path / "compared.html").read_text(encoding="utf-8")
