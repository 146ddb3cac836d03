"""A comparison of two models in words, and as JSON. The numbers are those of hilum.evaluation.compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hilum.evaluation.compare import ALPHA, Comparison, Difference
from hilum.format import bounds, capital, metric_title, number, p_value
from hilum.storage import as_json, write_json


def write_comparison(comparison: Comparison, path: Path, *, names: tuple[str, str]) -> None:
    """Write the conclusion and all differences as JSON; an undefined number is null.

    Args:
        comparison: The comparison.
        path: The file.
        names: Names of A and B.

    Raises:
        OutputError: The file cannot be written.
    """
    first = {"verdict": verdict(comparison), "others": others(comparison), "a": names[0], "b": names[1]}
    write_json(path, as_json({**first, **asdict(comparison)}))


def verdict(comparison: Comparison) -> str:
    """Return the conclusion in one to three sentences: what the primary metric shows.

    Where a model was trained on some of the images, it is about those that neither has seen.
    """
    if any(comparison.seen):
        if comparison.unseen is None:
            return "No verdict: a model was trained on these images, and no labeled image is unseen by both."
        return f"Images unseen by both: {verdict(comparison.unseen)}"
    return " ".join([_conclusion(comparison), *_not_worse(comparison)])


def others(comparison: Comparison) -> str:
    """Return a sentence on the metrics other than the primary one: which model is better in which."""
    if any(comparison.seen):
        return "" if comparison.unseen is None else others(comparison.unseen)
    count = len(comparison.differences) - 1
    if comparison.outcome not in ("A", "B"):
        return f"So no model is called better in any of the other {count} metrics."
    better = [d for d in comparison.differences if not d.primary and d.better is not None]
    if not better:
        return f"In none of the other {count} metrics is a model better, after adjustment for their number."
    main = {model: [figure_name(d) for d in comparison.headline if d in better and d.better == model] for model in "AB"}
    parts = [f"{model} in {_listed(names)}" for model, names in main.items() if names]
    rest = len(better) - sum(map(len, main.values()))
    parts += [f"one of them in {rest} by class or source"] * (rest > 0)
    return f"Better, after adjustment for {count} other metrics: {'; '.join(parts)}."


def _conclusion(comparison: Comparison) -> str:
    primary, equivalence = comparison.primary, comparison.equivalence
    name, on = figure_name(primary), f"n = {n_of(primary)}, on {counts_of(comparison)}"
    found = f"B − A {number(primary.difference, signed=True)} ({_interval(primary, '95%')}), {_p(primary.p)}"
    if comparison.outcome in ("A", "B"):
        within = ""
        if equivalence is not None and equivalence.p <= ALPHA:
            within = f" The difference is smaller than the margin of {equivalence.margin:g} ({_p(equivalence.p)})."
        return f"{comparison.outcome} is better in the primary metric, {name}: {found}; {on}.{within}"
    if comparison.outcome == "equivalent" and equivalence is not None:
        return (
            f"A and B are equivalent within {equivalence.margin:g} in the primary metric, {name}: B − A "
            f"{number(primary.difference, signed=True)} ({_interval(equivalence, '90%')}), {_p(equivalence.p)}; {on}."
        )
    if math.isnan(primary.p):
        return f"Inconclusive: the spread of the primary metric, {name}, is unknown; {on}."
    if equivalence is None:
        rest = "Without a margin (--margin), equivalence is not tested."
    else:
        rest = f"Equivalence within {equivalence.margin:g} is not shown, either ({_p(equivalence.p)})."
    return f"Inconclusive: no difference is shown in the primary metric, {name}: {found}; {on}. {rest}"


def _not_worse(comparison: Comparison) -> list[str]:
    """Sentences on non-inferiority, one-sided at 0.025, where the conclusion does not imply it."""
    equivalence = comparison.equivalence
    if equivalence is None or comparison.outcome != "inconclusive":
        return []
    ways = {"A": ("B", equivalence.p_a_not_worse), "B": ("A", equivalence.p_b_not_worse)}
    return [
        f"{model} is not worse than {other} by {equivalence.margin:g} or more ({_p(p)})."
        for model, (other, p) in ways.items()
        if p <= ALPHA / 2
    ]


def counts_of(comparison: Comparison) -> str:
    """Return ``150 images in 75 groups, 143 labeled, 70 with lung masks``."""
    return (
        f"{comparison.images:,} images in {comparison.groups:,} groups, {comparison.labeled:,} labeled, "
        f"{comparison.with_masks:,} with lung masks"
    )


def n_of(difference: Difference) -> str:
    """Return the images that a metric is computed from: ``143``, or ``50 / 93`` of an AUROC's two sides."""
    if difference.n_positive is None or difference.n_negative is None:
        return f"{difference.n:,}"
    return f"{difference.n_positive:,} / {difference.n_negative:,}"


def p_of(difference: Difference) -> str:
    """Return the p value that decides: the primary metric's own, the adjusted one of others; a dash if unknown."""
    p = difference.p if difference.p_adjusted is None else difference.p_adjusted
    return _p(p).removeprefix("p ").removeprefix("= ")


def macro_notes(differences: Sequence[Difference]) -> list[str]:
    """Return sentences that name the classes which macro averages leave out or count as 0, by what they do."""
    notes: dict[str, list[str]] = {}
    for difference in differences:
        parts = [f"without {', '.join(difference.left_out)} (no images)"] if difference.left_out else []
        for model, names in zip("AB", difference.as_zero, strict=True):
            parts += [f"in {model} {', '.join(names)} as 0 (never predicted)"] if names else []
        if parts:
            notes.setdefault("; ".join(parts), []).append(figure_name(difference))
    return [f"{capital(', '.join(names))}: {note}." for note, names in notes.items()]


def seen_sentences(comparison: Comparison) -> tuple[str, ...]:
    """Return how many of the images are in the training data of A and of B, or that it is not known."""
    total = comparison.images
    return tuple(
        f"It is not known whether images are in {name}'s training data."
        if seen is None
        else f"{seen:,} of {total:,} images are in {name}'s training data."
        for name, seen in zip("AB", comparison.seen, strict=True)
    )


def figure_name(difference: Difference) -> str:
    """Return a metric in words: ``AUROC of COVID against Normal within hospital-1``."""
    words = metric_title(difference.metric)
    if difference.class_name is not None:
        words += f" of {difference.class_name}"
    if difference.versus is not None:
        words += f" against {difference.versus}"
    return words if difference.source is None else f"{words} within {difference.source}"


def _interval(estimate: object, level: str) -> str:
    text = bounds(estimate, signed=True)
    return f"{level} CI {text}" if text else "no interval"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else p_value(value)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
