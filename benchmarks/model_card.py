"""The default model's card, from the result files: MODEL_CARD.md at the root and in the bundle.

    python benchmarks/model_card.py                     # print it
    python benchmarks/model_card.py --write [FILE]      # write it: MODEL_CARD.md by default
    python benchmarks/model_card.py --seal BUNDLE       # put it into a bundle, which gets a new id

It needs results/model.json and model_equal.json (benchmarks/model.py), shortcuts.json (shortcuts_of_models.py),
training_hashes.json, cpu_time.json and audit.json. A test compares the file with what this gives. The card names the
weights by their own SHA-256, not by the bundle's digest, which holds that of the card.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from cells import cell
from tables import RESULTS
from tables_gate import gate_short
from tables_model import cpu_time, shortcuts, side_by_side, trained

from hilum.bundle.bundle import MODEL_CARD, WEIGHTS, TrainingHashes, load_bundle, write_bundle
from hilum.bundle.card import CANNOT_TELL, INTERVALS, NOT_A_DEVICE, SAME_SOURCES, network_name, sentence_of_hashes
from hilum.storage import write_text

CARD = RESULTS.parent.parent / "MODEL_CARD.md"
NEEDED = ("model", "model_equal", "shortcuts", "cpu_time", "audit", "gate", "training_hashes")
PROBES = {
    "source": "source column", "border": "border", "outside_lung": "lungs erased", "file": "size, format, depth",
}  # fmt: skip
"""The probes that see nothing of the lung, and what they are called in the card."""
CHILDREN = "kermany"
_PROBE_CHECKS = ("shortcut_", "probe_")
_MODEL_CHECKS = ("model_", "border_alone", "background_swap", "robustness")

INTENDED = (
    "Research and teaching on frontal chest radiographs: trying hilum without training first, comparing networks and "
    "explanations, checking a data set with `hilum audit --model`, and starting a training on one's own classes.",
    "Films like those it was trained on: frontal (PA or AP), 8 bit or more, the whole chest in view. What the gate "
    "refuses gets no answer.",
)
FORBIDDEN = (
    "Diagnosis, triage, screening or any decision about a person, alone or beside a reader. It is not a medical device "
    "and no regulator has seen it.",
    "Telling whether a person has COVID-19: class and source go together in its training films (above).",
    "Films of other kinds: lateral views, CT, photographs of screens; and films with a finding that is none of its "
    "classes, to which it gives one of them all the same.",
    "Comparing hospitals, scanners or groups of people by its answers.",
    "Ruling a finding out: a low probability, or no evidence in a place, is not the absence of disease.",
)


def load() -> dict[str, dict[str, Any]]:
    """The result files by name.

    Raises:
        OSError: one of NEEDED is absent.
    """
    return {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in NEEDED}


def card(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole card as Markdown, from what ``load`` gives."""
    model, audit = results["model"], results["audit"]
    parts = [
        *_what_it_is(model),
        "## The data", "", *_data(model), "",
        "## Images of its training data", "", *_training_images(results["training_hashes"]), "",
        "## Known confounds", "", *_confounds(model["data"], audit), "",
        "## Intended use", "", *_list(INTENDED), "",
        "## What it must not be used for", "", *_list(FORBIDDEN), "",
        "## Measured on the test split", "", *_measured(model), "",
        "## With the same film passes", "", *_measured_equal(results["model_equal"]), "",
        "## Without the lungs", "", *_without_lungs(results["shortcuts"]), "",
        "## Time on the CPU", "", cpu_time(dict(results["cpu_time"])), "",
        "## The audit's findings", "", *_audit(audit, results["shortcuts"], model["models"]["model"]["name"]), "",
        "## The gate", "", *_gate(results["gate"]), "",
        "## What it cannot tell", "", CANNOT_TELL, "",
    ]  # fmt: skip
    return "\n".join(parts)


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


def _what_it_is(model: Mapping[str, Any]) -> list[str]:
    own, calibration = model["models"]["model"], model["calibration"]
    spec, classes = own["preprocess"], ", ".join(model["class_names"])
    facts = [f"Classes: {classes}."]
    facts.append(
        f"Network: {network_name(own['network'], own['encoder'])}, {own['parameters']:,} parameters; input "
        f"{spec['channels']} x {spec['size']} x {spec['size']}, {spec['fit']}. Weights: {own['weights_dtype']}, "
        f"SHA-256 {own['weights']}."
    )
    start = "from ImageNet weights" if own["imagenet"] else "from random weights"
    facts.append(f"Training: {trained(dict(own), dict(model))}, {start}; its settings are in bundle.json.")
    if calibration:
        threshold = calibration["abstention_threshold"]
        abstains = "it never abstains" if threshold is None else f"it abstains below a probability of {threshold:.3f}"
        facts.append(
            f"Temperature {calibration['temperature']:.3f}, fitted on {calibration['n']:,} films of the "
            f"{calibration['split']} split; {abstains}."
        )
    return [
        "# hilum's default model", "",
        f"Made by benchmarks/model_card.py from benchmarks/results; no figure is typed by hand. {NOT_A_DEVICE}", "",
        "From one frontal chest radiograph the model gives the class, the lung mask, and the evidence: what each place "
        "adds to the logit of each class.", "",
        *_list(facts), "",
    ]  # fmt: skip


def _data(model: Mapping[str, Any]) -> list[str]:
    facts, others = model["data"], model["other_masks"]
    splits = list(facts["masks_by_split"])
    lines = [
        f"{facts['films']:,} frontal radiographs of {facts['groups']:,} groups (a patient, or near-duplicates), from "
        f"public repositories; none is part of this project. Split by group, SHA-256 {model['split']['digest']}.",
        "",
        f"| class | {' | '.join(splits)} | all |", "|---|---|---|---|---|",
        *[f"| {name} | {_counts(by_split)} |" for name, by_split in facts["classes"].items()],
        f"| with a lung mask | {_counts(facts['masks_by_split'])} |",
        f"| with a region or boxes, measured on, never trained on | {_counts(facts['targets_by_split'])} |", "",
        "| source | films | classes | repositories | license, as stated there (films) |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [_source(name, source) for name, source in facts["sources"].items()]
    limited = _licensed(facts["sources"].values(), ("-NC", "-ND"))
    silent = _licensed(facts["sources"].values(), ("none",))
    kinds = "; ".join(f"{m['source']}, {m['pairing']}: {m['films']:,}" for m in facts["masks"])
    lines += [
        "",
        f"{limited:,} films come with a license that excludes commercial use or derived works; of {silent:,} the "
        "repository states none, and what is known of it from upstream stands in the table. Whether weights trained on "
        "them may be used commercially is not settled here.",
        "",
        f"Lung masks (V7 Labs' annotators), by source and by how mask and film were paired: {kinds}. Pairings `gap` "
        "are inferred from the order of upload; `anchor`, `gap_dim` and `file name` are exact. These masks include the "
        "lung seen behind heart and diaphragm.",
    ]
    if others["films"]:
        names = "; ".join(f"{name} {s['films']}, {' / '.join(s['licenses'])}" for name, s in others["sources"].items())
        lines += ["", f"For measuring alone, {others['films']} films with masks that leave that part out: {names}."]
    return lines


def _training_images(found: Mapping[str, Any]) -> list[str]:
    packaged = TrainingHashes.model_validate(found["packaged"])
    own = next(entry for entry in found["by_sides"] if entry["hashed_at"] == entry["looked_for_at"] == 128)
    return [
        sentence_of_hashes(packaged), "",
        f"Of {own['found']['all']['n']:,} copies of such images (all resized to 128 to 1,024 pixels and encoded as "
        "JPEG or WebP, a third cropped by up to 2% before, a third bordered by up to 4%) "
        f"{_percent(own['found']['all'])} are found; of {own['false']['n']:,} images of the {found['split']} split "
        f"{_percent(own['false'])} are taken for one. "
        "`python benchmarks/training_hashes.py metadata.csv`.",
    ]  # fmt: skip


def _percent(share: Mapping[str, Any]) -> str:
    return f"{share['value']:.2%} (95% interval {share['low']:.2%}–{share['high']:.2%})"


def _confounds(facts: Mapping[str, Any], audit: Mapping[str, Any]) -> list[str]:
    sources = facts["sources"]
    shared = {
        pair: [name for name, source in sources.items() if set(pair) <= set(source["classes"])]
        for pair in combinations(facts["classes"], 2)
    }
    children = sources.get(CHILDREN, {"films": 0, "classes": {}})
    counts = [
        f"{children['classes'].get(name, 0):,} of {sum(by_split.values()):,} {name}"
        for name, by_split in facts["classes"].items()
    ]
    lines = [
        f"Class, age and source go together. The films of `{CHILDREN}` are of children: {', '.join(counts)}; for the "
        "other sources the table of the data gives no age. Within one source the class cannot be read from the source, "
        "so that those figures come first in the table below.",
        "",
        "| pair | sources with both | ROC-AUC of a simple probe on: " + " | ".join(PROBES.values()) + " |",
        "|---|---|" + "---|" * len(PROBES),
    ]
    found = {(p["positive"], p["negative"], p["probe"]): p["auc"] for p in audit["probes"]}
    for pair, names in shared.items():
        cells = [_auc(found.get((*pair, probe)) or found.get((*pair[::-1], probe))) for probe in PROBES]
        lines.append(f"| {pair[0]}, {pair[1]} | {', '.join(names) or 'none'} | {' | '.join(cells)} |")
    lines += ["", f"None of these probes sees a lung. `{audit['command']}`."]
    return lines


def _measured(model: Mapping[str, Any]) -> list[str]:
    baseline = model["models"]["baseline"]
    original = ", the original project's network" if baseline["network"] == "unet" else ""
    network = network_name(baseline["network"], baseline["encoder"])
    lines = [f"The baseline is {network}{original}; both models were measured on the same films."]
    lines += [f"{INTERVALS} Differences are paired: both models in the same resamples. {SAME_SOURCES}", ""]
    lines += [side_by_side(dict(model))]
    return lines


def _measured_equal(equal: Mapping[str, Any]) -> list[str]:
    lines = [
        "The baseline beside the model's own recipe, with as many film passes as the baseline:", "",
        side_by_side(dict(equal)),
    ]  # fmt: skip
    if held_out := equal["held_out"]["model"]:
        lines += ["", "That training again without one source, and measured on the source's test films:", ""]
        lines += ["| source | n | accuracy without | accuracy with | fall |", "|---|---|---|---|---|"]
        lines += [_held_out(entry) for entry in held_out]
    return lines


def _without_lungs(found: Mapping[str, Any]) -> list[str]:
    return [
        "Both models on the same films, with the same lungs erased. The shortcut index is (accuracy with the lungs "
        "erased − share of the commonest class) / (accuracy − that share): 0 where nothing but the lungs tells, 1 "
        f"where the lungs add nothing. The share is {found['majority_share']:.3f} here. Lungs filled with their "
        "surroundings' mean or a gray, and other backgrounds, are like what the model was trained with, the baseline "
        "not; blurred lungs, lungs alone and the border alone neither had seen, and those are the fairer lines.",
        "",
        shortcuts(dict(found)),
    ]


def _audit(audit: Mapping[str, Any], found: Mapping[str, Any], name: str) -> list[str]:
    lines = ["Of the data:", ""]
    elsewhere = (*_PROBE_CHECKS, *_MODEL_CHECKS)
    of_data = [f for f in audit["findings"] if f["severity"] != "info" and not f["check"].startswith(elsewhere)]
    lines += _list(f"{f['severity']}: {f['message']}" for f in of_data)
    probes = sum(f["check"].startswith(_PROBE_CHECKS[0]) and f["severity"] == "error" for f in audit["findings"])
    lines += [f"- error, {probes} times: a pair of classes can be told from what is not the lung (table above).", ""]
    lines += ["Of the model:", "", *_list(found["findings"])]
    if (audit.get("model") or {}).get("name") == name:  # the audit was of this model too
        lines += _list(f"{f['severity']}: {f['message']}" for f in audit["findings"] if f["check"] == "robustness")
    return [*lines, "", f"`{audit['command']}`; `{found['command']}`."]


def _gate(found: Mapping[str, Any]) -> list[str]:
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in found["learned_from"].items())
    return [
        "The gate is a network of its own in gate.onnx. It learned from the training films turned, inverted, mirrored, "
        f"cut and marked, from pictures that the project draws, and from {kinds} of public repositories, listed in "
        "benchmarks/gate_samples.csv; the pictures of its test split are measured on below. Of other body parts and "
        "lateral views it has seen few real films.",
        "",
        gate_short(dict(found)),
    ]


def _list(items: Iterable[str]) -> list[str]:
    return [f"- {item}" for item in items]


def _counts(by_split: Mapping[str, int]) -> str:
    return " | ".join(f"{n:,}" for n in [*by_split.values(), sum(by_split.values())])


def _source(name: str, source: Mapping[str, Any]) -> str:
    classes = ", ".join(f"{label} {n:,}" for label, n in source["classes"].items())
    licenses = "; ".join(f"{license} ({n:,})" for license, n in source["licenses"].items())
    return f"| {name} | {source['films']:,} | {classes} | {', '.join(source['repositories'])} | {licenses} |"


def _licensed(sources: Iterable[Mapping[str, Any]], marks: Sequence[str]) -> int:
    """Films under licenses that hold one of ``marks``; "none" is one that begins so."""
    pairs = [pair for source in sources for pair in source["licenses"].items()]
    return sum(n for license, n in pairs if any(m in license if m[0] == "-" else license.startswith(m) for m in marks))


def _auc(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["value"] is None:
        return ""
    bounds = f" ({entry['low']:.2f}–{entry['high']:.2f})" if entry["low"] is not None else ""
    return f"{entry['value']:.2f}{bounds}"


def _held_out(entry: Mapping[str, Any]) -> str:
    figures = (entry["accuracy"], entry["accuracy_with"], entry["fall"])
    return f"| {entry['source']} | {entry['accuracy']['n']:,} | {' | '.join(map(cell, figures))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, nargs="?", const=CARD, metavar="FILE")
    parser.add_argument("--seal", type=Path, metavar="BUNDLE")
    arguments = parser.parse_args()
    text = card(load())
    if arguments.seal:
        seal(arguments.seal, text)
    elif arguments.write:
        write_text(arguments.write, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
