"""Writing that is atomic: what was there stays until the new is complete, and nothing temporary is left."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hilum import storage
from hilum.errors import OutputError
from hilum.storage import (
    TEMPORARY_NAME,
    CsvWriter,
    atomic_path,
    csv_cell,
    csv_text,
    sha256_bytes,
    sha256_file,
    sha256_text,
    temporary_folder,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_killed_processes_left_is_removed_by_the_first_write_an_hour_later(tmp_path: Path) -> None:
    old, other, young = (f".hilum-{digit * 16}{suffix}" for digit, suffix in (("a", ".png"), ("b", ""), ("c", ".png")))
    kept = (young, ".hilum-notes", ".hilum-aaaaaaaaaaaaaaaag", "hilum-aaaaaaaaaaaaaaaa")
    for name in (old, other, *kept):
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, (0, 0) if name != young else None)
    write_bytes(tmp_path / "image.png", b"2")
    assert names_in(tmp_path) == sorted([*kept, "image.png"])


def test_writes_and_makes_the_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "image.bin"
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names_in(path.parent) == ["image.bin"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_is_heeded(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "image.bin", b"a")
        write_bytes(tmp_path / "image.bin", b"b")
    finally:
        os.umask(before)
    assert (tmp_path / "image.bin").stat().st_mode & 0o777 == mode


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
    with pytest.raises(OutputError, match=r"table\.csv.*No space left on device") as caught:
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


HALF = (
    "import os, sys; from pathlib import Path; from hilum.storage import atomic_path, temporary_folder\n"
    "with temporary_folder(Path(sys.argv[1]).parent) as folder, atomic_path(Path(sys.argv[1])) as temporary:\n"
    "    (folder / 'new').mkdir(); (folder / 'new' / 'a').touch()\n"
    "    temporary.write_text('half'); print('written', flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, and no locks of open files")
def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_in_use_is_kept(tmp_path: Path) -> None:
    """Trap: a temporary file of a killed process stayed for an hour, so that a run continued at once kept it."""
    command = [sys.executable, "-c", HALF, str(tmp_path / "table.csv")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == b"written\n"
    storage._remove_stray(tmp_path)
    assert len([name for name in names_in(tmp_path) if TEMPORARY_NAME.fullmatch(name)]) == 2  # in use
    process.stdin.close()
    assert process.wait(timeout=60) == -9
    process.stdout.close()
    assert len(names_in(tmp_path)) == 2
    storage._remove_stray.cache_clear()
    write_text(tmp_path / "table.csv", "whole")
    assert names_in(tmp_path) == ["table.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of open files")
@pytest.mark.parametrize("held", [False, True], ids=["removed", "locked by the process that removes it"])
def test_a_file_that_is_removed_as_stray_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    lock, removed = storage._lock, []

    def too_late(path: Path) -> int | None:
        if removed:
            return lock(path)
        removed.append(path)
        other = lock(path) if held else None
        try:
            if not held:
                path.unlink()
            return lock(path)
        finally:
            if other is not None:
                path.unlink()
                os.close(other)

    monkeypatch.setattr(storage, "_lock", too_late)
    write_text(tmp_path / "a.txt", "whole")
    assert names_in(tmp_path) == ["a.txt"]
    assert len(removed) == 1


def test_without_locks_of_files_a_file_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "fcntl", None)
    write_text(tmp_path / "a.txt", "whole")
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
    assert names_in(tmp_path) == ["a.txt"]


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"a\.txt") as caught:
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


FORMULAS = (
    "=1+1",
    "+A1",
    "-A1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "-1+1",
    "-",
    "+",
    "=",
    "-1-2",
    "\uff1d1",
    "-x.png",
    "-inf",
)
PLAIN = ("", "a", "a=b", "'", "'a", "Röntgen", "-0.5", "+1", "-1e-05", "-.5", "1.2.840", "it's -1")


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_would_evaluate_gets_an_apostrophe(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert csv_cell(Path("=a")) == "'=a"


@pytest.mark.parametrize("value", [*PLAIN, None, -1, -0.5, float("-inf"), np.float32(-0.5), np.int64(-3)])
def test_numbers_and_other_text_stay_as_they_are(value: object) -> None:
    assert csv_cell(value) is value


def test_every_text_reads_back_as_it_was(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    alphabet = "'=+-@\t\r\n,;\" .0123456789eEnaif\uff1dß"
    drawn = ("".join(random.choice([*alphabet], size)) for size in random.integers(0, 6, 5000))
    texts = [*FORMULAS, *PLAIN, *("'" * n + text for n in (1, 2, 3) for text in FORMULAS + PLAIN), *drawn]
    write_csv(tmp_path / "a.csv", texts, [texts])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        header, row = csv.reader(stream)
    assert [csv_text(cell) for cell in header] == [csv_text(cell) for cell in row] == texts
    evaluated = re.compile(r"[=+\-@\t\r\n\uff1d]")
    for cell in filter(evaluated.match, row):
        float(cell)


def test_rows_can_be_written_one_by_one(tmp_path: Path) -> None:
    stream = io.StringIO(newline="")
    writer = CsvWriter(stream)
    writer.write_row(["a", None, -1.5])
    writer.write_rows([["=a", 'b"', ""], []])
    assert stream.getvalue() == 'a,,-1.5\n\'=a,"b""",\n\n'


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "a." + "b" * 253, "ö" * 125 + ".json"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / name, b"x")
    assert names_in(tmp_path) == [name]


def test_hashes_agree(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)  # more than one chunk
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == sha256_bytes(content) == hashlib.sha256(content).hexdigest()
    assert sha256_text("ö") == sha256_bytes("ö".encode())
