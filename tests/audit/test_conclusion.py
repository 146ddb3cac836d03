"""The conclusion: each of its branches, from the results alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hilum.audit.conclusion import conclude
from hilum.audit.model_shortcuts import ModelShortcuts, TreatedScore
from hilum.audit.probes import REST, ProbeResult
from hilum.audit.report import AuditFinding
from hilum.audit.treatments import HEADLINE, SWAPPED, SWAPPED_SAME, TREATMENTS
from hilum.metrics.bootstrap import Interval

NOTHING = Interval(np.nan, np.nan, np.nan, 3)


def _probe(
    auc: float = 0.97, half: float = 0.01, p: float = 0.005, probe: str = "border", negative: str = "Normal"
) -> ProbeResult:
    interval = Interval(auc, auc - half, auc + half, 2000)
    return ProbeResult(probe, "COVID", negative, interval, 0.45, 0.55, p, (900, 1100), (400, 500))


def _unmeasured() -> ProbeResult:
    return replace(_probe(), auc=NOTHING, chance_low=np.nan, chance_high=np.nan, p_value=np.nan, counts=(2, 1))


def _model(
    index: tuple[float, float, float] = (0.0, 0.0, 0.1),
    auc: float = 0.5,
    border: float = 0.5,
    refit: float | None = 0.5,
    kept: float = 0.1,
    blurred: float = 0.5,
) -> ModelShortcuts:
    """A model whose shortcut index and AUROCs without lungs, and on the border alone, are given."""
    figure, own = Interval(0.8, 0.78, 0.82, 300), Interval(*index, 300)
    at = {"border_only": border, "erased_blur": max(auc, blurred)}
    scores = tuple(
        TreatedScore(
            name, figure, figure, _about(at.get(name, auc)), own, own, None,
            None if refit is None else _about(refit), figure, figure, _about(kept),
        )
        for name in TREATMENTS
        if name not in (SWAPPED, SWAPPED_SAME)
    )  # fmt: skip
    return ModelShortcuts(300, 0, 2, "Normal", 0.6, scores, HEADLINE, own, own, None, 0 if refit is None else 300, 0.97)


def _about(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.01, 300)


def _data(*probes: ProbeResult, **not_run: str) -> tuple[str, str]:
    found = conclude(probes, None, (), not_run, has_model=False)
    assert found.model == "no_model"
    return found.data, found.text


def _use(model: ModelShortcuts | None, not_run: dict[str, str]) -> tuple[str, str]:
    found = conclude([_probe()], model, (), not_run, has_model=True)
    return found.model, found.text


def test_the_strongest_pair_stands_for_the_data() -> None:
    key, text = _data(
        _probe(0.8), _probe(0.99, negative=REST), _probe(0.9, negative="B"), _probe(0.5, p=0.9, negative="C")
    )
    assert key == "shortcut"
    assert "0.90 (95% CI 0.89–0.91, n = 2,000)" in text
    assert "2 of 3 pairs" in text


def test_a_class_against_the_rest_alone_is_a_shortcut_too() -> None:
    assert _data(_probe(0.5, p=0.9), _probe(0.99, negative=REST))[0] == "shortcut"


def test_what_beats_chance_by_little_is_weak() -> None:
    key, text = _data(_probe(0.56, 0.02), _probe(0.5, p=0.9))
    assert key == "weak_shortcut"
    assert "0.56 (95% CI 0.54–0.58" in text


def test_none_found_names_the_largest_and_what_was_not_measured() -> None:
    key, text = _data(_probe(0.52, p=0.4), _unmeasured(), _probe(0.99, probe="thumbnail"))
    assert key == "none_found"
    assert "0.52" in text
    assert "0.99" not in text
    assert "1 of 2 comparisons" in text


@pytest.mark.parametrize(("probes", "not_run"), [((), {"probes": "One class."}), ((_unmeasured(),), {})])
def test_without_a_measured_probe_nothing_is_claimed(probes: tuple[ProbeResult, ...], not_run: dict[str, str]) -> None:
    key, text = _data(*probes, **not_run)
    assert key == "not_measured"
    assert not_run.get("probes", "10 patients") in text


@pytest.mark.parametrize(
    ("model", "expected", "figure"),
    [
        (_model((0.8, 0.7, 0.9), auc=0.9), "relies_on_them", "80% (95% CI 70–90%"),
        (_model((0.2, 0.15, 0.25), auc=0.7), "may_rely_on_them", "20% (95% CI 15–25%"),
        (_model(border=0.7), "may_rely_on_them", "0.70"),
        (_model((0.05, 0.0, 0.2)), "no_reliance", "5% (95% CI 0–20%"),
        (_model((0.0, 0.0, 0.05)), "no_reliance", "0.00 (95% CI 0.00–0.05"),
        (_model((0.0, 0.0, 0.5)), "inconclusive", "0.00–0.50"),
        (_model(auc=0.2, refit=0.7), "may_rely_on_them", "0.70 (95% CI 0.69–0.71"),
        (_model(auc=0.2, refit=0.9, kept=0.8), "relies_on_them", "80% (95% CI 79–81%"),
        (_model((0.4, 0.3, 0.5), auc=0.4, refit=0.7), "relies_on_them", "40% (95% CI 30–50%"),
        (_model(blurred=0.7), "inconclusive", "0.70 (0.69–0.71)"),
        (_model(refit=None), "inconclusive", "0.00 (95% CI 0.00–0.10"),
        (_model((np.nan, np.nan, np.nan)), "inconclusive", ""),
    ],
)
def test_what_is_said_of_the_model(model: ModelShortcuts, expected: str, figure: str) -> None:
    key, text = _use(model, {})
    assert key == expected
    assert figure in text


def test_a_model_that_could_not_be_measured_says_why() -> None:
    key, text = _use(None, {"model": "There are no labels."})
    assert key == "not_measured"
    assert "There are no labels." in text


def test_leaks_are_counted_and_their_files_named() -> None:
    leak = AuditFinding(check="duplicate_across_splits", severity="error", message="", records=("a", "b"), count=2)
    risk = AuditFinding(check="model_seen", severity="warning", message="7 images are known.", count=7)
    found = conclude([_probe()], None, (leak, risk), {}, has_model=False)
    assert found.leaks == 1
    assert "2 files" in found.text
    assert risk.message in found.text
