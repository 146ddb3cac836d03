"""Rows of the report page on calibration and abstention by source, by predicted class and of each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GROUPS = {"source": "By source", "predicted_class": "By predicted class"}


def calibration_groups(within: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the parts under a heading for each kind, all images first; empty where nothing was measured.

    Args:
        within: A hilum.metrics.calibration_within.CalibrationWithin as JSON.
    """
    parts = [] if within is None else [_without_undefined(part) for part in within["parts"]]
    groups = [
        {"heading": heading, "parts": own}
        for kind, heading in _GROUPS.items()
        if (own := [part for part in parts if part["kind"] == kind])
    ]
    whole = [{**part, "name": "All images"} for part in parts if part["kind"] == "all"]
    return [{"heading": "", "parts": whole}, *groups] if parts else []


def difference_end(within: Mapping[str, Any] | None) -> float:
    """Return the end of the axis of confidence less accuracy: 0.25, or 0.5 or 1 where that is too short."""
    estimates = [] if within is None else [own["in_the_large"] for own in (*within["parts"], *within["curves"])]
    known = [abs(bound) for e in estimates for bound in (e["value"], e["low"], e["high"]) if bound is not None]
    return next((end for end in (0.25, 0.5) if max(known, default=0) <= end), 1)


def _without_undefined(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part with None for its estimates that have no value."""
    return {key: None if isinstance(own, Mapping) and own["value"] is None else own for key, own in part.items()}
