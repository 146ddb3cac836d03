"""The hostile cases are many, have names of their own, and their bounds can be missed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import hostile_case
import numpy as np
import pytest
from hostile_answers import ANSWERS
from hostile_bundles import BUNDLES, WEIGHT_FILES
from hostile_case import BYTES, bounded, measured
from hostile_dicom import DICOM, HEADERS
from hostile_images import IMAGES
from hostile_tables import TABLES


def test_there_are_many_with_names_of_their_own() -> None:
    kinds = [ANSWERS, BUNDLES, DICOM, HEADERS, IMAGES, TABLES, WEIGHT_FILES]
    assert sum(map(len, kinds)) >= 280
    for cases in kinds:
        assert max(Counter(case.name for case in cases).values()) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured on Linux")
def test_memory_beyond_the_bound_is_seen() -> None:
    with measured() as used:
        np.ones(BYTES + 50_000_000, np.uint8)
    assert used[0].bytes is not None
    assert used[0].bytes > BYTES
    with pytest.raises(AssertionError), bounded():
        np.ones(BYTES + 50_000_000, np.uint8)


def test_time_beyond_the_bound_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_case, "HANG_SECONDS", 0.01)
    with pytest.raises(AssertionError), bounded():
        np.sort(np.random.default_rng(0).random(5_000_000))
