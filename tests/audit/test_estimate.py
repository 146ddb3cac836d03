"""The estimate: what is to be done is counted, and a larger audit is estimated to take longer."""

from __future__ import annotations

from pathlib import Path

import cv2

from hilum.audit.estimate import Workload, estimate_seconds, workload
from hilum.audit.probes import MAX_IMAGES
from hilum.audit.robustness import CHANGES, LEVELS
from hilum.audit.treatments import TREATMENTS
from hilum.phantoms.chest import draw_phantom
from hilum.types import Record


def _records(counts: dict[str, int], sources: tuple[str, ...] = ("a",)) -> list[Record]:
    labels = [label for label, n in counts.items() for _ in range(n)]
    return [
        Record(Path(f"{row}.png"), label=label, source=sources[row % len(sources)]) for row, label in enumerate(labels)
    ]


def test_the_work_is_counted() -> None:
    work = workload(_records({"A": 30, "B": 20, "C": 10}, ("x", "y")), measured=50, limit=40, permutations=199)
    assert work.contrasts == (50, 40, 30, 60, 60, 60)
    assert work.probes == 6
    assert work.passes == 50 * len(TREATMENTS) + 40 * (1 + LEVELS * len(CHANGES))


def test_two_classes_have_one_comparison_and_large_ones_are_drawn() -> None:
    work = workload(_records({"A": MAX_IMAGES, "B": 5}), measured=0, limit=500, permutations=199)
    assert work.contrasts == (MAX_IMAGES,)
    assert work.probes == 5
    assert work.passes == 0
    assert workload(_records({"A": 5}), measured=0, limit=500, permutations=199).contrasts == ()


def test_more_work_takes_longer(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), draw_phantom(0, "COVID", size=64).image)
    records = [Record(tmp_path / "0.png", label="COVID")]
    small, large = (estimate_seconds(Workload(n, (n, n), 5, 0, 0, 99), records, ["0.png"]) for n in (100, 100_000))
    assert small is not None
    assert large is not None
    assert 0 < 20 * small < large


def test_nothing_is_estimated_of_images_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_text("no image")
    work = Workload(1, (), 5, 0, 0, 99)
    assert estimate_seconds(work, [Record(tmp_path / "0.png")], ["0.png"]) is None
