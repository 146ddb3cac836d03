"""Properties of any split: whole, without crossing groups, and a function of records and seed alone."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import odd_text
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.config import SplitConfig
from hilum.data.index import Index
from hilum.data.split import check_split, load_split, make_split, records_of, save_split
from hilum.errors import SplitError
from hilum.types import SPLIT_NAMES, Record, class_names_of

_ROOT = Path("/data")


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """Groups of one to four images, and images without a group, of one to three classes."""
    classes = draw(st.lists(odd_text.name, min_size=1, max_size=3, unique=True))
    groups = draw(st.lists(st.tuples(
        st.sampled_from([*classes, *classes, None]), st.booleans(), st.integers(1, 4),
        st.sampled_from([None, "s", "t"]),
    ), min_size=3, max_size=25))  # fmt: skip
    found = []
    for number, (label, is_grouped, images, source) in enumerate(groups):
        group = f"g{number}" if is_grouped else None
        found += [Record(_ROOT / f"{number}-{n}.png", label=label, group=group, source=source) for n in range(images)]
    return found


def index_of(found: list[Record]) -> Index:
    return Index(tuple(found), class_names_of(found), (), _ROOT, {})


@settings(max_examples=20)
@given(
    records(), st.randoms(use_true_random=False), st.integers(0, 3),
    st.sampled_from([(0.15, 0.15), (0.1, 0.3), (0.3, 0.05)]),
)  # fmt: skip
def test_a_drawn_split(found: list[Record], random: object, seed: int, fractions: tuple[float, float]) -> None:
    config = SplitConfig(val_fraction=fractions[0], test_fraction=fractions[1], seed=seed)
    index = index_of(found)
    try:
        split = make_split(index, config)
    except SplitError:
        units = defaultdict(set)
        for record in found:
            units[record.label].add(record.group or record.image_path)
        assert min(len(units[label]) for label in index.class_names or (None,)) < 3
        return
    assert split.assignment.keys() == {index.key(record) for record in found}
    parts = [records_of(index, split, name) for name in SPLIT_NAMES]
    assert sum(map(len, parts)) == len(found)
    groups = [{record.group for record in part} - {None} for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert all(class_names_of(part) == index.class_names for part in parts)
    shuffled = [*found]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert make_split(index_of(shuffled), config) == split
    check_split(index, split)


@given(records(), st.data())
def test_a_given_split_is_kept_or_refused(tmp_path: Path, found: list[Record], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(SPLIT_NAMES), min_size=len(found), max_size=len(found)))
    if data.draw(st.booleans(), "groups are whole"):
        of_group = dict(zip([record.group for record in found], names, strict=True))
        names = [of_group[record.group] if record.group else name for record, name in zip(found, names, strict=True)]
    assigned = [Record(**{**vars(record), "split": name}) for record, name in zip(found, names, strict=True)]
    index = index_of(assigned)
    places = defaultdict(set)
    for record in assigned:
        if record.group:
            places[record.group].add(record.split)
    crosses = any(len(place) > 1 for place in places.values())
    lacks = any({r.split for r in assigned if r.label == label} != {*SPLIT_NAMES} for label in index.class_names)
    try:
        split = make_split(index, SplitConfig())
    except SplitError:
        assert crosses or lacks or not index.class_names
        return
    assert not crosses
    assert not lacks
    assert [split.assignment[index.key(record)] for record in assigned] == names
    save_split(split, tmp_path / "split.json")
    assert load_split(tmp_path / "split.json") == split
