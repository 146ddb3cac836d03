"""The flow diagram: every count is one of the report's, and what the report does not hold is not recorded."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from report_writing import made_up_scores, provenance, report_of

from hilum.evaluation.flow import Flow, flow_of, flow_svg
from hilum.evaluation.report import Provenance, SplitFacts
from hilum.evaluation.subgroups import NOT_RECORDED


def flow(origin: Provenance) -> Flow:
    found = flow_of(report_of(made_up_scores(), provenance=origin))
    assert found is not None
    return found


def test_a_run_is_followed_from_its_files_to_its_test_split() -> None:
    found = flow(provenance(other_classes={"Other": 9}, unused_masks={"empty_mask": 2}))
    assert found.found.lines == (f"{600 + 130 + 120 + 4 + 9}",)
    assert found.excluded.lines == ("unreadable: 4", "class Other: 9", "masks not used: 2")
    assert [(step.title, step.lines[0]) for step in found.partitions] == [
        ("Training", "600 images"), ("Validation", "130 images"), ("Test", "120 images"),
    ]  # fmt: skip
    assert "120 images in 60 groups" in found.evaluated.lines
    assert [step.lines for step in found.measured] == [("117",), ("60",), (NOT_RECORDED,)]


def test_what_a_bundle_does_not_measure_is_left_out() -> None:
    facts = SplitFacts(images=120, groups=60, labeled=117, with_masks=60, with_targets=7)
    origin = Provenance(data={"test": facts}, other_classes={}, other_splits={"train": 50}, unused_masks={})
    found = flow(origin)
    assert found.found.lines == ("170",)
    assert found.excluded.lines == ("train split: 50",)
    assert not found.partitions
    assert found.measured[2].lines == ("7",)


def test_an_older_report_says_what_it_does_not_know() -> None:
    found = flow(provenance())
    assert found.found.lines == ("at least 854",)
    assert found.excluded.lines == (
        "unreadable: 4",
        f"other classes: {NOT_RECORDED}",
        f"masks not used: {NOT_RECORDED}",
    )
    assert flow_of(report_of(made_up_scores())) is None  # another tool's table


def test_the_drawing_has_every_count_inside_its_bounds() -> None:
    left_out = {f"check_<{n}>_with_a_name_that_is_longer_than_its_box": n for n in range(1, 5)}
    svg = flow_svg(flow(provenance(left_out=left_out, other_classes={}, unused_masks={})))
    root = ElementTree.fromstring(svg)
    width, height = (float(side) for side in root.attrib["viewBox"].split()[2:])
    boxes = [{name: float(value) for name, value in box.attrib.items()} for box in root.iter("rect")]
    assert len(boxes) == 2 + 3 + 1 + 3
    for box in boxes:
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
        assert 0 <= box["y"] <= box["y"] + box["height"] <= height
    texts = [text.text or "" for text in root.iter("text")]
    assert {"600 images", "130 images", "120 images"} <= set(texts)
    assert max(map(len, texts)) <= 29  # characters of the box on the right
    assert root.attrib["role"] == "img"
    assert re.search(r"Training: 600 images", root.attrib["aria-label"])
