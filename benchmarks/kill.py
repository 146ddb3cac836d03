"""Kill commands at random instants and disturb their disk, run them again, and compare every byte they leave.

    make kill
    python benchmarks/kill.py --seconds 3600 --seed 0 --json benchmarks/results/kill.json
    python benchmarks/kill.py --seed 0 --only 137 --keep build/kill

`hilum index`, `audit`, `predict` (CSV with overlays, masks and evidence; Parquet), `train` with its evaluation and
export, `dicomweb` against an archive on loopback, and the build of the cache of decoded images run on synthetic
radiographs. An attempt is one of

- kills: SIGKILL at a random time, or before, within or after a random operation on the disk, up to three times in a
  row, to the command alone or to its child processes too; then the command runs to its end;
- a fault: from a random operation on, or at one only, the disk is full, read-only or fails (EIO); or it writes only a
  part of what it is given, or is slow. The command must end with exit code 2 and a message, or with the right result;
  then it runs to its end without the fault.

Afterwards its folders, its cache and its folder for temporary files must have the bytes of an uninterrupted run, and no
other files; what is not compared is listed in benchmarks/killing/compare.py. Work done twice is counted. An attempt is
a function of the seed and its number, but for what the clock decides. Faults need Linux and a C compiler. Exit code 1
if there is a finding.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from killing import archive, work
from killing.cases import CHECKPOINT_MINUTES, Case, Inputs, cases, import_all, stored_again
from killing.compare import differences
from killing.processes import PRELOADED, Attempt, Ended, Fault, adopt, preload, run

NAMES = ("index", "cache", "predict, CSV", "predict, Parquet", "audit", "dicomweb", "train")
FAULTS = ("enospc", "eio", "erofs", "short", "slow")
_HARMLESS = ("short", "slow")
_MOST_KILLS = 3
_SLACK_SECONDS = 0.5
"""Added to the interval of the checkpoints, since a batch is not counted while it is logged."""


@dataclass
class Outcome:
    """The result of one attempt.

    Attributes:
        number: Its number.
        case: Name of the command.
        kind: ``kill`` or the kind of fault.
        kills: Number of processes that were killed.
        faults: Number of runs whose disk was disturbed.
        findings: What was wrong.
        repeated: Work done twice, by kind.
        lost: Longest time of training done twice, seconds.
        seconds: Its duration.
    """

    number: int
    case: str
    kind: str
    kills: int = 0
    faults: int = 0
    findings: list[str] = field(default_factory=list)
    repeated: dict[str, int] = field(default_factory=dict)
    lost: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its result, its duration, and its operations on the disk."""

    found: Mapping[str, str]
    seconds: float
    operations: int


class Hunt:
    """Attempts on some cases, in one process.

    Args:
        inputs: The synthetic radiographs, and the address of the archive.
        names: Names of the cases.
        place: Folder for the attempts.
        seed: Of all attempts.
        keep: Folder for what a finding left, or None.
    """

    def __init__(self, inputs: Inputs, names: Sequence[str], place: Path, seed: int, keep: Path | None) -> None:
        self._inputs, self._place, self._seed, self._keep = inputs, place, seed, keep
        self._cases = [case for name, case in cases(inputs).items() if name in names]
        self._wholes: dict[str, Whole] = {}

    def attempt(self, number: int) -> Outcome:
        """Make one attempt."""
        chance = random.Random(f"{self._seed} {number}")
        case = chance.choices(self._cases, [case.weight for case in self._cases])[0]
        fault = chance.choice(FAULTS) if PRELOADED in os.environ and chance.random() < 0.4 else None
        outcome = Outcome(number, case.name, fault or "kill")
        whole = self._wholes[case.name]
        began = time.monotonic()
        attempt = self._begin(case, str(number))
        try:
            for _ in range(chance.randint(1, _MOST_KILLS)) if fault is None else ():
                if not self._kill(case, attempt, whole, chance, outcome):
                    break
            if fault:
                self._disturb(case, attempt, whole, chance, outcome)
            self._finish(case, attempt, whole, chance, outcome)
        finally:
            if outcome.findings and self._keep:
                shutil.copytree(self._place / str(number), self._keep / str(number), dirs_exist_ok=True)
            shutil.rmtree(self._place / str(number), ignore_errors=True)
        outcome.seconds = time.monotonic() - began
        return outcome

    def _begin(self, case: Case, name: str) -> Attempt:
        attempt = Attempt(self._place / name / "place", self._place / name / "beside", {"NO_PROXY": "127.0.0.1"})
        case.prepare(attempt)
        return attempt

    def measure_wholes(self) -> None:
        """Run each case without interruption, and keep what it left in a file."""
        for case in self._cases:
            attempt = self._begin(case, "whole")
            ended = run(attempt, case.arguments(attempt), case.hooks, fault=Fault("count"))
            if ended.code:
                raise RuntimeError(f"The uninterrupted run of {case.name} ended with {ended.code}:\n{ended.said}")
            self._wholes[case.name] = Whole(case.found(attempt), ended.seconds, ended.operations)
            shutil.rmtree(self._place / "whole")
        content = {name: asdict(whole) for name, whole in self._wholes.items()}
        (self._place / "wholes.json").write_text(json.dumps(content), encoding="utf-8")

    def read_wholes(self, place: Path) -> None:
        """Read the uninterrupted runs that another process measured in ``place``."""
        content = json.loads((place / "wholes.json").read_text(encoding="utf-8"))
        self._wholes = {name: Whole(**own) for name, own in content.items()}

    def _again(self, case: Case, attempt: Attempt, chance: random.Random) -> list[str]:
        first = not (attempt.beside / "said").exists()
        return case.arguments(attempt) if first else case.again(attempt, chance)

    def _kill(self, case: Case, attempt: Attempt, whole: Whole, chance: random.Random, outcome: Outcome) -> bool:
        """Run the command and kill it; False where it had ended before."""
        options: dict[str, Any] = {"whole_group": chance.random() < 0.5, "real": _real(case, chance)}
        if PRELOADED in os.environ and chance.random() < 0.6:
            kind = chance.choice(["kill-before", "kill-within", "kill-after"])
            options["fault"] = Fault(kind, chance.randrange(max(1, whole.operations)))
        else:
            options["kill_after"] = chance.random() * whole.seconds + options["real"]
        ended = run(attempt, self._again(case, attempt, chance), case.hooks, **options)
        killed = ended.code == -9
        outcome.kills += killed
        if ended.orphans:
            outcome.findings.append("a process outlived the killed one by 10 s")
        if not killed and ended.code:
            outcome.findings.append(f"exit code {ended.code} of a run that was not killed: {_end(ended)}")
        return killed

    def _disturb(self, case: Case, attempt: Attempt, whole: Whole, chance: random.Random, outcome: Outcome) -> None:
        """Run the command on a disturbed disk."""
        kind = outcome.kind
        number = 0 if chance.random() < 0.15 else chance.randrange(max(1, whole.operations))
        fault = Fault(kind, number, kind not in _HARMLESS and chance.random() < 0.4)
        ended = run(attempt, case.arguments(attempt), case.hooks, fault=fault, real=_real(case, chance))
        outcome.kind = str(fault)
        outcome.faults += ended.disturbed > 0
        if ended.orphans:
            outcome.findings.append("a process outlived the command by 10 s")
        if "Traceback" in ended.said:
            outcome.findings.append(f"traceback: {_end(ended)}")
        elif ended.code != 0 and (kind in _HARMLESS or ended.code != 2 or "Error:" not in ended.said):
            outcome.findings.append(f"exit code {ended.code}: {_end(ended)}")

    def _finish(self, case: Case, attempt: Attempt, whole: Whole, chance: random.Random, outcome: Outcome) -> None:
        """Run the command to its end and compare what it leaves."""
        ended = run(attempt, self._again(case, attempt, chance), case.hooks)
        if ended.code:
            outcome.findings.append(f"exit code {ended.code} of the last run: {_end(ended)}")
        outcome.findings += differences(whole.found, case.found(attempt))[:8]
        lines = work.read(attempt.log)
        outcome.repeated = dict(work.repeated(lines))
        if case.name == "dicomweb":
            outcome.repeated["objects"] = stored_again(self._inputs)
        if case.name == "train":
            outcome.lost = max(work.lost_seconds(lines), default=0.0)
            # After a state is taken, it is saved; then come the interval and the batch that is under way at its end.
            allowed = 60 * CHECKPOINT_MINUTES + 2 * work.longest_step(lines) + _SLACK_SECONDS
            if outcome.lost > allowed:
                outcome.findings.append(f"{outcome.lost:.2f} s of training lost; at most {allowed:.2f} s were expected")


def _real(case: Case, chance: random.Random) -> bool:
    """Whether a run is started anew, which takes the imports' time and cannot be logged."""
    return case.name not in ("cache", "dicomweb", "train") and chance.random() < 0.05


def _end(ended: Ended) -> str:
    """The last lines of an output."""
    return " / ".join(ended.said.strip().splitlines()[-3:])[-400:]


def hunt(arguments: argparse.Namespace, place: Path) -> list[Outcome]:
    """Make attempts in several processes until the time or the number is over."""
    names = arguments.cases
    inputs = Inputs(place / "inputs")
    inputs.write(dicom="dicomweb" in names)
    import_all(tuple(module for name, case in cases(inputs).items() if name in names for module in case.modules))
    jobs = 1 if arguments.only is not None else min(arguments.jobs, arguments.count)
    results, sent = os.pipe()
    for job in range(-1, jobs):  # the first one runs each command without interruption
        if not os.fork():
            os.close(results)
            numbers = range(job, arguments.count, jobs) if arguments.only is None else [arguments.only]
            os._exit(_attempts(arguments, inputs, place, job, numbers, sent))
        if job < 0 and os.waitstatus_to_exitcode(os.wait()[1]):
            raise RuntimeError("An uninterrupted run failed; see above.")
    os.close(sent)
    outcomes = _collect(results)
    if any(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(jobs)):
        raise RuntimeError("A process that made attempts failed; see above.")
    return outcomes


def _attempts(
    arguments: argparse.Namespace, inputs: Inputs, place: Path, job: int, numbers: Iterable[int], sent: int
) -> int:
    """Make attempts and send each outcome as a line, or run each command whole; the exit code of the process."""
    server, until = 0, time.monotonic() + arguments.seconds
    adopt()
    try:
        if "dicomweb" in arguments.cases:
            inputs.url, server = archive.serve(inputs.dicom)
        own = Hunt(inputs, arguments.cases, place / f"job{job}", arguments.seed, arguments.keep)
        if job < 0:
            own.measure_wholes()
            return 0
        own.read_wholes(place / "job-1")
        for number in numbers:
            if time.monotonic() > until:
                break
            os.write(sent, json.dumps(asdict(own.attempt(number))).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        if server:
            os.kill(server, signal.SIGKILL)
    return 0


def _collect(results: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with os.fdopen(results, encoding="utf-8") as lines:
        for line in lines:
            outcome = Outcome(**json.loads(line))
            outcomes.append(outcome)
            head = f"{outcome.number:5d} {outcome.case}: {outcome.kind}, {outcome.kills} kills, {outcome.seconds:.1f} s"
            for found in outcome.findings or [""]:
                print(f"{head}{' FINDING ' * bool(found)}{found}", file=sys.stderr, flush=True)
    return sorted(outcomes, key=lambda outcome: outcome.number)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts per command, and the findings."""
    rows = []
    for name in NAMES:
        own = [outcome for outcome in outcomes if outcome.case == name]
        if own:
            again = sum((Counter(outcome.repeated) for outcome in own), Counter[str]())
            rows.append({
                "command": name, "attempts": len(own), "kills": sum(outcome.kills for outcome in own),
                "faults": sum(outcome.faults for outcome in own),
                "findings": sum(bool(outcome.findings) for outcome in own), "repeated": dict(sorted(again.items())),
                "lost_seconds": max(outcome.lost for outcome in own),
            })  # fmt: skip
    kinds = Counter(outcome.kind.split()[0] for outcome in outcomes if outcome.faults)
    return {
        "commands": rows, "kills": sum(row["kills"] for row in rows), "faults": sum(row["faults"] for row in rows),
        "kinds": dict(sorted(kinds.items())), "interval_seconds": 60 * CHECKPOINT_MINUTES,
        "findings": [asdict(outcome) for outcome in outcomes if outcome.findings],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, metavar="S", help="begin no attempt after this time")
    parser.add_argument("--count", type=int, default=1_000_000, metavar="N", help="number of attempts, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make the attempt of this number alone")
    parser.add_argument("--cases", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="attempts at a time")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the folders of attempts with a finding")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/kill.json")
    arguments = parser.parse_args()
    place = Path(os.environ.get("HILUM_KILL_PLACE") or tempfile.mkdtemp(prefix="hilum-kill-"))
    try:
        preload(place)
        load, began = os.getloadavg()[0], time.monotonic()
        found = summary(hunt(arguments, place))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    facts = {"seed": arguments.seed, "seconds": round(time.monotonic() - began), "jobs": arguments.jobs}
    from measuring import command_of, machine, publish  # late: imports take seconds, and this process starts twice

    facts["command"] = command_of(parser, arguments)
    publish("kill", {**machine(), "load_average": load} | facts | found, arguments.json)
    for finding in found["findings"]:
        print(json.dumps(finding), file=sys.stderr)
    sys.exit(bool(found["findings"]))


if __name__ == "__main__":
    main()
