"""Write the packaged model's card from the result files: MODEL_CARD.md at the root and in the bundle.

    python benchmarks/model_card.py                     # print it
    python benchmarks/model_card.py --write [FILE]      # write it; the default is MODEL_CARD.md
    python benchmarks/model_card.py --seal BUNDLE       # put it into a bundle, which gets a new id

It reads the files of NEEDED in benchmarks/results, and the agreement of reduced precisions from BUNDLE, by default the
packaged one. A test compares MODEL_CARD.md with what this prints. The card names the weights by their own SHA-256; it
cannot name the bundle's digest, which covers the card.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from tables import ROOT, load, template

from hilum.bundle.bundle import MODEL_CARD, WEIGHTS, Bundle, TrainingHashes, load_bundle, write_bundle
from hilum.bundle.card import CANNOT_TELL, INTERVALS, NOT_A_DEVICE, SAME_SOURCES, network_name, sentence_of_hashes
from hilum.bundle.default import resolve_bundle
from hilum.storage import write_text

CARD = ROOT / "MODEL_CARD.md"
NEEDED = (
    "model",
    "model_equal",
    "shortcuts",
    "audit",
    "cpu_time",
    "gate",
    "training_hashes",
    "ablation",
)
PROBES = {
    "source": "source column", "border": "border", "outside_lung": "lungs erased", "file": "size, format, depth",
}  # fmt: skip
"""The probes that see nothing of the lung, and what they are called in the card."""
CHILDREN = "kermany"


def card(results: Mapping[str, Mapping[str, Any]], bundle: Bundle) -> str:
    """The whole card of a bundle as Markdown, from the result files of NEEDED by name."""
    model, audit = results["model"], results["audit"]
    data, models = model["data"], model["models"]
    children = data["sources"].get(CHILDREN, {"classes": {}})["classes"]
    content = {
        "model": model,
        "model_equal": results["model_equal"],
        "passes_ratio": _passes(models["model"]) / _passes(models["baseline"]),
        "found": results["shortcuts"],
        "time": results["cpu_time"],
        "audit": audit,
        "gate": results["gate"],
        "ablation": results["ablation"],
        "agreement": bundle.manifest.agreement,
        "hashes": _hashes(results["training_hashes"]),
        "probes": PROBES,
        "pairs": _pairs(data, audit["probes"]),
        "limited": _licensed(data["sources"].values(), ("-NC", "-ND")),
        "silent": _licensed(data["sources"].values(), ("none",)),
        "children": {
            "source": CHILDREN,
            "counts": [(name, children.get(name, 0), sum(n.values())) for name, n in data["classes"].items()],
        },
        "copies": _copies(audit["duplicates"]),
        "probe_findings": sum(
            f["check"].startswith("shortcut_") and f["severity"] != "info" for f in audit["findings"]
        ),
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
        raise SystemExit(f"results/model.json describes other weights than those in {path}.")
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


def _copies(found: Mapping[str, Any]) -> dict[str, Any]:
    """The pairs of near-duplicates, and those between two splits."""
    names = found["split_names"]
    between = {
        f"{names[one]}–{names[two]}": found["by_split"][one][two] for one, two in combinations(range(len(names)), 2)
    }
    return {"near_pairs": found["near_pairs"], "across": sum(between.values()), "by_splits": between}


def _passes(model: Mapping[str, Any]) -> int:
    return sum(int(part["epochs"]) for part in model["trainings"])


def _hashes(found: Mapping[str, Any]) -> dict[str, Any]:
    own = next(entry for entry in found["by_sides"] if entry["hashed_at"] == entry["looked_for_at"] == 128)
    sentence = sentence_of_hashes(TrainingHashes.model_validate(found["packaged"]))
    return {"sentence": sentence, "own": own, "split": found["split"]}


def _licensed(sources: Iterable[Mapping[str, Any]], marks: Sequence[str]) -> int:
    """Images under licenses that hold one of ``marks``; "none" is one that begins so."""
    pairs = [pair for source in sources for pair in source["licenses"].items()]
    return sum(n for license, n in pairs if any(m in license if m[0] == "-" else license.startswith(m) for m in marks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, nargs="?", const=CARD, metavar="FILE", help="write the card to FILE")
    parser.add_argument("--seal", type=Path, metavar="BUNDLE", help="put the card into BUNDLE")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.seal or resolve_bundle(None))
    text = card({name: load(name) for name in NEEDED}, bundle)
    if arguments.seal:
        seal(arguments.seal, text)
    elif arguments.write:
        write_text(arguments.write, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
