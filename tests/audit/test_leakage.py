"""Each leak is found where it is, with its count and records, and nothing is said of clean data."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.audit.duplicates import Pair
from hilum.audit.leakage import leak_findings
from hilum.errors import DataError
from hilum.types import Finding, Record, SplitName

NAMES = tuple("abcdef")


def _records(labels: str = "NNNNNN", groups: str = "123456") -> list[Record]:
    return [
        Record(Path(f"{name}.png"), label=label.strip() or None, group=group.strip() or None)
        for name, label, group in zip(NAMES, labels, groups, strict=True)
    ]


def _splits(letters: str) -> list[SplitName | None]:
    names: dict[str, SplitName | None] = {"t": "train", "v": "val", "e": "test", " ": None}
    return [names[letter] for letter in letters]


def _pairs(*ends: str) -> list[Pair]:
    return [Pair(NAMES.index(end[0]), NAMES.index(end[1]), False, 0.95) for end in ends]


def _found(*arguments: object) -> dict[str, Finding]:
    findings = leak_findings(*arguments)  # type: ignore[arg-type]
    assert len({finding.check for finding in findings}) == len(findings)
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities)  # errors before warnings
    return {finding.check: finding for finding in findings}


def test_clean_data_give_no_finding() -> None:
    assert not _found(_records(groups="112233"), NAMES, [], _splits("ttvvee"))


def test_an_image_in_two_splits_is_an_error_with_its_images() -> None:
    found = _found(_records(groups="112233"), NAMES, _pairs("ac", "ef"), _splits("ttvvee"))
    finding = found["duplicate_across_splits"]
    assert finding.severity == "error"
    assert finding.records == ("a", "c")
    assert "train and val 1" in finding.message
    assert "group_across_splits" not in found


def test_a_chain_of_pairs_is_one_image_and_crosses_by_its_ends() -> None:
    # a-b and b-c are pairs; b has no split, so that only a and c cross.
    finding = _found(_records(), NAMES, _pairs("ab", "bc"), _splits("t ettt"))["duplicate_across_splits"]
    assert finding.records == ("a", "c")


def test_a_group_in_two_splits_is_an_error_without_any_duplicate() -> None:
    found = _found(_records(groups="11 1 5"), NAMES, [], _splits("tteeee"))
    assert list(found) == ["group_across_splits"]
    assert found["group_across_splits"].records == ("a", "b", "d")
    assert found["group_across_splits"].severity == "error"


def test_without_splits_the_split_checks_are_not_run() -> None:
    found = _found(_records(groups="111111"), NAMES, _pairs("ab", "cd", "ce"), [None] * 6)
    assert list(found) == ["duplicate_within_split"]
    assert found["duplicate_within_split"].severity == "warning"
    assert found["duplicate_within_split"].severity == "warning"
    assert found["duplicate_within_split"].records == tuple("abcde")


def test_two_labels_on_one_image_conflict_and_an_unknown_one_does_not() -> None:
    found = _found(_records("NCN NN", "111111"), NAMES, _pairs("ab", "cd", "ef"), [None] * 6)
    assert found["label_conflict"].severity == "error"
    assert found["label_conflict"].records == ("a", "b")
    assert found["label_conflict"].severity == "error"


def test_images_without_a_common_group_are_named() -> None:
    # a, b: two groups; c, d: none; e, f: one.
    finding = _found(_records(groups="12  55"), NAMES, _pairs("ab", "cd", "ef"), [None] * 6)["duplicate_across_groups"]
    assert finding.severity == "warning"
    assert finding.records == tuple("abcd")


def test_duplicates_within_a_split_are_counted_per_split() -> None:
    found = _found(_records(groups="111666"), NAMES, _pairs("ab", "ac", "de", "df"), _splits("ttteet"))
    finding = found["duplicate_within_split"]
    assert "2 in train, 1 in test" in finding.message
    assert finding.records == tuple("abcde")
    assert found["duplicate_across_splits"].records == tuple("def")


def test_only_the_first_are_shown_and_all_are_recorded() -> None:
    names = [f"image-{row:03d}" for row in range(20)]
    records = [Record(Path(name), group="1") for name in names]
    pairs = [Pair(row, row + 1, True, 1.0) for row in range(0, 20, 2)]
    (finding,) = leak_findings(records, names, pairs, [None] * 20)
    assert "10 images" in finding.message
    assert "and 7 more" in finding.message
    assert "image-006" not in finding.message
    assert finding.records == tuple(names)


def test_lengths_must_agree() -> None:
    with pytest.raises(DataError):
        leak_findings(_records(), NAMES[:5], [], [None] * 6)
