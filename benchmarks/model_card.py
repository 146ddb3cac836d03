"""The packaged model's card, from the result files: MODEL_CARD.md at the root and in the bundle.

    python benchmarks/model_card.py                     # print it
    python benchmarks/model_card.py --write [FILE]      # write it: MODEL_CARD.md by default
    python benchmarks/model_card.py --seal BUNDLE       # put it into a bundle, which gets a new id

It needs results/model.json and model_equal.json (benchmarks/model.py), shortcuts.json (shortcuts_of_models.py),
cpu_time.json, gate.json and audit.json. A test compares the file with what this gives. The card names the weights by
their own SHA-256, not by the bundle's digest, which holds that of the card.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from tables import ROOT, load, template

from hilum.bundle.bundle import MODEL_CARD, WEIGHTS, load_bundle, write_bundle
from hilum.bundle.card import CANNOT_TELL, INTERVALS, NOT_A_DEVICE, SAME_SOURCES, network_name
from hilum.storage import write_text

CARD = ROOT / "MODEL_CARD.md"
NEEDED = ("model", "model_equal", "shortcuts", "cpu_time", "audit", "gate")
PROBES = {
    "source": "source column", "border": "border", "outside_lung": "lungs erased", "file": "size, format, depth",
}  # fmt: skip
"""The probes that see nothing of the lung, and what they are called in the card."""
CHILDREN = "kermany"
_PROBE_CHECKS = ("shortcut_", "probe_")
_MODEL_CHECKS = ("model_", "border_alone", "background_swap", "robustness")


def card(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole card as Markdown, from the result files of NEEDED by name."""
    model, audit = results["model"], results["audit"]
    data, findings = model["data"], audit["findings"]
    same_model = (audit.get("model") or {}).get("name") == model["models"]["model"]["name"]
    children = data["sources"].get(CHILDREN, {"classes": {}})["classes"]
    content = {
        "model": model,
        "model_equal": results["model_equal"],
        "found": results["shortcuts"],
        "time": results["cpu_time"],
        "audit": audit,
        "gate": results["gate"],
        "probes": PROBES,
        "pairs": _pairs(data, audit["probes"]),
        "limited": _licensed(data["sources"].values(), ("-NC", "-ND")),
        "silent": _licensed(data["sources"].values(), ("none",)),
        "children": {
            "source": CHILDREN,
            "counts": [(name, children.get(name, 0), sum(n.values())) for name, n in data["classes"].items()],
        },
        "of_data": [
            f for f in findings
            if f["severity"] != "info" and not f["check"].startswith((*_PROBE_CHECKS, *_MODEL_CHECKS))
        ],
        "probe_errors": sum(f["check"].startswith(_PROBE_CHECKS[0]) and f["severity"] == "error" for f in findings),
        "of_model": [f for f in findings if f["check"] == "robustness"] if same_model else [],
        "network_name": network_name,
        "NOT_A_DEVICE": NOT_A_DEVICE,
        "INTERVALS": INTERVALS,
        "SAME_SOURCES": SAME_SOURCES,
        "CANNOT_TELL": CANNOT_TELL,
    }  # fmt: skip
    return template("model_card", **content) + "\n"


def seal(path: Path, text: str) -> None:
    """Put ``text`` into the bundle at ``path`` as its card.

    Raises:
        SystemExit: the card is of other weights.
    """
    bundle = load_bundle(path)
    if bundle.manifest.files[WEIGHTS] not in text:
        raise SystemExit(f"Expected a card of the weights in {path}, results/model.json is of others.")
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    write_bundle(path, bundle.manifest, {**contents, MODEL_CARD: text.encode()})


def _pairs(data: Mapping[str, Any], probes: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, list[str], list[Any]]]:
    """Each pair of classes, the sources that have both, and the AUROC of each of PROBES."""
    found = {(frozenset((p["positive"], p["negative"])), p["probe"]): p["auc"] for p in probes}
    return [
        (
            first,
            second,
            [name for name, source in data["sources"].items() if {first, second} <= {*source["classes"]}],
            [found.get((frozenset((first, second)), probe)) for probe in PROBES],
        )
        for first, second in combinations(data["classes"], 2)
    ]


def _licensed(sources: Iterable[Mapping[str, Any]], marks: Sequence[str]) -> int:
    """Images under licenses that hold one of ``marks``; "none" is one that begins so."""
    pairs = [pair for source in sources for pair in source["licenses"].items()]
    return sum(n for license, n in pairs if any(m in license if m[0] == "-" else license.startswith(m) for m in marks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, nargs="?", const=CARD, metavar="FILE")
    parser.add_argument("--seal", type=Path, metavar="BUNDLE")
    arguments = parser.parse_args()
    text = card({name: load(name) for name in NEEDED})
    if arguments.seal:
        seal(arguments.seal, text)
    elif arguments.write:
        write_text(arguments.write, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
