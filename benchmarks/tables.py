"""Fill the tables of README.md, docs/ and other Markdown files from committed result files.

    python benchmarks/tables.py            # print every table
    python benchmarks/tables.py --take audit audit/audit.json "hilum audit DATA"
    python benchmarks/tables.py --write    # fill the files between <!-- begin:NAME --> and <!-- end:NAME -->

The results are in benchmarks/results, the templates in benchmarks/templates. A test compares the files with what this
prints, so that no figure is typed by hand.
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
TABLES = {
    "brief": ("model", "shortcuts"),
    "plainer_short": ("model", "shortcuts"),
    "audit_time": ("audit", "duplicates_time"),
    "copies": ("duplicates", "duplicates_phantoms"),
    "viral_probes": ("audit",),
    "gate_short": ("gate",),
    "million": ("service", "folder", *sorted(file.stem for file in RESULTS.glob("engines-*.json"))),
} | {
    name: (name,)
    for name in (
        "coverage", "confounds", "evaluate", "loader", "parity", "startup", "cpu_time", "ablation", "finetune",
        "service", "training_hashes", "duplicates_time", "winners", "calibration_within", "folder", "training",
        "soak", "kill", "resume", "folder_memory", "overlay", "errors",
    )
} | {
    name: tuple(sorted(file.stem for file in RESULTS.glob(f"{pattern}.json")))  # none: not measured yet
    for name, pattern in {"engines": "engines-*", **{own: own for own in ("replicas", "scale", "recipes")}}.items()
}  # fmt: skip
"""Block and template to the result files it is made from: ``results`` of the template, and ``result``, the first."""
_MARKED = re.compile(r"<!-- begin:(\w+) -->.*?<!-- end:\1 -->", re.DOTALL)


def targets() -> list[Path]:
    """The Markdown files that have tables to fill."""
    files = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md")), *HERE.glob("*.md")]
    return [file for file in files if _MARKED.search(file.read_text(encoding="utf-8"))]


def blocks(text: str) -> list[str]:
    """The names of the tables that ``text`` has."""
    return _MARKED.findall(text)


def template(name: str, **context: Any) -> str:
    """Return a template of benchmarks/templates, filled in, without a line end.

    Raises:
        jinja2.UndefinedError: it names what the context lacks.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    own = {
        "spread": _spread, "extent": _extent, "by_kind": _by_kind, "row": _row,
        "over_seeds": over_seeds, "half_width": half_width,
    }  # fmt: skip
    environment.filters |= FILTERS | own
    return environment.get_template(f"{name}.md.j2").render(context).strip("\n")


def load(name: str) -> Any:
    """The result file of this name."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def render(name: str) -> str:
    """The block ``name``, from its result files."""
    results = {file: load(file) for file in TABLES[name]}
    return template(name, result=next(iter(results.values()), None), results=[*results.values()], **results)


def filled(text: str) -> str:
    """``text`` with every block that it marks filled from the result files."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- begin:{name} -->\n{render(name)}\n<!-- end:{name} -->"

    return _MARKED.sub(fill, text)


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


def _row(result: Mapping[str, Any], section: str, start: str) -> Mapping[str, Any]:
    """The row of a side-by-side result in ``section`` whose figure begins with ``start``.

    Raises:
        StopIteration: there is none.
    """
    return next(row for row in result["rows"] if row["section"] == section and row["figure"].startswith(start))


def _spread(rounds: Mapping[str, float] | Iterable[float], digits: int) -> str:
    """The median and the range of some rounds, or of a summary of them."""
    if not isinstance(rounds, Mapping):
        values = list(rounds)
        rounds = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    median, low, high = (number(rounds[name], digits) for name in ("median", "min", "max"))
    return f"{median} ({low}–{high})"


def _extent(shares: Iterable[float | None]) -> str:
    """The least and the greatest of some shares."""
    values = [share for share in shares if share is not None]
    if len(values) < 2:
        return "".join(map(percent, values))
    return f"{percent(min(values)).removesuffix('%')}–{percent(max(values))}"


def over_seeds(runs: Iterable[Mapping[str, Any]], group: str | None, key: str) -> str:
    """The mean and the range of a figure over the runs that have it."""
    figures = [(run if group is None else run[group]).get(key) for run in runs]
    values = [figure["value"] for figure in figures if figure and figure["value"] is not None]
    if not values:
        return ""
    mean = number(statistics.mean(values), 3)
    return mean if len(values) < 2 else f"{mean} ({number(min(values), 3)}–{number(max(values), 3)})"


def half_width(figure: Mapping[str, Any]) -> str:
    """Half of the width of an interval."""
    return f"±{number((figure['high'] - figure['low']) / 2, 3)}"


def _by_kind(figures: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Figures by metric, those of single classes apart."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for own in figures:
        kind = metric_title(own["metric"]) + (" of a class" if own["class_name"] else "")
        kinds.setdefault(kind, []).append(own)
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="fill the files")
    parser.add_argument(
        "--take", nargs=3, metavar=("NAME", "REPORT", "COMMAND"), help="keep a report.json or audit.json as a result"
    )
    arguments = parser.parse_args()
    if arguments.take:
        name, report, command = arguments.take
        take(name, Path(report), command)
    elif arguments.write:
        for target in targets():
            target.write_text(filled(target.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        for name in TABLES:
            print(f"{name}\n{render(name)}\n")


if __name__ == "__main__":
    main()
