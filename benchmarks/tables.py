"""Turn committed result files into the tables of README.md and benchmarks/README.md, by benchmarks/templates.

    python benchmarks/tables.py            # print them
    python benchmarks/tables.py --take demo demo/run/test/report.json "make demo"
    python benchmarks/tables.py --write    # put them between the <!-- begin:NAME --> and <!-- end:NAME --> marks

A test compares what stands in the two files with what this prints, so that no figure there is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hilum.format import FILTERS, metric_title, number, percent

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
ROOT = HERE.parent
TARGETS = (
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    HERE / "README.md",
    ROOT / "docs" / "radiographs.md",
)
TABLES = {
    "demo": ("demo", "evaluation"),
    "radiographs": ("radiographs", "evaluation"),
    "contrasts": ("radiographs", "contrasts"),
    "calibration": ("radiographs", "calibration"),
    "localization": ("radiographs", "localization"),
    "audit_probes": ("audit", "audit_probes"),
    "audit_model": ("audit", "audit_model"),
    "duplicates_phantoms": ("duplicates_phantoms", "duplicates"),
    "model": ("model", "side_by_side"),
    "model_short": ("model", "model_short"),
    "model_equal": ("model_equal", "side_by_side"),
    "poolings": ("ablation", "poolings"),
    "gate_short": ("gate", "gate_short"),
} | {
    name: (name, name)
    for name in (
        "audit", "coverage", "confounds", "duplicates", "duplicates_time", "evaluate", "loader", "parity", "startup",
        "shortcuts", "cpu_time", "ablation", "finetune", "gate", "service", "training_hashes",
    )
}  # fmt: skip
"""Block to the result file it is made from, and its template."""


def template(name: str, **context: Any) -> str:
    """Return a template of benchmarks/templates, filled in, without a line end.

    Raises:
        jinja2.UndefinedError: it names what the context lacks.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS | {"spread": _spread, "extent": _extent, "by_kind": _by_kind}
    return environment.get_template(f"{name}.md.j2").render(context).strip("\n")


def load(name: str) -> Any:
    """The result file of this name."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def render(name: str) -> str:
    """The block ``name``, from its result file."""
    file, table = TABLES[name]
    return template(table, result=load(file))


def filled(text: str) -> str:
    """``text`` with every block that it marks filled from the result files."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- begin:{name} -->\n{render(name)}\n<!-- end:{name} -->"

    return re.sub(r"<!-- begin:(\w+) -->.*?<!-- end:\1 -->", fill, text, flags=re.DOTALL)


def take(name: str, report: Path, command: str) -> None:
    """Keep a report.json or an audit.json, without the names of its images, as ``results/<name>.json``."""
    content = json.loads(report.read_text(encoding="utf-8"))
    content.pop("failures", None)
    for finding in content.get("findings", []):
        finding["records"] = []
        finding["message"] = re.sub(r" First: .*", "", finding["message"])
    if content.get("duplicates"):
        content["duplicates"].pop("pairs", None)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"command": command, **content}, indent=1) + "\n", encoding="utf-8")


def _spread(rounds: Mapping[str, float] | Iterable[float], digits: int) -> str:
    """The median and the range of some rounds, or of a summary of them."""
    if not isinstance(rounds, Mapping):
        values = list(rounds)
        rounds = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    median, low, high = (number(rounds[name], digits) for name in ("median", "min", "max"))
    return f"{median} ({low}–{high})"


def _extent(shares: Iterable[float | None]) -> str:
    """The least and the greatest of some shares, and how many they are."""
    values = [share for share in shares if share is not None]
    if len(values) < 2:
        return "".join(map(percent, values))
    return f"{percent(min(values))}–{percent(max(values))} ({len(values)})"


def _by_kind(figures: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Figures by metric, those of single classes apart."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for own in figures:
        kind = metric_title(own["metric"]) + (" of a class" if own["class_name"] else "")
        kinds.setdefault(kind, []).append(own)
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--take", nargs=3, metavar=("NAME", "REPORT", "COMMAND"), help="keep a report")
    arguments = parser.parse_args()
    if arguments.take:
        name, report, command = arguments.take
        take(name, Path(report), command)
    elif arguments.write:
        for target in TARGETS:
            target.write_text(filled(target.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        for name in TABLES:
            print(f"{name}\n{render(name)}\n")


if __name__ == "__main__":
    main()
