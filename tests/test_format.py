"""Numbers, intervals and metric titles as text."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from hilum.evaluation.localization_table import MEASURES
from hilum.format import (
    NO_INTERVAL,
    TITLES,
    bounds,
    count,
    format_interval,
    metric_title,
    number,
    p_value,
    percent,
    words,
)
from hilum.metrics.bootstrap import Interval, NoInterval
from hilum.metrics.table import BY_CLASS, OVERALL, OVERLAP, WITHIN_SOURCES
from hilum.storage import as_json


def test_every_metric_of_a_report_has_a_title() -> None:
    assert {*OVERALL, WITHIN_SOURCES, *BY_CLASS, *OVERLAP, *MEASURES} <= {*TITLES}
    assert (metric_title("roc_auc"), metric_title("macro_pr_auc")) == ("AUROC", "macro AUPRC")
    assert metric_title("balanced_accuracy", first=True) == "Balanced accuracy"
    assert metric_title("erased_mean") == "erased mean"


def test_numbers() -> None:
    assert (number(0.12345), number(-0.5, 2), number(None), number(math.nan)) == ("0.123", "−0.50", "–", "–")
    assert (number(0.012, signed=True), number(-0.012, signed=True)) == ("+0.012", "−0.012")
    assert (percent(0.0416), percent(None), count(2777), count(None)) == ("4.2%", "–", "2,777", "–")
    assert (p_value(0.0004), p_value(0.0312)) == ("p < 0.001", "p = 0.031")
    assert words("erased_mean") == "erased mean"


@pytest.mark.parametrize(
    ("interval", "options", "text"),
    [
        (Interval(0.9117, 0.9049, 0.9188, 2777), {"with_n": True}, "0.912 (0.905–0.919), n = 2,777"),
        (Interval(0.604, 0.551, 0.643, 9), {"digits": 2}, "0.60 (0.55–0.64)"),
        (Interval(0.078, -0.142, 0.216, 9), {"digits": 2}, "0.08 (−0.14 to 0.22)"),
        (Interval(0.02, 0.01, 0.03, 9), {"signed": True}, "+0.020 (+0.010 to +0.030)"),
        (Interval(0.78, 0.761, 0.802, 9), {"digits": 1, "percent": True}, "78.0% (76.1–80.2%)"),
        (Interval(0.5, math.nan, math.nan, 9), {}, "0.500 (no interval)"),
        (Interval(0.5, math.nan, math.nan, 9, "few_groups"), {}, "0.500 (no interval: too few groups)"),
        (Interval(0.9, 0.7, 0.98, 9, at_least=True), {"with_n": True}, "0.900 (0.700–0.980†), n = 9"),
        (Interval(-0.1, -0.3, 0.1, 9, at_least=True), {"digits": 1}, "−0.1 (−0.3 to 0.1†)"),
        (Interval(math.nan, math.nan, math.nan, 0), {"with_n": True}, "undefined, n = 0"),
    ],
)
def test_an_interval_and_its_json_read_alike(interval: Interval, options: dict[str, int], text: str) -> None:
    assert format_interval(interval, **options) == text  # type: ignore[arg-type]
    assert format_interval(as_json(interval), **options) == text  # type: ignore[arg-type]


def test_every_reason_for_no_interval_has_words() -> None:
    assert {*NO_INTERVAL} == {*get_args(NoInterval)}


def test_bounds_alone() -> None:
    assert bounds({"low": 0.1, "high": 0.25}) == "0.100–0.250"
    assert bounds({"low": -0.1, "high": 0.25}, 2) == "−0.10 to 0.25"
    assert bounds({"low": None, "high": None}) == ""
