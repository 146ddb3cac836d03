"""Helpers of the benchmarks: a proportion, the spread of rounds, the machine and the command, and how to publish."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from scipy.stats import binomtest
from tables import template

from hilum.backends.base import ENGINE_TITLES, Backend, EngineName, name_of, precision_of
from hilum.cpus import processor_name
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
        "processor": processor_name(),
        "python": platform.python_version(),
    }


def engine_of(backend: Backend) -> str:
    """The engine and precision of a backend, such as ``OpenVINO int8``."""
    return f"{ENGINE_TITLES[cast(EngineName, name_of(backend))]} {precision_of(backend)}"


def named_by_processor(name: str) -> str:
    """The name of a result file of this processor, without its suffix."""
    return f"{name}-{re.sub('[^a-z0-9]+', '-', processor_name().lower()).strip('-')}"


def command_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """The command that was run: options that differ from their defaults, DIR in place of a path, without --json."""
    words = ["python", f"benchmarks/{parser.prog}"]
    for name, value in vars(arguments).items():
        if name == "json" or value == parser.get_default(name):
            continue
        values = value if isinstance(value, list) else [value]
        is_path = isinstance(value, Path) or os.sep in str(value)
        words += [f"--{name.replace('_', '-')}", *(["DIR"] if is_path else map(str, values))]
    return shlex.join(words)


def publish(name: str, result: Mapping[str, Any], file: Path | None) -> None:
    """Print a result by its template in benchmarks/templates, and write it as JSON where a file is named."""
    content = as_json(result)
    print(template(name, result=content))
    if file:
        write_json(file, content)
