"""benchmarks/kill.py, small: attempts without a finding, and findings where something is broken on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BROKEN = """
import sys
sys.path.insert(0, {benchmarks!r})
sys.argv[0] = "kill.py"
import kill
from killing import cases, work

def files_checked():
    "Nothing that killed processes left is removed, or a file depends on what was done before."
    from contextlib import contextmanager
    from hilum import storage
    if {what!r} == "stray":
        storage._remove_stray = lambda folder: None
    else:
        storage.write_bytes = write
    checked()

def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content + bytes([len(work.read(LOG()))]))

def LOG():
    import os, pathlib
    return pathlib.Path(os.environ["HILUM_KILL_LOG"])

checked, work.files_checked = work.files_checked, files_checked
kill.main()
"""


def hunted(tmp_path: Path, *options: str, code: str = "") -> tuple[int, dict[str, Any]]:
    """Exit code and result of the command."""
    start = ["-c", code] if code else [str(BENCHMARKS / "kill.py")]
    file = tmp_path / "kill.json"
    command = [sys.executable, *start, "--jobs", "1", "--json", str(file), *options]
    ended = subprocess.run(command, timeout=300, check=False, capture_output=True, text=True)
    assert file.exists(), ended.stderr
    return ended.returncode, json.loads(file.read_text())


def test_no_finding(tmp_path: Path) -> None:
    code, result = hunted(tmp_path, "--cases", "index", "cache", "--count", "10")
    assert result["findings"] == []
    assert code == 0
    assert {row["command"] for row in result["commands"]} == {"index", "cache"}
    assert result["kills"] >= 2
    assert result["command"] == "python benchmarks/kill.py --count 10 --cases index cache --jobs 1"


@pytest.mark.parametrize(
    ("what", "said"), [("stray", "stray: out/.hilum-"), ("not the same", "differs: out/index.csv")]
)
def test_findings(tmp_path: Path, what: str, said: str) -> None:
    broken = BROKEN.format(benchmarks=str(BENCHMARKS), what=what)
    code, result = hunted(tmp_path, "--cases", "index", "--count", "6", code=broken)
    assert code == 1
    assert any(found.startswith(said) for one in result["findings"] for found in one["findings"]), result


@pytest.fixture
def work(benchmark: Any) -> ModuleType:
    benchmark("kill")
    module: ModuleType = sys.modules["killing.work"]
    return module


def test_training_that_is_lost_is_the_time_of_the_batches_done_again(work: ModuleType) -> None:
    def line(seconds: float, kind: str, name: str = "") -> Any:
        return work.Line(seconds, kind, name)

    first = [line(0, "start"), line(1, "batches", "1 2"), line(2, "batches", "1 1"), line(4, "batches", "1 0")]
    again = [line(9, "start"), line(10, "batches", "1 0"), line(11, "batches", "2 2")]
    assert work.lost_seconds([*first, *again]) == [2.0]
    assert work.lost_seconds([*first, line(9, "start"), line(10, "batches", "1 2")]) == [4.0]
    assert work.lost_seconds([*first, line(9, "start"), line(10, "batches", "2 2")]) == [0.0]
    assert work.repeated([*first, *again]) == {"batches": 1}
    assert work.longest_step([*first, *again]) == 2.0
