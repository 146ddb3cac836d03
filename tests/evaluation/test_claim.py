"""The CLAIM checklist: its items, and that every entry comes from the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_references import external_references
from report_writing import made_up_scores, provenance, report_of, trust_parts

from hilum.evaluation.claim import SECTIONS, claim_markdown, write_claim
from hilum.evaluation.claim_entries import entries_of
from hilum.evaluation.report import ModelRef, Report, TrainingOverlap
from hilum.format import format_interval
from hilum.metrics.scores import Scores

ITEMS = [item for section in SECTIONS for item in section.items]
AUTHORS_ALONE = {3, 4, 5, 6, 11, 13, 15, 16, 18, 34, 41, 44}
"""Items of which no evaluation can know anything."""


def _report(**parts: Any) -> Report:
    return report_of(made_up_scores(), **{**trust_parts(), "provenance": provenance(), **parts})


def test_the_checklist_has_44_items_in_order() -> None:
    assert [item.number for item in ITEMS] == list(range(1, 45))
    assert all(item.topic and item.author for item in ITEMS)
    assert len({section.title for section in SECTIONS}) == len(SECTIONS)


def test_what_no_evaluation_can_know_has_no_entry() -> None:
    found = entries_of(_report())
    assert found.keys() <= {item.number for item in ITEMS}
    assert not found.keys() & AUTHORS_ALONE
    assert {1, 2, 7, 8, 9, 12, 14, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 33} <= found.keys()
    assert {35, 36, 37, 38, 39, 40, 42, 43} <= found.keys()


def test_entries_are_the_values_of_the_report() -> None:
    report = _report()
    text = {item: " ".join(entries) for item, entries in entries_of(report).items()}
    for metric in ("accuracy", "balanced_accuracy", "macro_roc_auc", "mcc", "dice", "hd95_share"):
        assert format_interval(report.figure(metric), with_n=True) in text[37]
    for name in report.class_names:
        assert format_interval(report.figure("recall", name), with_n=True) in text[38]
    for figure in report.figures:
        if figure.metric == "accuracy" and figure.source is not None:
            assert format_interval(figure, with_n=True) in text[30]
    assert report.calibration is not None
    assert format_interval(report.calibration["after"]["ece"], with_n=True) in text[37]
    assert report.confusion_matrix is not None
    counts = np.array(report.confusion_matrix)
    assert f"{counts.sum() - counts.trace()} of {counts.sum()}" in text[39]
    assert "seed 42" in text[19]
    assert "d" * 64 in text[19]
    assert "seed 77" in text[25]
    assert "1,234,567" in text[22]
    assert "Epoch 2 of 3" in text[26]
    assert "torch 2.0" in text[23]
    assert "unreadable 4" in text[8]
    assert "20 resamples" in text[29]
    assert "600 images in 300 groups" in text[35]
    assert all(sentence in text[40] for sentence in report.limits)


@pytest.mark.parametrize(("grouped", "word"), [(True, "By group"), (False, "By image")])
def test_groups_are_claimed_only_where_the_data_name_them(grouped: bool, word: str) -> None:
    assert entries_of(_report(provenance=provenance(grouped=grouped)))[20][0].startswith(word)


def test_a_split_that_the_model_has_seen_is_no_test() -> None:
    clean = TrainingOverlap(known="all", seen=0, unseen=120, unseen_groups=60)
    sentence = entries_of(_report(training_overlap=clean))[32][0]
    assert "neither for training" in sentence
    for doubtful in (None, clean.model_copy(update={"seen": 5}), clean.model_copy(update={"known": "part"})):
        assert "neither" not in entries_of(_report(training_overlap=doubtful))[32][0]
    own = _report().split.model_copy(update={"name": "train"})
    found = entries_of(_report(split=own))
    assert "not a test" in found[32][0]
    assert not {17, 21} & found.keys()


def test_sources_outside_training_are_told_apart() -> None:
    new, known = entries_of(_report())[33]
    assert (new.split()[-1], known.split()[-1]) == ("south.", "north.")
    assert 33 not in entries_of(_report(provenance=provenance(trained_sources=None)))


def test_overlap_with_the_training_images_is_an_entry_of_a_bundle() -> None:
    overlap = TrainingOverlap(known="all", seen=10, unseen=100, unseen_groups=50)
    bundle = ModelRef(kind="bundle", name="b", id="f" * 64)
    found = entries_of(_report(model=bundle, training_overlap=overlap))
    assert "10 of 120" in found[20][-1]
    assert "10 of 120" in found[37][0]
    assert 32 not in found  # whether the data are internal is not known


def test_a_table_alone_claims_nothing_of_model_and_training() -> None:
    scores = made_up_scores()
    unlabeled = Scores(**{**vars(scores), "labels": np.full(120, -1)})
    for own in (scores, unlabeled):
        found = entries_of(report_of(own, model=ModelRef(kind="predictions", name="theirs.csv")))
        assert not found.keys() & {1, 7, 8, 9, 20, 22, 23, 24, 25, 26, 27, 32, 33, 35, 36, 42}
    assert 39 not in found


def test_the_page_and_the_markdown_have_every_item(tmp_path: Path) -> None:
    report = _report(limits=("a | pipe & <b>",))
    write_claim(report, tmp_path)
    html = (tmp_path / "claim.html").read_text(encoding="utf-8")
    found = entries_of(report)
    assert external_references(html) == {"href=report.html", "href=claim.md"}
    assert re.findall(r'<h3><span class="soft">(\d+)</span>', html) == [str(number) for number in range(1, 45)]
    assert html.count('<div class="entry"><span class="tag run">') == len(found)
    assert html.count('<div class="entry"><span class="tag author">') == 44
    assert f"{len(found)} of 44 items" in html
    assert "a | pipe &amp; &lt;b&gt;" in html
    text = (tmp_path / "claim.md").read_text(encoding="utf-8")
    assert text == claim_markdown(report)
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, 45))
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert "a \\| pipe &amp; &lt;b>" in text
