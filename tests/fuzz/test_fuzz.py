"""The fuzzer finds what is planted, makes it small and runs it again; and a short run of all targets finds nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fuzz_case import examine
from fuzz_mutate import MOST_BYTES, mutate
from fuzz_targets import MODULES, PLANTED, make

FUZZ = Path(__file__).with_name("fuzz.py")
_SOURCE = FUZZ.parents[2] / "src"


def fuzz(*arguments: object, code: int = 0) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_SOURCE), *filter(None, sys.path)])}
    command = [sys.executable, str(FUZZ), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def run(out: Path, *targets: str, cases: int, code: int = 0, engine: str = "mutate") -> dict[str, Any]:
    chosen = [word for name in targets for word in ("--target", name)]
    fuzz("run", "--cases", cases, "--engine", engine, "--out", out, "--hang-seconds", 4, *chosen, code=code)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of forms that are damaged
@pytest.mark.parametrize("name", MODULES)
def test_target(name: str) -> None:
    """A few seeds, and mutations of them, get an answer; in this process, since each start costs seconds."""
    target, source = make(name), random.Random(name)
    contents = source.sample(target.seeds, min(5, len(target.seeds)))
    contents += [mutate(source.choice(target.seeds), source, target.seeds) for _ in range(20)]
    findings = [examine(target, content).finding for content in contents]
    assert [finding for finding in findings if finding and finding.kind == "exception"] == []
    assert any(not examine(target, seed).is_error for seed in target.seeds), "no seed is valid"


def test_exceptions_and_crashes_are_found_made_small_and_run_again(tmp_path: Path) -> None:
    summary = run(tmp_path, "sound", "exception", "crash", cases=30, code=1)
    kinds = {tuple(name.split("-")[:2]) for name in summary["findings"]}
    assert kinds == {("exception", "exception"), ("crash", "crash")}
    assert summary["targets"]["sound"]["restarts"] == 0
    assert summary["targets"]["crash"]["restarts"] >= 1
    assert [(tmp_path / "findings" / name).read_bytes() for name in summary["findings"]] == [b"!", b"!"]
    said = fuzz("replay", tmp_path / "findings", code=1)
    assert "KeyError" in said
    harmless = tmp_path / "exception-exception-0"
    harmless.write_bytes(b"fine")
    fuzz("replay", harmless)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "kind"), [("slow", "time"), ("memory", "memory"), ("hang", "hang")])
def test_time_and_memory_are_bounded(target: str, kind: str, tmp_path: Path) -> None:
    summary = run(tmp_path, target, cases=1, code=1)
    assert [name.split("-")[1] for name in summary["findings"]] == [kind]


def test_a_target_that_cannot_run_is_no_success(tmp_path: Path) -> None:
    fuzz("run", "--cases", 1, "--out", tmp_path, "--target", "broken", code=2)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="no atheris: make fuzz installs it")
def test_atheris_finds_the_same(tmp_path: Path) -> None:
    summary = run(tmp_path, "sound", "exception", "crash", cases=200, code=1, engine="atheris")
    assert {name.split("-")[0] for name in summary["findings"]} == {"exception", "crash"}


def test_mutations_follow_from_the_seed_and_are_bounded() -> None:
    def made(seed: int) -> list[bytes]:
        source, contents = random.Random(seed), [b"123,456\n" * 20, bytes(range(256)), b""]
        for _ in range(500):
            contents.append(mutate(source.choice(contents), source, contents))
        return contents

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len({*made(1)}) > 400
    assert max(map(len, made(1))) <= MOST_BYTES


def test_planted_targets_are_not_among_the_real_ones() -> None:
    assert not {*PLANTED} & {*MODULES}
