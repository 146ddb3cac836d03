"""A report in a few lines."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from report_writing import NAMES, made_up_scores, report_of, trust_parts

from hilum.evaluation.report import summary_lines


def test_every_number_has_its_interval_and_n_and_the_limits_come_last() -> None:
    report = report_of(made_up_scores(), **(trust_parts() | {"limits": ("The gravest.", "Another.")}))
    head, *lines = summary_lines(report)
    assert head == "test split: 120 images in 60 groups, 117 labeled, 60 with masks; 95% intervals"
    end = lines.index("What these data cannot tell:")
    assert lines[end + 1 :] == ["  - The gravest.", "  - Another."]
    words = [re.split(r" {2,}", line.strip())[0] for line in lines[:end]]
    assert words == [
        "accuracy", "balanced accuracy", "macro F1", "macro ROC-AUC", "MCC",
        *(f"{name} {metric}" for name in NAMES for metric in ("recall", "precision")),
        "Dice", "IoU", "95% Hausdorff, pixels", "expected calibration error",
        *(f"{c.positive} against {c.negative} within {c.source}" for c in report.contrasts if c.source is not None),
    ]  # fmt: skip
    assert sum(" within " in word for word in words) >= 3
    assert all(re.search(r"\(-?\d+\.\d+–\d+\.\d+\), n = \d+$", line) for line in lines[:end])
    accuracy = report.figure("accuracy")
    assert accuracy is not None
    assert f"{accuracy.value:.3f} ({accuracy.low:.3f}–{accuracy.high:.3f}), n = 117" in lines[0]
    assert "0.040 (0.010–0.070), n = 40" in lines[words.index("expected calibration error")]  # after temperature


def test_what_is_undefined_is_said_to_be() -> None:
    report = report_of(replace(made_up_scores(), labels=np.arange(120) % 2))
    (line,) = [line for line in summary_lines(report) if f"{NAMES[2]} recall" in line]
    assert "undefined, n = 0" in line


def test_a_split_of_which_nothing_is_known_is_its_first_line() -> None:
    nothing = np.full(120, np.nan)
    scores = replace(made_up_scores(), labels=np.full(120, -1, np.int64), dice=nothing, iou=nothing, hd95=nothing)
    assert summary_lines(report_of(scores)) == [
        "test split: 120 images in 60 groups, 0 labeled, 0 with masks; 95% intervals"
    ]
