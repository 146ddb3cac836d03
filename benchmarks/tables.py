"""Turn committed result files into the tables of README.md and benchmarks/README.md.

    python benchmarks/tables.py            # print them
    python benchmarks/tables.py --take demo demo/run "make demo"
    python benchmarks/tables.py --write    # put them between the <!-- begin:NAME --> and <!-- end:NAME --> marks

A test compares what stands in the two files with what this prints, so that no figure there is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
TARGETS = (HERE.parent / "README.md", HERE / "README.md")
_OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "macro_roc_auc", "dice", "iou")
_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "macro_roc_auc": "macro ROC-AUC",
    "dice": "Dice of the lung mask",
    "iou": "IoU of the lung mask",
}


def evaluation(result: dict[str, Any]) -> str:
    """A classification_report.json: each figure with its interval and n."""
    intervals = result["intervals"]
    lines = ["| test split | value | 95% interval | n |", "|---|---|---|---|"]
    lines += [_evaluation_row(_NAMES[name], intervals[name]) for name in _OVERALL if name in intervals]
    per_class = [name for name in intervals if name.startswith("recall/")]
    lines += [_evaluation_row(f"recall, {name.partition('/')[2]}", intervals[name]) for name in per_class]
    command, split = result["command"], result["split_digest"][:12]
    return "\n".join([*lines, "", f"`{command}`, split {split}."])


def loader(result: dict[str, Any]) -> str:
    """Images per second from the cache against decoding per item."""
    lines = ["| loading | images/s | ratio to decoding, median (min–max) |", "|---|---|---|"]
    for name, rate in result["images_per_second"].items():
        ratio = result["ratio_to_decode"][name]
        spread = f"{ratio['median']:.0f} ({ratio['min']:.0f}–{ratio['max']:.0f})" if name != "decode" else "1"
        lines.append(f"| {name} | {rate['median']:,.0f} | {spread} |")
    note = f"{result['images']} {result['data']}, {result['rounds']} interleaved rounds, one thread, page cache warm"
    return "\n".join([*lines, "", f"`python benchmarks/loader.py`: {note}."])


def parity(result: dict[str, Any]) -> str:
    """PyTorch against ONNX Runtime on files."""
    return (
        f"PyTorch and ONNX Runtime from the same {result['files']} files' bytes: probabilities within "
        f"{result['probabilities']:.1e}, masks equal in {result['mask_agreement']:.5%} of pixels at the files' own "
        f"size, labels equal in {result['labels_equal']:.0%}. `python benchmarks/parity.py`: {result['data']}."
    )


def startup(result: dict[str, Any]) -> str:
    """Wall time of the lightest commands."""
    lines = ["| command | median, s | range, s |", "|---|---|---|"]
    for name, time in result["seconds"].items():
        lines.append(f"| `{name}` | {time['median']:.2f} | {time['min']:.2f}–{time['max']:.2f} |")
    return "\n".join([*lines, "", f"`python benchmarks/startup.py`: {result['rounds']} interleaved runs."])


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": evaluation,
    "radiographs": evaluation,
    "loader": loader,
    "parity": parity,
    "startup": startup,
}


def take(name: str, run: Path, command: str) -> None:
    """Keep the figures of a run's test split, without its files' names, as ``results/<name>.json``."""
    report = json.loads((run / "test" / "classification_report.json").read_text(encoding="utf-8"))
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    kept = {key: report[key] for key in ("split", "images", "groups", "with_masks", "intervals")}
    content = {"command": command, "split_digest": split["digest"], **kept}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def render(name: str) -> str:
    """The block of ``results/<name>.json``."""
    return TABLES[name](json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def filled(text: str) -> str:
    """``text`` with every block that it marks filled from the result files."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- begin:{name} -->\n{render(name)}\n<!-- end:{name} -->"

    return re.sub(r"<!-- begin:(\w+) -->.*?<!-- end:\1 -->", fill, text, flags=re.DOTALL)


def _evaluation_row(name: str, entry: dict[str, Any]) -> str:
    interval = f"{entry['low']:.3f}–{entry['high']:.3f}" if entry["low"] is not None else "too few groups"
    return f"| {name} | {entry['value']:.3f} | {interval} | {entry['n']:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--take", nargs=3, metavar=("NAME", "RUN", "COMMAND"), help="keep a run's test figures")
    arguments = parser.parse_args()
    if arguments.take:
        name, run, command = arguments.take
        take(name, Path(run), command)
    if arguments.write:
        for target in TARGETS:
            target.write_text(filled(target.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name in TABLES:
        if (RESULTS / f"{name}.json").exists():
            print(f"{name}\n{render(name)}\n")


if __name__ == "__main__":
    main()
