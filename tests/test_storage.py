"""Writing that is atomic: what was there stays until the new is complete, and nothing temporary is left."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hilum import storage
from hilum.errors import OutputError
from hilum.storage import (
    atomic_path,
    sha256_bytes,
    sha256_file,
    sha256_text,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_makes_the_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "film.bin"
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names_in(path.parent) == ["film.bin"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Röntgen\n")
    assert (tmp_path / "a.txt").read_bytes() == "Röntgen\n".encode()


def test_suffix_of_the_temporary_file_is_kept(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "plot.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["table.csv"]


def test_a_full_disk_is_an_output_error_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OutputError, match=r"table\.csv: No space left on device") as caught:
        write_text(path, "new")
    assert "unchanged" in caught.value.hint
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["table.csv"]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")
    code = (
        "import os, sys; from pathlib import Path; from hilum.storage import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.read_text() == "old"


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="writable folder") as caught:
        write_text(tmp_path / "file" / "a.txt", "new")
    assert caught.value.hint
    assert (tmp_path / "file").read_text() == "mine"


def test_a_target_that_is_a_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write_text(tmp_path / "a.txt", "new")
    assert names_in(tmp_path) == ["a.txt"]


def test_a_name_that_is_not_utf_8_is_an_output_error(tmp_path: Path) -> None:
    name = os.fsdecode(b"r\xf6ntgen.png")
    with pytest.raises(OutputError, match="UTF-8") as caught:
        write_csv(tmp_path / "index.csv", ["image"], [[name]])
    assert "Rename" in caught.value.hint
    str(caught.value).encode()  # the message itself can be printed
    assert names_in(tmp_path) == []


def test_json_is_indented_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"auc": 0.5, "name": None})
    assert json.loads(path.read_text()) == {"auc": 0.5, "name": None}
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"auc": float("nan")})
    assert json.loads(path.read_text())["auc"] == 0.5


def test_csv_quotes_and_leaves_none_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [["a,b", 'say "hi"', None], ["two\nlines", "", 0]]
    write_csv(path, ["x", "y", "z"], rows)
    assert b"\r" not in path.read_bytes()
    with path.open(newline="") as stream:
        assert list(csv.reader(stream)) == [["x", "y", "z"], ["a,b", 'say "hi"', ""], ["two\nlines", "", "0"]]


def test_hashes_agree(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)  # more than one chunk
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == sha256_bytes(content) == hashlib.sha256(content).hexdigest()
    assert sha256_text("ö") == sha256_bytes("ö".encode())
