"""Helpers of the benchmarks: a proportion, the spread of rounds, the machine, and how a result is published."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest
from tables import template

from hilum.storage import as_json, write_json


def proportion(hits: int, n: int) -> dict[str, Any]:
    """A share with its exact 95% interval (Clopper & Pearson 1934, Biometrika 26:404); undefined for n of 0."""
    if not n:
        return {"hits": 0, "n": 0, "value": None, "low": None, "high": None}
    interval = binomtest(hits, n).proportion_ci(method="exact")
    return {"hits": hits, "n": n, "value": hits / n, "low": float(interval.low), "high": float(interval.high)}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, range and all values of some rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": list(values)}


def machine() -> dict[str, Any]:
    """The processors, Python and load average, taken before the measurement."""
    return {
        "load_average": os.getloadavg()[0],
        "processors": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The model of the processor as the system names it; its architecture where it does not."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def publish(name: str, result: Mapping[str, Any], file: Path | None) -> None:
    """Print a result by its template in benchmarks/templates, and write it as JSON where a file is named."""
    content = as_json(result)
    print(template(name, result=content))
    if file:
        write_json(file, content)
