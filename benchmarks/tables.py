"""Turn committed result files into the tables of README.md and benchmarks/README.md.

    python benchmarks/tables.py            # print them
    python benchmarks/tables.py --take demo demo/run/test/report.json "make demo"
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

from cells import bounds, origin, row
from tables_gate import gate, gate_short
from tables_model import ablation, cpu_time, finetune, model_short, poolings, shortcuts, side_by_side
from tables_service import service

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
ROOT = HERE.parent
TARGETS = (
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    HERE / "README.md",
    ROOT / "docs" / "radiographs.md",
)
_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "macro_roc_auc": "macro ROC-AUC",
    "mcc": "Matthews correlation",
    "dice": "Dice of the lung mask",
    "iou": "IoU of the lung mask",
    "hd95": "95% Hausdorff distance, pixels",
}


def evaluation(result: dict[str, Any]) -> str:
    """The figures of a report over all sources: each with its interval and n."""
    figures = [figure for figure in result["figures"] if figure["source"] is None]
    overall = {figure["metric"]: figure for figure in figures if figure["class_name"] is None}
    lines = ["| test split | value | 95% interval | n |", "|---|---|---|---|"]
    lines += [row(words, overall[name]) for name, words in _NAMES.items() if name in overall]
    lines += [row(f"recall, {f['class_name']}", f) for f in figures if f["metric"] == "recall"]
    return "\n".join([*lines, "", origin(result)])


def contrasts(result: dict[str, Any]) -> str:
    """ROC-AUC of pairs of classes, over all sources and inside each."""
    lines = ["| pair | source | images | ROC-AUC | 95% interval |", "|---|---|---|---|---|"]
    for entry in result["contrasts"]:
        pair = f"{entry['positive']} against {entry['negative']}"
        counts = f"{entry['n_positive']:,} and {entry['n_negative']:,}"
        auc = entry["auc"]
        lines.append(f"| {pair} | {entry['source'] or '(all)'} | {counts} | {auc['value']:.3f} | {bounds(auc)} |")
    return "\n".join([*lines, "", origin(result)])


def calibration(result: dict[str, Any]) -> str:
    """Calibration before and after, prediction sets, abstention."""
    measured, selective = result["calibration"], result["selective"]
    lines = ["| figure | value | 95% interval | n |", "|---|---|---|---|"]
    for name, words in (("ece", "expected calibration error"), ("brier", "Brier score"), ("nll", "log-loss, nats")):
        lines += [row(f"{words}, {when} temperature", measured[when][name]) for when in ("before", "after")]
    for sets in result["conformal"]:
        share = f"{float(sets['level']):.0%}"
        lines.append(row(f"prediction sets at {share}: coverage", sets["coverage"]))
        lines += [row(f"prediction sets at {share}: coverage of {k}", v) for k, v in sets["coverage_by_class"].items()]
        lines.append(row(f"prediction sets at {share}: classes in a set", sets["mean_size"]))
    lines.append(row("answered above the abstention threshold", selective["answered"]))
    lines.append(row("accuracy of those", selective["accuracy"]))
    return "\n".join([*lines, "", f"Temperature {measured['temperature']:.3f}. {origin(result)}"])


def localization(result: dict[str, Any]) -> str:
    """Evidence against Grad-CAM and chance, on films with regions or boxes."""
    found = result["localization"]
    lines = ["| method | measure | value | 95% interval | n |", "|---|---|---|---|---|"]
    for method, measures in found["methods"].items():
        for measure, entry in measures.items():
            lines.append(row(f"{method} | {measure.replace('_', ' ')}", entry))
    kinds = " and ".join(f"{count} with {kind}" for kind, count in found["kinds"].items())
    return "\n".join([*lines, "", f"{found['films']} test films: {kinds}. {origin(result)}"])


def audit(result: dict[str, Any]) -> str:
    """What an audit found, errors and warnings."""
    lines = ["| severity | finding |", "|---|---|"]
    lines += [f"| {f['severity']} | {f['message']} |" for f in result["findings"] if f["severity"] != "info"]
    facts = result["data"]
    note = f"{facts['readable']:,} of {facts['images']:,} films read, {facts['groups']:,} groups"
    return "\n".join([*lines, "", f"{note}, {result['seconds']:.0f} s. `{result['command']}`."])


def audit_probes(result: dict[str, Any]) -> str:
    """How well pairs of classes follow from what is not the lung."""
    lines = ["| pair | from | AUC | 95% interval | chance band | n |", "|---|---|---|---|---|---|"]
    for entry in result["probes"]:
        if entry["negative"] == "the rest" or entry["auc"]["value"] is None:
            continue
        chance = f"{entry['chance_low']:.2f}–{entry['chance_high']:.2f}"
        auc = entry["auc"]
        pair, probe = f"{entry['positive']} against {entry['negative']}", entry["probe"].replace("_", " ")
        lines.append(f"| {pair} | {probe} | {auc['value']:.2f} | {bounds(auc, 2)} | {chance} | {auc['n']:,} |")
    return "\n".join([*lines, "", f"`{result['command']}`."])


def audit_model(result: dict[str, Any]) -> str:
    """What a model answers on films without lungs, and on changed ones."""
    model = result["model"]
    lines = ["| films | accuracy | balanced accuracy | ROC-AUC | n |", "|---|---|---|---|---|"]
    for entry in model["scores"]:
        cells = [f"{entry[k]['value']:.3f} ({bounds(entry[k])})" for k in ("accuracy", "balanced_accuracy", "auc")]
        lines.append(f"| {entry['treatment'].replace('_', ' ')} | {' | '.join(cells)} | {entry['accuracy']['n']:,} |")
    index, balanced = model["shortcut_index"], model["balanced_index"]
    text = f"Shortcut index {index['value']:.2f} ({bounds(index, 2)}), n = {index['n']:,}; from balanced accuracy "
    lines += ["", f"{text}{balanced['value']:.2f} ({bounds(balanced, 2)})."]
    lines += ["", "| change | strength | accuracy | label kept |", "|---|---|---|---|"]
    for point in result["robustness"]:
        if point["level"] in (0, 2, 5):
            accuracy, kept = (f"{point[k]['value']:.3f} ({bounds(point[k])})" for k in ("accuracy", "kept"))
            strength = f"{point['strength']:g} {point['unit']}" if point["level"] else ""
            lines.append(f"| {point['change']} | {strength} | {accuracy} | {kept} |")
    n = result["robustness"][0]["accuracy"]["n"]
    return "\n".join([*lines, "", f"Changes on {n} of the test films, levels 2 and 5 of 5. `{result['command']}`."])


def coverage(result: dict[str, Any]) -> str:
    """How often a 95% interval holds the truth, the least and the most over the figures of each kind."""
    lines = ["| figure | design | coverage of 95% intervals | as if images were independent |", "|---|---|---|---|"]
    for design in result["designs"]:
        kinds: dict[str, list[dict[str, Any]]] = {}
        for figure in design["figures"]:
            by_class = " of a class" if figure["class_name"] else ""
            kinds.setdefault(figure["metric"] + by_class, []).append(figure)
        for kind, own in kinds.items():
            naive = [f["unclustered_coverage"] for f in own if f.get("unclustered_coverage") is not None]
            lines.append(f"| {kind} | {design['design']} | {_span([f['coverage'] for f in own])} | {_span(naive)} |")
    note = f"{result['sets']:,} simulated test sets of {result['patients']} patients, {result['resamples']:,} resamples"
    return "\n".join([*lines, "", f"`python benchmarks/coverage.py`: {note}; truth from 2 million images."])


def confounds(result: dict[str, Any]) -> str:
    """Planted confounds that the audit flags, and clean data sets that it flags too."""
    lines = ["| confound | flagged where the effect is at least 0.10 AUC | flagged on clean data |", "|---|---|---|"]
    lines += [f"| {k} | {_share(v['detected'])} | {_share(v['false_alarms'])} |" for k, v in result["table"].items()]
    sets = len(result["data_sets"])
    return "\n".join([*lines, "", f"`python benchmarks/confounds.py`: {sets} data sets of {result['films']} phantoms."])


def duplicates(result: dict[str, Any]) -> str:
    """Planted near-duplicates that are found, and pairs that are none."""
    lines = ["| planted copies | found |", "|---|---|"]
    lines += [f"| {kind} | {_share(entry)} |" for kind, entry in result["recall"].items()]
    seconds = result["seconds"]
    note = (
        f"{result['images']:,} images and {result['planted']:,} copies; images in false pairs "
        f"{_share(result['images_in_false_pairs'])}; reading {seconds['decode_hash_fingerprint']:.0f} s and search "
        f"{seconds['search']:.0f} s before planting, {result['workers']} threads"
    )
    return "\n".join([*lines, "", f"`python benchmarks/duplicates.py`: {note}."])


def training_hashes(result: dict[str, Any]) -> str:
    """Copies of training images that their hashes find, and unseen images that are taken for one."""
    kinds = list(result["by_sides"][0]["found"])
    columns = [*(f"copies, {kind}" for kind in kinds), "originals at their own size", "unseen images"]
    lines = [f"| hashed at | looked for at | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for entry in result["by_sides"]:
        shares = [*entry["found"].values(), entry["native"], entry["false"]]
        cells = " | ".join(_share(share) for share in shares)
        lines.append(f"| {entry['hashed_at']} | {entry['looked_for_at']} | {cells} |")
    time = result["time"]
    note = (
        f"{result['hashes']:,} hashes of 32 bytes (of {' and '.join(result['hashes_of'])}), {result['planted']:,} "
        f"copies, unseen: the {result['split']} split; {time['queries']:,} images against {time['hashes']:,} hashes in "
        f"{time['seconds']:.0f} s on {time['processors']} processors (load {time['load']:.0f})"
    )
    return "\n".join([*lines, "", f"`python benchmarks/training_hashes.py metadata.csv`: {note}."])


def duplicates_time(result: dict[str, Any]) -> str:
    """How long the whole search takes on many films."""
    seconds, before = result["seconds"], result["before_planting"]
    return (
        f"{result['images']:,} real radiographs: {seconds['all']:.0f} s, {seconds['decode_hash_fingerprint']:.0f} s "
        f"of it to read, hash and fingerprint and {seconds['search']:.0f} s to search; {result['workers']} threads on "
        f"{result['processors']} processors, at most {result['peak_mib']:,} MiB; {before['exact_pairs']} exact and "
        f"{before['near_pairs']} near pairs. `python benchmarks/duplicates.py --n 0`."
    )


def evaluate(result: dict[str, Any]) -> str:
    """How long all figures of a split take."""
    seconds = result["seconds"]
    return (
        f"All {result['figures']} figures of {result['images']:,} images of {result['sources']} sources with "
        f"{result['resamples']:,} resamples: {seconds['median']:.1f} s ({seconds['min']:.1f}–{seconds['max']:.1f}), "
        f"{result['rounds']} rounds, one thread. `python benchmarks/evaluate.py`."
    )


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


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo": ("demo", evaluation),
    "radiographs": ("radiographs", evaluation),
    "contrasts": ("radiographs", contrasts),
    "calibration": ("radiographs", calibration),
    "localization": ("radiographs", localization),
    "audit": ("audit", audit),
    "audit_probes": ("audit", audit_probes),
    "audit_model": ("audit", audit_model),
    "coverage": ("coverage", coverage),
    "confounds": ("confounds", confounds),
    "duplicates": ("duplicates", duplicates),
    "training_hashes": ("training_hashes", training_hashes),
    "duplicates_phantoms": ("duplicates_phantoms", duplicates),
    "duplicates_time": ("duplicates_time", duplicates_time),
    "evaluate": ("evaluate", evaluate),
    "loader": ("loader", loader),
    "parity": ("parity", parity),
    "startup": ("startup", startup),
    "model": ("model", side_by_side),
    "model_short": ("model", model_short),
    "shortcuts": ("shortcuts", shortcuts),
    "cpu_time": ("cpu_time", cpu_time),
    "model_equal": ("model_equal", side_by_side),
    "ablation": ("ablation", ablation),
    "poolings": ("ablation", poolings),
    "finetune": ("finetune", finetune),
    "gate": ("gate", gate),
    "gate_short": ("gate", gate_short),
    "service": ("service", service),
}
"""Block to the result file it is made from, and how."""


def take(name: str, report: Path, command: str) -> None:
    """Keep a report.json or an audit.json, without the names of its films, as ``results/<name>.json``."""
    content = json.loads(report.read_text(encoding="utf-8"))
    content.pop("failures", None)
    for finding in content.get("findings", []):
        finding["records"] = []
        finding["message"] = re.sub(r" First: .*", "", finding["message"])
    if content.get("duplicates"):
        content["duplicates"].pop("pairs", None)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"command": command, **content}, indent=1) + "\n", encoding="utf-8")


def render(name: str) -> str:
    """The block ``name``, from its result file."""
    file, table = TABLES[name]
    return table(json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8")))


def filled(text: str) -> str:
    """``text`` with every block that it marks filled from the result files."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- begin:{name} -->\n{render(name)}\n<!-- end:{name} -->"

    return re.sub(r"<!-- begin:(\w+) -->.*?<!-- end:\1 -->", fill, text, flags=re.DOTALL)


def _share(entry: dict[str, Any]) -> str:
    return f"{entry['hits']:,} of {entry['n']:,}, {entry['value']:.1%} ({entry['low']:.1%}–{entry['high']:.1%})"


def _span(values: list[float]) -> str:
    if not values:
        return ""
    low, high = f"{min(values):.1%}", f"{max(values):.1%}"
    return low if len(values) == 1 else f"{low}–{high} ({len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--take", nargs=3, metavar=("NAME", "REPORT", "COMMAND"), help="keep a report")
    arguments = parser.parse_args()
    if arguments.take:
        name, report, command = arguments.take
        take(name, Path(report), command)
        return
    if arguments.write:
        for target in TARGETS:
            target.write_text(filled(target.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name in TABLES:
        if (RESULTS / f"{TABLES[name][0]}.json").exists():
            print(f"{name}\n{render(name)}\n")


if __name__ == "__main__":
    main()
