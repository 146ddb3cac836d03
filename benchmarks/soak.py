"""Soak the service: 64 clients for 30 minutes, with 2% hostile files among the good ones in every second phase.

    python benchmarks/soak.py --images DIR --json benchmarks/results/soak.json       30 minutes

`hilum serve` runs as a process of its own with its defaults. Phases alternate: 64 clients post good images over
connections that stay open, then the same with one request in 50 replaced by a file of tests/hostile (bombs, truncated
and mislabeled files, DICOM of all syntaxes). Every answer is compared with what the predictor says of the same image
in this process, in the same engine: status, label and probabilities; that to a hostile file with the status that its
case must get. Latencies are those of good images. The resident memory is that of the service and its decoding
processes, once a second. Without --images, phantoms are drawn. Needs the dev extra. Exit code 1 where a bound is
missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import command_of, engine_of, machine, publish
from service import Connection, growth, images_of, load_parser, posting, resident, service

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.inference.predictor import Predictor, Upload
from hilum.inference.result import Prediction

BOUNDS = {"p99_ratio": 2.0, "memory_growth": 0.05}
TOLERANCE = 1e-3
"""Difference of probabilities: images of one forward pass differ in the last digits, by more in lower precisions."""
SHARE = 0.02
_MAX_BYTES = 1 << 26
_TESTS = Path(__file__).resolve().parents[1] / "tests"


class Expected(NamedTuple):
    """A request, and the answer it must get."""

    name: str
    request: bytes
    status: str  # of the result
    label: str = ""
    probabilities: tuple[float, ...] = ()
    is_hostile: bool = False


def good_requests(predictor: Predictor, images: Sequence[Upload]) -> list[Expected]:
    """The images and what the predictor says of them."""
    found = []
    for image in images:
        result = predictor.predict(image)
        more = (result.label, tuple(result.probabilities.values())) if isinstance(result, Prediction) else ()
        found.append(Expected(image.name, posting(image), result.status, *more))
    return found


def hostile_requests() -> list[Expected]:
    """The cases of tests/hostile that can be sent: those that are files with a content."""
    sys.path[:0] = [str(_TESTS), str(_TESTS / "hostile")]
    from hostile_dicom import DICOM
    from hostile_images import IMAGES

    found = []
    for case in (*IMAGES, *DICOM):
        with tempfile.TemporaryDirectory() as folder:
            path = case.make(Path(folder))
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_BYTES:
                image = Upload(path.read_bytes(), "case" + path.suffix)
                found.append(Expected(case.name, posting(image), case.answer, is_hostile=True))
    return found


def fault(expected: Expected, status: int, body: bytes) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if status not in (200, 422):
        return f"status {status}"
    answer = json.loads(body)
    if status == 422:
        kind = answer["type"].rpartition(":")[2]
        return "" if kind == expected.status else f"{kind} instead of {expected.status}"
    (result,) = answer["results"]
    if result["status"] != expected.status:
        return f"{result['status']} instead of {expected.status}"
    if expected.is_hostile:
        return ""
    found = result["prediction"]
    difference = max(abs(a - b) for a, b in zip(found["probabilities"].values(), expected.probabilities, strict=True))
    top = sorted(expected.probabilities)[-2:]
    if difference > TOLERANCE or (found["predicted_label"] != expected.label and top[1] - top[0] > 2 * TOLERANCE):
        return f"{found['predicted_label']}, probabilities differ by {difference:.1g}"
    return ""


class Phase:
    """Answers of one phase."""

    def __init__(self, good: Sequence[Expected], hostile: Sequence[Expected], seed: int) -> None:
        self._good, self._hostile, self._random = good, hostile, random.Random(seed)
        self.latencies: list[float] = []
        self.hostile = 0
        self.statuses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def _next(self) -> Expected:
        pick = self._hostile if self._hostile and self._random.random() < SHARE else self._good
        return self._random.choice(pick)

    async def client(self, port: int, end: float) -> None:
        """One client: the next image as soon as the last is answered."""
        connection = Connection(port)
        while time.perf_counter() < end:
            expected, start = self._next(), time.perf_counter()
            try:
                status, body = await connection.exchange(expected.request)
            except (OSError, asyncio.IncompleteReadError) as error:
                connection.close()
                self.faults[f"{expected.name}: {type(error).__name__}"] += 1
                continue
            self.statuses[str(status)] += 1
            self.hostile += expected.is_hostile
            if not expected.is_hostile:
                self.latencies.append(1000 * (time.perf_counter() - start))
            if words := fault(expected, status, body):
                self.faults[f"{expected.name}: {words}"] += 1
        connection.close()

    async def run(self, port: int, clients: int, seconds: float) -> None:
        """All clients, until the time is over and they have their answers."""
        end = time.perf_counter() + seconds
        await asyncio.gather(*(self.client(port, end) for _ in range(clients)))


def resident_of_all(pid: int) -> float:
    """Resident memory of a process and its children, MiB."""
    total = resident(pid)
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        for number in child.read_text().split():
            try:
                total += resident(int(number))
            except (OSError, AssertionError):  # ended meanwhile
                continue
    return total


async def watched(pid: int, phase: Phase, port: int, clients: int, seconds: float) -> list[float]:
    """Run a phase, and return the memory once a second."""
    memory: list[float] = []
    running = asyncio.create_task(phase.run(port, clients, seconds))
    while not (await asyncio.wait({running}, timeout=1))[0]:
        memory.append(resident_of_all(pid))
    running.result()
    return memory


def summary(phases: Sequence[Phase]) -> dict[str, Any]:
    """Latencies and faults of the phases of one kind."""
    latencies = [value for phase in phases for value in phase.latencies]
    p50, p99 = np.percentile(latencies, [50, 99]).tolist()
    faults = sum((phase.faults for phase in phases), Counter[str]())
    return {
        "good": len(latencies), "hostile": sum(phase.hostile for phase in phases), "p50_ms": p50, "p99_ms": p99,
        "max_ms": max(latencies), "faults": dict(faults),
        "statuses": dict(sum((phase.statuses for phase in phases), Counter[str]())),
    }  # fmt: skip


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every phase, and what came of them."""
    images, hostile = images_of(arguments.images, arguments.count), hostile_requests()
    rounds = max(1, round(60 * arguments.minutes / (2 * arguments.seconds)))
    clean: list[Phase] = []
    mixed: list[Phase] = []
    memory: list[float] = []
    with service(arguments.bundle) as (port, process):  # first, since it measures and chooses the engine
        predictor = Predictor(load_bundle(resolve_bundle(arguments.bundle)))
        good = good_requests(predictor, images)
        asyncio.run(Phase(good, hostile, -1).run(port, arguments.clients, arguments.warm_seconds))
        for number in range(rounds):
            for phases, bad in ((clean, []), (mixed, hostile)):
                phases.append(phase := Phase(good, bad, number))
                memory += asyncio.run(watched(process.pid, phase, port, arguments.clients, arguments.seconds))
            one, two = (np.percentile(phases[-1].latencies, 99) for phases in (clean, mixed))
            print(f"round {number + 1} of {rounds}: p99 {one:.0f} ms, with hostile files {two:.0f} ms", flush=True)
    pairs = zip(clean, mixed, strict=True)
    ratios = [float(np.percentile(b.latencies, 99) / np.percentile(a.latencies, 99)) for a, b in pairs]
    return {
        "engine": engine_of(predictor.backend), "images": len(images), "drawn": arguments.images is None,
        "cases": len(hostile), "clients": arguments.clients, "minutes": rounds * 2 * arguments.seconds / 60,
        "seconds": arguments.seconds, "rounds": ratios, "clean": summary(clean), "mixed": summary(mixed),
        "memory": {"first_mib": memory[0], "last_mib": memory[-1], "max_mib": max(memory), "growth": growth(memory)},
    }  # fmt: skip


def missed(result: dict[str, Any]) -> list[str]:
    """The bounds that are not met, in words."""
    faults = result["clean"]["faults"] | result["mixed"]["faults"]
    ratio = statistics.median(result["rounds"])
    found = {
        f"wrong or missing answers: {faults}": bool(faults),
        f"p99 with hostile files {ratio:.2f} x that without": ratio > BOUNDS["p99_ratio"],
        f"memory grew by {result['memory']['growth']:.1%}": result["memory"]["growth"] > BOUNDS["memory_growth"],
    }
    return [words for words, is_missed in found.items() if is_missed]


def main() -> None:
    parser = load_parser(__doc__, clients=64)
    parser.add_argument("--minutes", type=float, default=30, help="of both kinds of phases")
    parser.add_argument("--seconds", type=float, default=30, help="of one phase")
    parser.add_argument("--warm-seconds", type=float, default=10, help="of load before the first phase")
    arguments = parser.parse_args()
    before = machine()
    result = {"command": command_of(parser, arguments)} | measure(arguments) | before
    result |= {"bounds": BOUNDS, "tolerance": TOLERANCE, "share": SHARE}
    publish("soak", result, arguments.json)
    if words := missed(result):
        sys.exit("NOT met: " + "; ".join(words))


if __name__ == "__main__":
    main()
