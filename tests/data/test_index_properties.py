"""An index is the same after it is written and read, whatever its files, classes and columns are called."""

from __future__ import annotations

from pathlib import Path

import odd_text
from hypothesis import given
from hypothesis import strategies as st
from image_writing import encode, gray
from PIL import Image

from hilum.data.index import Index, build_index, load_index, save_index
from hilum.data.table import COLUMNS, SECOND_READER, read_table
from hilum.types import SPLIT_NAMES, Record, class_names_of

_OWN = {*COLUMNS, *SECOND_READER}
_file = odd_text.text.map(lambda text: text.replace("/", "_").encode()[:80].decode(errors="ignore")).filter(
    lambda text: text not in ("", ".", "..")
)
_column = odd_text.name.map(str.lower).filter(lambda text: text not in _OWN and text == text.strip().lower())
_fraction = st.floats(0.01, 0.4)


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    files = draw(st.lists(_file, min_size=1, max_size=6, unique=True))
    columns = draw(st.lists(_column, max_size=3, unique=True))
    optional = st.none() | odd_text.name
    found = []
    for file in files:
        values = [(column, draw(odd_text.plain)) for column in columns]
        boxes = draw(st.lists(st.tuples(_fraction, _fraction, _fraction, _fraction), max_size=2))
        found.append(Record(
            Path(file), label=draw(optional), group=draw(optional), source=draw(optional), boxes=tuple(boxes),
            split=draw(st.sampled_from([None, *SPLIT_NAMES])), second_label=draw(optional),
            columns=tuple((name, value) for name, value in values if value),
        ))  # fmt: skip
    return found


@given(records())
def test_a_written_index_is_read_as_it_was(tmp_path: Path, found: list[Record]) -> None:
    folder = tmp_path.resolve()
    placed = [Record(**{**vars(record), "image_path": folder / record.image_path}) for record in found]
    index = Index(tuple(placed), class_names_of(placed), (), folder, {})
    save_index(index, folder / "an index.csv")
    read = read_table(folder / "an index.csv")
    for record, expected in zip(read, placed, strict=True):
        assert sorted(record.columns) == sorted(expected.columns)
        assert {**vars(record), "columns": ()} == {**vars(expected), "columns": ()}


@given(st.lists(_file, min_size=2, max_size=4, unique=True), odd_text.name)
def test_a_saved_index_has_the_same_digest(tmp_path: Path, files: list[str], label: str) -> None:
    folder = tmp_path.resolve() / "images"
    folder.mkdir(exist_ok=True)
    placed = [Record(folder / file, label=label, group=label) for file in files]
    for record in placed:
        record.image_path.write_bytes(b"-")
    index = Index(tuple(placed), (label,), (), folder, {})
    save_index(index, tmp_path / "index.csv")
    assert load_index(tmp_path / "index.csv").digest == index.digest


def test_white_space_around_the_names_of_folders_and_files(tmp_path: Path) -> None:
    for label in ("A", " B "):
        (tmp_path / "data" / label).mkdir(parents=True)
        for name in (" a.png", "b.png"):
            (tmp_path / "data" / label / name).write_bytes(encode(Image.fromarray(gray())))
    index = build_index(tmp_path / "data", check=False)
    assert index.class_names == ("A", "B")
    for place in (tmp_path / "index.csv", tmp_path / "data" / "A" / "index.csv"):
        save_index(index, place)
        assert load_index(place).records == index.records
        assert load_index(place).digest == index.digest
