"""What journals ask for in report.html, claim.html and the summary: subgroups, operating points, readers, the data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_references import external_references
from report_writing import made_up_scores, provenance, report_of

from hilum.evaluation.claim_entries import entries_of
from hilum.evaluation.journal_page import _longest
from hilum.evaluation.options import options_of
from hilum.evaluation.page import write_page
from hilum.evaluation.plots.decision import decision_curves
from hilum.evaluation.report import Report, SplitFacts, summary_lines
from hilum.evaluation.requested import requested_parts
from hilum.evaluation.subgroups import NOT_RECORDED
from hilum.evaluation.summary import requested_lines
from hilum.format import bounds, number
from hilum.metrics.agreement import BETWEEN, DICE, LABEL
from hilum.metrics.operating_points import choose_thresholds
from hilum.metrics.scores import Scores


def read_twice() -> Scores:
    """Scores with ages, sexes and a second reader of labels and masks."""
    scores = made_up_scores()
    random = np.random.default_rng(1)
    names = scores.class_names
    columns = {
        "age": tuple("" if row % 11 == 0 else str(20 + row % 60) for row in range(120)),
        "sex": tuple("FM"[row % 2] for row in range(120)),
        LABEL: tuple(names[k] if row % 3 else "" for row, k in enumerate(np.maximum(scores.labels, 0))),
        DICE: tuple(repr(float(v)) for v in random.uniform(0.7, 1, 120)),
        BETWEEN: tuple(repr(float(v)) for v in random.uniform(0.7, 1, 120)),
    }
    return replace(scores, columns=columns)


def parts(scores: Scores, **given: Any) -> dict[str, Any]:
    options = options_of(["age:50", "sex"], prevalence={"COVID": 0.03})
    chosen = choose_thresholds(made_up_scores(seed=9), options.at, "other images") if given.get("outside") else None
    return requested_parts(scores, options, chosen, resamples=50, seed=0)


@pytest.fixture(scope="module", params=[False, True], ids=["chosen here", "chosen elsewhere"])
def report(request: pytest.FixtureRequest) -> Report:
    scores = read_twice()
    column = {"known": 100, "missing": 20, "counts": {}, "quartiles": (30.0, 45.0, 61.0), "extremes": (20.0, 79.0)}
    sexes = {"known": 120, "missing": 0, "counts": {"F": 60, "M": 60}, "quartiles": None, "extremes": None}
    facts = {
        name: SplitFacts(**{**vars(own), "columns": {"age": column, "sex": sexes}, "with_targets": 5})
        for name, own in provenance().data.items()
    }
    return report_of(scores, **parts(scores, outside=request.param), provenance=provenance(data=facts))


@pytest.fixture(scope="module")
def html(report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_page(report, tmp_path_factory.mktemp("page"), plots={}, images={})
    return path.read_text(encoding="utf-8")


def section(html: str, name: str) -> str:
    start = html.index(f'<section id="{name}">')
    return html[start : html.index("</section>", start)]


def test_the_sections_are_there_and_load_nothing(html: str) -> None:
    order = re.findall(r'<section id="([a-z-]+)">', html)
    wanted = ["subgroups", "operating", "decisions", "readers", "data"]
    assert [name for name in order if name in wanted] == wanted
    assert external_references(html) <= {"href=claim.html"}


def test_every_subgroup_is_in_the_page_with_its_interval(report: Report, html: str) -> None:
    shown = section(html, "subgroups")
    assert len(report.subgroups) == 2
    for column in report.subgroups:
        for row in column["rows"]:
            assert f"{row['name']}{' *' if row['thin'] else ''}</th>" in shown
            for estimate in [*row["metrics"].values(), *row["recalls"].values()]:
                assert f"<b>{number(estimate['value'])}</b>" in shown
                assert bounds(estimate) in shown
    assert any(row["name"] == NOT_RECORDED and row["thin"] for row in report.subgroups[0]["rows"])


def test_operating_points_say_where_their_thresholds_come_from(report: Report, html: str) -> None:
    shown, content = section(html, "operating"), report.operating_points
    assert content is not None
    assert ("other images, n = 117" in shown) == (content["origin"] is not None)
    for point in content["points"]:
        assert number(point["sensitivity"]["value"]) in shown
        assert number(point["threshold"]) in shown
        if point["class_name"] == "COVID" and point["fixed"] is None:
            assert bounds(point["ppv"]) in shown
            assert bounds(point["npv"]) in shown
    fixed = [point for point in content["points"] if point["fixed"] == "specificity"]
    assert all((point["specificity"]["low"] is None) == (content["origin"] is None) for point in fixed)


def test_decisions_readers_and_data_are_in_the_page(report: Report, html: str) -> None:
    shown = section(html, "decisions")
    for curve in report.decision_curves:
        assert number(curve["model"][19]["value"]) in shown
        assert number(curve["act_on_all"][19]) in shown
    shown = section(html, "readers")
    assert report.agreement is not None
    for own in report.agreement["labels"].values():
        assert bounds(own["kappa"]) in shown
    for own in report.agreement["masks"].values():
        assert bounds(own) in shown
    shown = section(html, "data")
    assert "<svg class=" in shown
    assert "45 (30–61)" in shown
    assert "20 (16.7%)" in shown  # not recorded
    assert "view" in shown.rpartition("</table>")[2]  # not in these data


def test_the_checklist_has_them_at_its_items(report: Report) -> None:
    entries = entries_of(report)
    assert any("kappa" in text for text in entries[18])
    assert any("flow diagram" in text for text in entries[35])
    assert any("age: median 45" in text for text in entries[36])
    assert any("sex F" in text for text in entries[37])
    assert any("sensitivity at specificity 0.95" in text for text in entries[38])
    assert any("PPV" in text for text in entries[38])


def test_the_summary_has_what_was_asked_for(report: Report) -> None:
    lines = summary_lines(report, requested_lines(report))
    for words in ("age below 50", "sex F", "COVID PPV at prevalence 0.03", "reader 1 and reader 2: kappa"):
        assert len([line for line in lines if line.strip().startswith(words)]) == 1, words
    assert any(line.endswith("(imprecise)") for line in lines)
    bare = report_of(made_up_scores())
    assert list(requested_lines(bare)) == []


def test_the_longest_run_of_thresholds_is_found() -> None:
    assert _longest([False, True, True, False, True]) == (1, 2)
    assert _longest([True]) == (0, 0)
    assert _longest([False])[0] is None


def test_decision_curves_are_drawn_for_each_class(report: Report, tmp_path: Path) -> None:
    figure = decision_curves(report.decision_curves, subset="test split")
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert len(titles) == 3
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [e["value"] for e in report.decision_curves[0]["model"]])
    with pytest.raises(Exception, match="no decision curve"):
        decision_curves([])
