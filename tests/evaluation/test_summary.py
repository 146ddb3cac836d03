"""A report in a few lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from report_writing import NAMES, made_up_scores, report_of, trust_parts

from hilum.evaluation.report import summary_lines
from hilum.format import format_interval


def test_every_number_has_its_interval_and_n_and_the_limits_come_last() -> None:
    report = report_of(made_up_scores(), **(trust_parts() | {"limits": ("The gravest.", "Another.")}))
    lines = summary_lines(report)
    assert [line.strip(" -") for line in lines[-2:]] == ["The gravest.", "Another."]
    shown = [
        report.figure(metric) for metric in ("accuracy", "balanced_accuracy", "macro_roc_auc", "dice", "hd95_share")
    ]
    shown += [report.figure(metric, name) for name in NAMES for metric in ("recall", "precision")]
    assert report.calibration is not None
    texts = [format_interval(figure, with_n=True) for figure in shown]
    texts += [format_interval(report.calibration["after"]["ece"], with_n=True)]
    texts += [format_interval(c.auc, with_n=True) for c in report.contrasts if c.source is not None]
    for text in texts:
        assert any(line.endswith(f"  {text}") for line in lines), text


def test_a_split_of_which_nothing_is_known_is_its_first_line() -> None:
    nothing = np.full(120, np.nan)
    scores = replace(made_up_scores(), labels=np.full(120, -1, np.int64), dice=nothing, iou=nothing, hd95_share=nothing)
    assert len(summary_lines(report_of(scores))) == 1
