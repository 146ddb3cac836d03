"""Splits: stratified, grouped, deterministic, and refused when a group crosses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.config import SplitConfig
from hilum.data.index import Index
from hilum.data.split import Split, _deal, check_split, load_split, make_split, records_of, save_split
from hilum.errors import SplitError
from hilum.types import SPLIT_NAMES, Record, class_names_of

ROOT = Path("/data")
CONFIG = SplitConfig()


def index_of(records: Sequence[Record]) -> Index:
    return Index(tuple(records), class_names_of(records), (), ROOT, {})


def ungrouped(**counts: int) -> list[Record]:
    return [Record(ROOT / label / f"{n:04d}.png", label=label) for label, count in counts.items() for n in range(count)]


def grouped(n_groups: int = 120, seed: int = 0) -> list[Record]:
    """Patients with one to five images, mostly of one class; two sources, one of them in one class only."""
    random = np.random.default_rng(seed)
    records = []
    for group in range(n_groups):
        label = ("COVID", "Normal", "Normal", "Viral")[group % 4]
        source = "north" if label == "COVID" or random.random() < 0.5 else "south"
        for image in range(random.integers(1, 6)):
            path = ROOT / label / f"{group:03d}-{image}.png"
            records.append(Record(path, label=label, group=f"p{group}", source=source))
    return records


def shares(split: Split) -> dict[str, float]:
    sizes = {name: sum(split.counts[name].values()) for name in SPLIT_NAMES}
    return {name: size / len(split.assignment) for name, size in sizes.items()}


def test_the_fractions_hold_in_each_class() -> None:
    split = make_split(index_of(ungrouped(COVID=200, Normal=1000, Viral=60)), CONFIG)
    assert split.origin == "drawn"
    assert split.seed == 42
    for label, total in (("COVID", 200), ("Normal", 1000), ("Viral", 60)):
        assert split.counts["val"][label] == pytest.approx(0.15 * total, abs=1)
        assert split.counts["test"][label] == pytest.approx(0.15 * total, abs=1)


def test_no_group_crosses_and_the_fractions_hold_with_groups() -> None:
    index = index_of(grouped())
    split = make_split(index, CONFIG)
    places: dict[str | None, set[str]] = {}
    for record in index.records:
        places.setdefault(record.group, set()).add(split.assignment[index.key(record)])
    assert all(len(found) == 1 for found in places.values())
    assert shares(split)["val"] == pytest.approx(0.15, abs=0.03)
    assert shares(split)["test"] == pytest.approx(0.15, abs=0.03)
    for name in SPLIT_NAMES:
        assert set(split.counts[name]) == {"COVID", "Normal", "Viral"}


def test_sources_are_spread_as_well() -> None:
    records = [replace(r, source="few" if n % 5 == 0 else "many") for n, r in enumerate(ungrouped(a=400, b=400))]
    index = index_of(records)
    split = make_split(index, CONFIG)
    for name, fraction in (("val", 0.15), ("test", 0.15)):
        few = sum(record.source == "few" for record in records_of(index, split, name))  # type: ignore[arg-type]
        assert few == pytest.approx(fraction * 160, abs=2)


def test_the_order_of_the_records_does_not_matter_but_the_seed_does() -> None:
    records = grouped()
    split = make_split(index_of(records), CONFIG)
    assert make_split(index_of(records[::-1]), CONFIG).digest == split.digest
    assert make_split(index_of(records), SplitConfig(seed=43)).digest != split.digest


@pytest.mark.parametrize("grouping", [False, True])
def test_twelve_images_are_enough(grouping: bool) -> None:
    records = ungrouped(a=4, b=4, c=4)
    if grouping:
        records = [replace(record, group=record.image_path.stem) for record in records]  # a, b and c in each group
    split = make_split(index_of(records), CONFIG)
    for name in SPLIT_NAMES:
        assert set(split.counts[name]) == {"a", "b", "c"}


def test_a_rare_class_reaches_every_split() -> None:
    split = make_split(index_of(ungrouped(common=500, rare=3)), CONFIG)
    assert [split.counts[name]["rare"] for name in SPLIT_NAMES] == [1, 1, 1]
    assert shares(split)["test"] == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.1), (0.2, 0.1), (1 / 3, 1 / 3), (0.05, 0.25)])
def test_other_fractions(val: float, test: float) -> None:
    config = SplitConfig(val_fraction=val, test_fraction=test)
    split = make_split(index_of(ungrouped(a=300, b=150)), config)
    assert shares(split)["val"] == pytest.approx(val, abs=0.02)
    assert shares(split)["test"] == pytest.approx(test, abs=0.02)


def test_too_few_groups_name_the_class_and_the_count() -> None:
    with pytest.raises(SplitError, match="rare 2"):
        make_split(index_of(ungrouped(common=50, rare=2)), CONFIG)
    one_patient = [replace(record, group="p1") for record in ungrouped(a=9)]
    with pytest.raises(SplitError, match="a 1"):
        make_split(index_of(one_patient + ungrouped(b=20)), CONFIG)


def given(*rows: tuple[str, str, str | None]) -> Index:
    return index_of(
        [
            Record(ROOT / f"{n}.png", label=label, group=group, split=split)
            for n, (label, group, split) in enumerate(rows)
        ]  # type: ignore[arg-type]
    )


def test_the_split_of_the_data_is_kept() -> None:
    index = given(("a", "p1", "train"), ("a", "p1", "train"), ("a", "p2", "val"), ("a", "p3", "test"))
    split = make_split(index, CONFIG)
    assert (split.origin, split.seed) == ("given", None)
    assert dict(split.assignment) == {"0.png": "train", "1.png": "train", "2.png": "val", "3.png": "test"}
    assert records_of(index, split, "train") == index.records[:2]


def test_a_given_split_that_leaks_is_refused_with_groups_and_counts() -> None:
    index = given(
        ("a", "p1", "train"), ("a", "p1", "train"), ("a", "p1", "val"), ("a", "p2", "val"), ("a", "p3", "test")
    )
    with pytest.raises(SplitError, match=r"1 groups.*p1: \{'train': 2, 'val': 1\}"):
        make_split(index, CONFIG)


def test_a_split_for_some_records_only_is_refused() -> None:
    with pytest.raises(SplitError, match="1 of 2"):
        make_split(given(("a", "p1", "train"), ("a", "p2", None)), CONFIG)


def test_a_given_split_without_a_class_is_refused() -> None:
    rows = [("a", "p1", "train"), ("a", "p2", "val"), ("a", "p3", "test"), ("b", "p4", "train"), ("b", "p5", "val")]
    with pytest.raises(SplitError, match=r"\bb\b.* in test\b"):
        make_split(given(*rows), CONFIG)


def test_check_split_refuses_stale_and_leaking_splits() -> None:
    records = grouped()
    index = index_of(records)
    split = make_split(index, CONFIG)
    check_split(index, split)
    with pytest.raises(SplitError, match=r", 0 are not in the split, and it names 1 others"):
        check_split(index_of(records[:-1]), split)
    with pytest.raises(SplitError, match=r", 1 are not in the split, and it names 0 others"):
        check_split(index_of([*records, Record(ROOT / "new.png", label="COVID")]), split)
    with pytest.raises(SplitError, match="does not contain"):
        records_of(index_of([Record(ROOT / "new.png")]), split, "train")
    joined = [replace(record, group="all") if record.label == "COVID" else record for record in records]
    with pytest.raises(SplitError, match="all: "):
        check_split(index_of(joined), split)
    with pytest.raises(SplitError, match="digest"):
        check_split(index, replace(split, digest="0" * 64))


def test_saved_and_loaded_the_split_is_the_same(tmp_path: Path) -> None:
    index = index_of(grouped())
    split = make_split(index, CONFIG)
    save_split(split, tmp_path / "split.json")
    assert load_split(tmp_path / "split.json") == split
    content = json.loads((tmp_path / "split.json").read_text())
    assert content["seed"] == 42
    assert content["fractions"] == {"val": 0.15, "test": 0.15}
    assert sum(sum(counts.values()) for counts in content["counts"].values()) == len(index.records)


def test_a_changed_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    save_split(make_split(index_of(grouped()), CONFIG), path)
    content = json.loads(path.read_text())
    key = next(key for key, name in content["assignment"].items() if name == "test")
    content["assignment"][key] = "train"
    path.write_text(json.dumps(content))
    with pytest.raises(SplitError, match="changed"):
        load_split(path)
    for text in ("{", "[]", "{}", '{"format": "hilum-split-0"}'):
        path.write_text(text)
        with pytest.raises(SplitError):
            load_split(path)
    with pytest.raises(SplitError, match="No such file"):
        load_split(tmp_path / "none.json")


def test_folds_of_groups_are_stratified_whatever_the_version_of_scikit_learn() -> None:
    """Before version 1.8, StratifiedGroupKFold with shuffle=True ignores the strata (scikit-learn issue 32478)."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), generator.integers(1, 6, 300))
    strata = generator.choice(3, 300, p=[0.7, 0.2, 0.1])[groups]
    for seed in range(5):
        fold = _deal(strata, groups, 10, seed)
        counts = np.stack([np.bincount(fold[strata == k], minlength=10) for k in range(3)])
        assert np.ptp(counts, axis=1).max() <= 2, counts  # images of a class in a fold
    assert not np.array_equal(_deal(strata, groups, 10, 0), _deal(strata, groups, 10, 1))
