"""The tables of the shipped model: beside its baseline, in parts, without lungs, in time, and fine-tuned."""

from __future__ import annotations

from typing import Any

from cells import cell, origin


def side_by_side(result: dict[str, Any]) -> str:
    """A baseline and a model on the same films: benchmarks/model.py and benchmarks/shortcuts_of_models.py."""
    lines, section = [], None
    for row in result["rows"]:
        if row["section"] != section:
            section = row["section"]
            lines += ["", f"| {section} | n | baseline | model | model less baseline |", "|---|---|---|---|---|"]
        n = f"{row['model']['n']:,}" if row["model"] else ""
        cells = [cell(row[name]) for name in ("baseline", "model", "difference")]
        cells[2] = row["note"] or cells[2]
        lines.append(f"| {row['figure']} | {n} | {' | '.join(cells)} |")
    passes = " ".join(f"{name.capitalize()}: {trained(entry, result)}." for name, entry in result["models"].items())
    return "\n".join([*lines[1:], "", f"{passes} {origin(result)}"])


def model_short(result: dict[str, Any]) -> str:
    """The same without the pointing game on regions and on boxes apart."""
    apart = ("pointing game, boxes", "pointing game, region")
    return side_by_side({**result, "rows": [row for row in result["rows"] if row["section"] not in apart]})


def trained(entry: dict[str, Any], result: dict[str, Any]) -> str:
    """A model's network, and how often it saw a training film."""
    parts = entry.get("trainings", [])
    if not parts or "data" not in result:
        return str(entry["network"])
    films = sum(by_split["train"] for by_split in result["data"]["classes"].values())
    words = ", then ".join(f"{films * part['epochs']:,} film passes at {part['size']} pixels" for part in parts)
    return f"{entry['network']}, {words}"


def shortcuts(result: dict[str, Any]) -> str:
    """Two models without the lungs, and how their indices compare."""
    ratio = f"the model's index over the baseline's is {cell(result['ratio'])}"
    if result["ratio"]["value"] is None:
        ratio = "no ratio of the indices, since the baseline's is not above 0"
    note = (
        f"{result['films']:,} of {result['split']['films']:,} test films, with the reference mask of "
        f"{result['reference_masks']:,} and else the model's lungs for both. "
        f"{result['headline'].replace('_', ' ').capitalize()}: {ratio}. "
    )
    head, _, origin = side_by_side(result).rpartition("\n")
    return f"{head}\n{note}{origin}"


def cpu_time(result: dict[str, Any]) -> str:
    """Time per film on the CPU, and the ratio to the original network."""
    lines = ["| threads | way | ms per film, median (range) | ratio, median (range) |", "|---|---|---|---|"]
    for part in result["results"]:
        for row in part["rows"]:
            wall, ratio = row["wall_ms"], row["ratio"]
            times = f"{wall['median']:.1f} ({wall['min']:.1f}–{wall['max']:.1f})"
            ratios = f"{ratio['median']:.3f} ({ratio['min']:.3f}–{ratio['max']:.3f})"
            lines.append(f"| {part['threads']} | {row['way']} | {times} | {ratios} |")
    sizes = " and ".join(f"{name} {count:,}" for name, count in result["parameters"].items())
    note = f"{result['size']} × {result['size']}, batch 1, {result['rounds']} interleaved rounds; parameters: {sizes}"
    return "\n".join([*lines, "", f"`{result['command']}`: {note}; load average {result['load_average']:.1f}."])


_ABLATION = {
    "macro_f1": "macro-F1",
    "kermany_normal_opacity": "`kermany` Normal, Opacity",
    "kermany_viral_bacterial": "`kermany` Viral, Opacity",
    "nih_normal_opacity": "`nih` Normal, Opacity",
    "dice": "Dice",
}
_POINTING = {"evidence": "evidence", "grad-cam": "Grad-CAM", "random in lung": "chance"}


def ablation(result: dict[str, Any]) -> str:
    """What each part brought: short runs that differ from the first in one thing."""
    columns = ["variant", *_ABLATION.values(), "shortcut index", "AUC without lungs"]
    columns += [f"points, {words}" for words in _POINTING.values()]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [_variant(name, own) for name, own in result["variants"].items()]
    first = next(iter(result["variants"].values()))
    note = (
        f"{result['passes']:,} film passes at {result['size']} pixels from ImageNet weights, one seed. Classes: the "
        f"validation split, n = {first['figures']['macro_f1']['n']:,}, and inside one source; Dice: "
        f"n = {first['figures']['dice']['n']}; without lungs: {result['films']} of its films; points: the pointing "
        f"game on {first['pointing_test']['films']} test films. `python benchmarks/ablation.py metadata.csv`, split "
        f"{result['split_digest'][:12]}."
    )
    return "\n".join([*lines, "", note])


def poolings(result: dict[str, Any]) -> str:
    """The lines of the ablation that compare how evidence becomes a logit."""
    kept = ("as shipped", "pooling", "cells", "without the lung gate")
    variants = {name: own for name, own in result["variants"].items() if name.startswith(kept)}
    return ablation({**result, "variants": variants})


def finetune(result: dict[str, Any]) -> str:
    """Few films of two classes: from the bundle against from ImageNet weights."""
    lines = ["| training films of each class | from the bundle | from ImageNet | more by |", "|---|---|---|---|"]
    lines += [
        f"| {own['per_class']} | {cell(own['finetuned'])} | {cell(own['imagenet'])} | {cell(own['difference'])} |"
        for own in result["rows"]
    ]
    tested, names = sum(result["films"]["test"].values()), " against ".join(result["classes"])
    untouched = f" The bundle as it is: {cell(result['untouched'])}." if result["untouched"] else ""
    note = (
        f"ROC-AUC of {names} in `{result['source']}`, n = {tested} test films; {result['film_passes']} film passes at "
        f"{result['size']} pixels, mean of {result['seeds']} draws of training films.{untouched}"
    )
    if result["bundle_saw_source"]:
        note += f" The bundle was trained on the training films of `{result['source']}`, as on all others."
    return "\n".join([*lines, "", f"{note} `{result['command']}`."])


def _variant(name: str, own: dict[str, Any]) -> str:
    figures = [own["figures"][key] for key in _ABLATION]
    cells = [*figures, own["shortcut_index"], own["auc_without_lungs"]]
    cells += [own["pointing_test"].get(method) for method in _POINTING]
    return f"| {name} | {' | '.join(cell(entry, 2) for entry in cells)} |"
