"""Mutate what hilum reads from strangers, and find crashes, hangs, memory and exceptions that are not its own.

``run`` gives each target an equal share of the time, in one process at a time, which this one watches: a process that
crashes or hangs is replaced, and the case that it wrote before is kept. Findings are made smaller and kept in a folder;
``replay`` runs them again. The exit status is 1 if there is a finding, and 2 if a target could not be run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from fuzz_targets import MODULES, PLANTED
from fuzz_worker import HEADER, ROOM, Options, keep

BUILD = Path(__file__).resolve().parents[2] / "build" / "fuzz"
STUCK_SECONDS = 300.0
"""Time by the clock after which a case that waits counts as a hang; a busy machine must not reach it."""
START_SECONDS = 600.0
"""Time until the first case, in which the libraries are imported."""

_WORKER = Path(__file__).resolve().with_name("fuzz_worker.py")
_MOST_RESTARTS = 20
_MINIMIZED = ("exception", "crash", "memory")  # the others take seconds for each trial
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_FAULT = re.compile(r'File "([^"]+)", line \d+ in (\S+)')


class Work(NamedTuple):
    """Settings of a run."""

    engine: str
    seed: int
    seconds: float  # of each target
    cases: int  # of each target; 0: as many as the time allows
    out: Path
    hang_seconds: float


class Count(NamedTuple):
    """Result of a target."""

    cases: int
    seconds: float
    restarts: int


def run_target(name: str, work: Work) -> Count:
    """Run the cases of a target, in a new process after each crash and hang."""
    started, cases, restarts = time.monotonic(), 0, 0
    while True:
        left = work.seconds - (time.monotonic() - started) if work.seconds else 0.0
        if (work.seconds and left <= 0) or (work.cases and cases >= work.cases) or restarts > _MOST_RESTARTS:
            return Count(cases, time.monotonic() - started, restarts)
        options = Options(
            work.engine, name, findings=str(work.out / "findings"), corpus=str(work.out / "corpus" / name),
            seed=work.seed + 1_000 * restarts, cases=work.cases and work.cases - cases, seconds=left,
        )  # fmt: skip
        done, died = _run_worker(options, work.hang_seconds)
        cases += done
        if not died:
            return Count(cases, time.monotonic() - started, restarts)
        restarts += 1


def _run_worker(options: Options, hang_seconds: float) -> tuple[int, bool]:
    """Run one process until it ends; return its cases, and whether it crashed or hung."""
    with tempfile.TemporaryDirectory(prefix="hilum-fuzz-") as folder, tempfile.TemporaryFile("w+") as log:
        path = Path(folder) / "current"
        path.write_bytes(bytes(HEADER.size + ROOM))
        with path.open("r+b") as stream, mmap.mmap(stream.fileno(), HEADER.size + ROOM) as shared:
            process = _start(options._replace(shared=str(path)), folder, log)
            hung = _watch(process, shared, hang_seconds)
            cases, running, _, length = HEADER.unpack_from(shared)
            content = bytes(shared[HEADER.size : HEADER.size + length])
        log.seek(0)
        said = log.read()[-20_000:]
    if process.returncode == 0:
        return cases, False
    if not running:
        print(said[-2_000:], file=sys.stderr)
        raise SystemExit(2)
    kind = "hang" if hung else "crash"
    places = _FAULT.findall(said)
    place = " ".join(f"{Path(file).name}:{function}" for file, function in places[:1]) or f"exit {process.returncode}"
    from fuzz_case import Finding

    finding = Finding(kind, place)
    keep(Path(options.findings) / finding.name(options.target), content, f"{place}\n{said}")
    return cases, True


def _start(options: Options, folder: str, log: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(_WORKER), json.dumps(options._asdict())]
    environment = os.environ | {"TMPDIR": folder, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _watch(process: subprocess.Popen[bytes], shared: mmap.mmap, hang_seconds: float) -> bool:
    """Wait for a process; return whether it was killed because a case took too long."""
    last, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        case, running, began, _ = HEADER.unpack_from(shared)
        if is_new := case != last:  # then it may be half written
            last, since = case, time.monotonic()
        waited = time.monotonic() - since
        busy = running and not is_new and _processor_seconds(process.pid) - began > hang_seconds
        if busy or waited > (STUCK_SECONDS if case else START_SECONDS):
            process.send_signal(signal.SIGUSR1)  # faulthandler writes where it is
            time.sleep(0.5)
            process.kill()
            process.wait()
            return True
    return False


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS  # proc(5): utime and stime


def target_of(case: Path) -> str:
    """Return the target whose name begins the name of a case."""
    return max((name for name in (*MODULES, *PLANTED) if case.name.startswith(f"{name}-")), key=len)


def cases_in(folder: Path) -> list[Path]:
    """Return the kept cases of a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix != ".txt")


def run(work: Work, names: list[str]) -> int:
    """Run targets, make their findings smaller, print a summary and return the exit status."""
    findings = work.out / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    before = {path: path.read_bytes() for path in cases_in(findings)}
    counts = {}
    for name in names:
        counts[name] = run_target(name, work)
        print(f"{name:<17} {counts[name].cases:>9,} cases {counts[name].seconds:>7.0f} s", flush=True)
    found = [path for path in cases_in(findings) if before.get(path) != path.read_bytes()]
    for path in found:
        if path.name.removeprefix(f"{target_of(path)}-").startswith(_MINIMIZED):
            _call("minimize", path)
    total, seconds = sum(count.cases for count in counts.values()), sum(count.seconds for count in counts.values())
    print(f"{work.engine}: {total:,} cases in {seconds:,.0f} s ({3600 * total / max(seconds, 1e-9):,.0f} per hour), "
          f"{len(found)} findings")  # fmt: skip
    for path in found:
        place = path.with_name(f"{path.name}.txt").read_text(encoding="utf-8").partition("\n")[0]
        print(f"  {path} ({path.stat().st_size:,} bytes): {place}")
    if found:
        print(f"Run them again: {sys.executable} {Path(__file__)} replay {findings}")
    summary = {"engine": work.engine, "seed": work.seed, "findings": [path.name for path in found]}
    summary["targets"] = {name: count._asdict() for name, count in counts.items()}
    (work.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return 1 if found else 0


def replay(paths: list[Path]) -> int:
    """Run kept cases again, print what is found and return the exit status."""
    status = 0
    for path in [case for given in paths for case in (cases_in(given) if given.is_dir() else [given])]:
        code = _call("replay", path)
        print(f"{path.name}: {'nothing' if code == 0 else 'found' if code == 1 else f'exit {code}'}", flush=True)
        status = status or int(code != 0)
    return status


def _call(what: str, path: Path) -> int:
    """Return the exit status of a process that works on one case; 124 if it takes too long."""
    options = Options(what, target_of(path), case=str(path))
    with tempfile.TemporaryDirectory(prefix="hilum-fuzz-") as folder:
        process = _start(options, folder, None)
        try:
            return process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return 124


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="Mutate.")
    runner.add_argument("--seconds", type=float, default=3600.0, help="Time of all targets together.")
    runner.add_argument("--cases", type=int, default=0, help="Number of cases of each target; overrides --seconds.")
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--engine", choices=("auto", "atheris", "mutate"), default="auto")
    runner.add_argument(
        "--target",
        action="append",
        choices=[*MODULES, *PLANTED],
        help="Repeatable; all but those with planted faults by default.",
    )
    runner.add_argument("--out", type=Path, default=BUILD, help="Folder of findings, corpus and summary.json.")
    runner.add_argument(
        "--hang-seconds", type=float, default=20.0, help="Processor time after which a case counts as a hang."
    )
    player = commands.add_parser("replay", help="Run kept cases again.")
    player.add_argument("paths", type=Path, nargs="+", help="Cases, or folders of cases.")
    options = parser.parse_args()
    if options.command == "replay":
        return replay(options.paths)
    names = options.target or [*MODULES]
    has_atheris = importlib.util.find_spec("atheris") is not None
    engine = ("atheris" if has_atheris else "mutate") if options.engine == "auto" else options.engine
    seconds = 0.0 if options.cases else options.seconds / len(names)
    return run(Work(engine, options.seed, seconds, options.cases, options.out.resolve(), options.hang_seconds), names)


if __name__ == "__main__":
    sys.exit(main())
