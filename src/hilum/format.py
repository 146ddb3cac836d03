"""Format numbers, intervals and metric names for the terminal, reports, plots, model cards and benchmark tables.

The metrics are computed in hilum.metrics. File formats use the keys of TITLES, not the titles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_roc_auc": "macro AUROC",
    "macro_roc_auc_within_sources": "macro AUROC within sources",
    "macro_pr_auc": "macro AUPRC",
    "macro_precision": "macro precision",
    "macro_specificity": "macro specificity",
    "mcc": "MCC",
    "recall": "recall",
    "precision": "precision",
    "specificity": "specificity",
    "f1": "F1",
    "roc_auc": "AUROC",
    "pr_auc": "AUPRC",
    "dice": "Dice",
    "iou": "IoU",
    "hd95_share": "95% Hausdorff distance (share of lung height)",
    "hd95": "95% Hausdorff distance (pixels)",  # in reports and bundles of earlier versions
    "ece": "expected calibration error (ECE)",
    "brier": "Brier score",
    "nll": "negative log-likelihood (nats)",
    "hit": "pointing game",
    "energy": "share in the target",
    "iou_area": "IoU at the target's area",
    "inside_lung": "share inside the lung",
}
"""Metric key, as in ``report.json``, to its title within a sentence."""

NO_INTERVAL = {"undefined": "undefined", "few_groups": "too few groups", "no_spread": "no spread"}
"""Why there is no interval (hilum.metrics.bootstrap.NoInterval), in words."""

AT_LEAST = "†"
AT_LEAST_NOTE = f"{AT_LEAST} Read as at least 95%: the figure rests on few groups or few errors, or is the ECE."
"""What AT_LEAST means (hilum.metrics.bootstrap.Interval.at_least)."""


def metric_title(metric: str, *, first: bool = False) -> str:
    """Return the title of a metric, or its key with spaces for underscores if it has none.

    Args:
        metric: Key of TITLES, or another name in snake case.
        first: Capitalize the title, for the start of a cell or sentence.
    """
    text = TITLES.get(metric, words(metric))
    return capital(text) if first else text


def number(value: float | None, digits: int = 3, *, signed: bool = False, percent: bool = False) -> str:
    """Return ``0.912``, ``91.2%`` or ``+0.012``, with a typographic minus sign; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:{'+' if signed else ''}.{digits}{'%' if percent else 'f'}}"
    return text.replace("-", "−")


def bounds(estimate: Any, digits: int = 3, *, signed: bool = False, percent: bool = False) -> str:
    """Return ``0.900–0.924``, ``76.1–80.2%`` or ``−0.012 to 0.104``; an empty string if there is no interval.

    An interval of at least 95% ends with AT_LEAST, which AT_LEAST_NOTE explains.

    Args:
        estimate: Mapping or object with ``low`` and ``high``, which are None or NaN if there is no interval.
        digits: Number of decimals.
        signed: Prefix positive numbers with a plus sign.
        percent: Write fractions as percentages.
    """
    low, high = (_part(estimate, name) for name in ("low", "high"))
    if low is None or high is None:
        return ""
    first, last = (number(bound, digits, signed=signed, percent=percent) for bound in (low, high))
    text = f"{first} to {last}" if low < 0 or signed else f"{first.removesuffix('%')}–{last}"
    at_least = estimate.get("at_least") if isinstance(estimate, Mapping) else getattr(estimate, "at_least", False)
    return text + AT_LEAST if at_least else text


def at_least_note(text: str) -> str:
    """Return AT_LEAST_NOTE if an interval in ``text`` is marked, else an empty string."""
    return AT_LEAST_NOTE if AT_LEAST in text else ""


def bounds_or_reason(estimate: Any, digits: int = 3, *, signed: bool = False, percent: bool = False) -> str:
    """Return the bounds, or ``no interval: too few groups``.

    Args:
        estimate: As for ``bounds``, with ``no_interval`` where the reason is known.
        digits: Number of decimals.
        signed: Prefix positive numbers with a plus sign.
        percent: Write fractions as percentages.
    """
    reason = estimate.get("no_interval") if isinstance(estimate, Mapping) else getattr(estimate, "no_interval", None)
    text = f"no interval: {NO_INTERVAL[reason]}" if reason else "no interval"
    return bounds(estimate, digits, signed=signed, percent=percent) or text


def format_interval(
    estimate: Any, digits: int = 3, *, signed: bool = False, percent: bool = False, with_n: bool = False
) -> str:
    """Return ``0.912 (0.900–0.924)``, or with ``with_n`` ``0.912 (0.900–0.924), n = 2,777``.

    Args:
        estimate: As for ``bounds``, also with ``value`` and, for ``with_n``, ``n``.
        digits: Number of decimals.
        signed: Prefix positive numbers with a plus sign.
        percent: Write fractions as percentages.
        with_n: Append the number of images.
    """
    value = _part(estimate, "value")
    if value is None:
        text = "undefined"
    else:
        own = number(value, digits, signed=signed, percent=percent)
        text = f"{own} ({bounds_or_reason(estimate, digits, signed=signed, percent=percent)})"
    return f"{text}, n = {count(_part(estimate, 'n'))}" if with_n else text


def count(value: float | None) -> str:
    """Return ``2,777``; a dash for None."""
    return "–" if value is None else f"{value:,}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction as ``4.2%``; a dash for None and NaN."""
    return number(value, digits, percent=True)


def p_value(value: float) -> str:
    """Return ``p = 0.031``, or ``p < 0.001``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def split_title(name: str) -> str:
    """Return ``test split``; ``all images`` for the split named ``all``."""
    return "all images" if name == "all" else f"{name} split"


def capital(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def words(name: str) -> str:
    """Return a name in snake case with spaces for underscores."""
    return name.replace("_", " ")


FILTERS: dict[str, Callable[..., str]] = {
    "title": metric_title,
    "number": number,
    "bounds": bounds,
    "bounds_or_reason": bounds_or_reason,
    "interval": format_interval,
    "at_least_note": at_least_note,
    "count": count,
    "percent": percent,
    "p_value": p_value,
    "words": words,
    "split_title": split_title,
}
"""These functions as Jinja filters."""


def _part(estimate: Any, name: str) -> Any:
    """Return a value of a mapping or object; None if it is None or NaN."""
    value = estimate[name] if isinstance(estimate, Mapping) else getattr(estimate, name)
    return None if value is None or math.isnan(value) else value
