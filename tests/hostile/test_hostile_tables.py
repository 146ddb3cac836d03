"""CSV files that someone could name as a dataset are refused by ``hilum.build_index``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_case import Case, bounded, parametrize
from hostile_tables import TABLES, table

from hilum import build_index
from hilum.errors import HilumError


def test_the_same_table_without_the_hostile_part_is_read(tmp_path: Path) -> None:
    assert len(build_index(table(b"image,label\na.png,x\nb.png,y\n")(tmp_path)).records) == 2


@parametrize(TABLES)
def test_table(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    with bounded(), pytest.raises(HilumError) as caught:
        build_index(path)
    assert type(caught.value).__name__ == case.answer
    assert len(str(caught.value)) < 2_000
