"""Follow the images of an evaluation from the files found to those measured, and draw it as a flow diagram.

All counts are those of the report. What it does not hold is called "not recorded".
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from hilum.evaluation.report import Provenance, Report
from hilum.evaluation.subgroups import NOT_RECORDED
from hilum.format import count, split_title, words

_WIDTH, _GAP, _SIDE = 400, 16, 8
_LINE, _PADDING = 15, 8
_CHARACTER = 6.0  # mean width of a character at 11 px


@dataclass(frozen=True)
class Step:
    """One box of the diagram.

    Attributes:
        title: What it counts.
        lines: Its counts.
    """

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """The boxes of a flow diagram, from top to bottom.

    Attributes:
        found: The files found.
        excluded: Those left out, with the reason.
        partitions: The splits; empty where the data are not split.
        evaluated: The images that the figures rest on.
        measured: Those with a label, a lung mask, and a marked finding.
        place: Which of the partitions is evaluated.
    """

    found: Step
    excluded: Step
    partitions: tuple[Step, ...]
    evaluated: Step
    measured: tuple[Step, ...]
    place: int = 0


def flow_of(report: Report) -> Flow | None:
    """Return the flow of the images of a report; None for another tool's table, of whose data nothing is known."""
    origin, split = report.provenance, report.split
    if origin is None or not origin.data:
        return None
    kept = sum(facts.images for facts in origin.data.values())
    not_evaluated = origin.other_splits or {}
    known = [origin.left_out, origin.other_classes or {}, not_evaluated]
    total = kept + sum(sum(counts.values()) for counts in known)
    exact = origin.other_classes is not None and (split.name == "all" or len(origin.data) > 1 or bool(not_evaluated))
    found = Step("Images found", (count(total) if exact else f"at least {count(total)}",))
    partitions = tuple(
        Step(_title(name), (f"{count(facts.images)} images", f"{count(facts.groups)} groups"))
        for name, facts in origin.data.items()
        if len(origin.data) > 1
    )
    evaluated = Step(
        f"Evaluated: {split_title(split.name)}", (f"{count(split.images)} images in {count(split.groups)} groups",)
    )
    own = origin.data.get(split.name)
    targets = None if own is None else own.with_targets
    measured = (
        Step("With a label", (count(split.labeled),)),
        Step("With a lung mask", (count(split.with_masks),)),
        Step("Finding marked", (NOT_RECORDED if targets is None else count(targets),)),
    )
    place = list(origin.data).index(split.name) if split.name in origin.data else 0
    return Flow(found, Step("Left out", tuple(_exclusions(origin))), partitions, evaluated, measured, place)


def _exclusions(origin: Provenance) -> Iterator[str]:
    yield from _named(origin.left_out)
    if origin.other_classes is None:
        yield f"other classes: {NOT_RECORDED}"
    else:
        yield from _named({f"class {name}": n for name, n in origin.other_classes.items()})
    yield from _named({split_title(name): n for name, n in (origin.other_splits or {}).items()})
    if not origin.left_out and origin.other_classes == {} and not origin.other_splits:
        yield "none"
    if origin.unused_masks is None:
        yield f"masks not used: {NOT_RECORDED}"
    elif origin.unused_masks:
        yield f"masks not used: {sum(origin.unused_masks.values()):,}"


def _named(counts: Mapping[str, int]) -> Iterator[str]:
    for name, n in counts.items():
        yield f"{words(name)}: {n:,}"


def _title(split: str) -> str:
    return {"train": "Training", "val": "Validation", "test": "Test"}.get(split, split)


def flow_svg(flow: Flow) -> str:
    """Return the diagram as an SVG element that takes its colors from the page and fits the width of a phone."""
    full, left, right = _WIDTH - 2 * _SIDE, 170, 190
    parts: list[str] = []
    excluded = Step(flow.excluded.title, tuple(_wrapped(flow.excluded.lines, right)))
    middle = _SIDE + left / 2
    bottom = _draw(parts, flow.found, _SIDE, _SIDE, left)
    top = bottom + _GAP
    end = _draw(parts, excluded, _WIDTH - _SIDE - right, top, right)
    branch = top + (end - top) / 2
    parts.append(_line(middle, branch, _WIDTH - _SIDE - right, branch))
    start, y, across = bottom, end + _GAP, middle
    if flow.partitions:
        centers = _centers(len(flow.partitions), full)
        parts += _fan(middle, start, centers, y)
        start, across = _row(parts, flow.partitions, y, full), centers[flow.place]
        y = start + _GAP
    parts.append(_line(across, start, across, y))
    bottom = _draw(parts, flow.evaluated, _SIDE, y, full)
    centers = _centers(len(flow.measured), full)
    parts += _fan(_WIDTH / 2, bottom, centers, bottom + _GAP)
    height = _row(parts, flow.measured, bottom + _GAP, full) + _SIDE
    steps = [flow.found, flow.excluded, *flow.partitions, flow.evaluated, *flow.measured]
    label = "; ".join(f"{step.title}: {', '.join(step.lines)}" for step in steps)
    head = f'<svg class="flow" viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
    return "\n".join([head, *parts, "</svg>"])


def _centers(count: int, width: float) -> list[float]:
    """Return the middle of each box of a row."""
    each = (width - (count - 1) * _SIDE) / count
    return [_SIDE + place * (each + _SIDE) + each / 2 for place in range(count)]


def _fan(x: float, top: float, centers: Sequence[float], bottom: float) -> Iterator[str]:
    """Yield a line down from (x, top) that branches to an arrow at each of the centers."""
    branch = bottom - _GAP / 2
    ends = (min(x, *centers), max(x, *centers))
    yield f'<path d="M{x:g} {top:g}L{x:g} {branch:g}M{ends[0]:g} {branch:g}L{ends[1]:g} {branch:g}"/>'
    for center in centers:
        yield _line(center, branch, center, bottom)


def _row(parts: list[str], steps: Sequence[Step], y: float, width: float) -> float:
    """Draw boxes side by side and return the lower end of the longest."""
    each = (width - (len(steps) - 1) * _SIDE) / len(steps)
    return max(_draw(parts, step, _SIDE + place * (each + _SIDE), y, each) for place, step in enumerate(steps))


def _draw(parts: list[str], step: Step, x: float, y: float, width: float) -> float:
    """Draw a box and return its lower end."""
    height = (1 + len(step.lines)) * _LINE + 2 * _PADDING
    parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>')
    for place, line in enumerate((step.title, *step.lines)):
        style = "" if place else ' class="title"'
        parts.append(
            f'<text x="{x + _PADDING:g}" y="{y + _PADDING + (place + 0.75) * _LINE:g}"{style}>{escape(line)}</text>'
        )
    return y + height


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    tip = (
        f'<path d="M{x2 - 4:g} {y2 - 5:g}L{x2:g} {y2:g}L{x2 + 4:g} {y2 - 5:g}"/>'
        if x1 == x2
        else f'<path d="M{x2 - 5:g} {y2 - 4:g}L{x2:g} {y2:g}L{x2 - 5:g} {y2 + 4:g}"/>'
    )
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>{tip}'


def _wrapped(lines: Sequence[str], width: float) -> Iterator[str]:
    for line in lines:
        yield from textwrap.wrap(line, int((width - 2 * _PADDING) / _CHARACTER))
