"""Measure a training step beside another busy process: torch's own thread settings and those of `hilum train`.

    python benchmarks/threads.py                   128 x 128, batch 16, beside one busy process, 5 rounds

`torch` takes as many threads as the machine has cores, and they spin while they wait for each other. `hilum train` lets
them sleep (OMP_WAIT_POLICY=PASSIVE) and takes no more than the affinity mask and the cgroup's quota allow. In every
round both run in new processes, one after the other, in an order that alternates; the ratio is taken within rounds and
shown with its range. Other programs count as load too: the load average is shown.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hilum.cpus import available_cpus, processor_name
from hilum.phantoms.chest import write_phantoms
from hilum.storage import write_json

WAYS = ("torch", "hilum")


def seconds_per_step(way: str, data: Path, size: int, batch_size: int) -> float:
    """Run in a new process, in which torch is not loaded yet: the median of a few steps, after one that warms up."""
    if way == "hilum":
        import hilum.cli  # noqa: F401 - sets how threads wait, as the command does
    import torch

    from hilum.config import load_config
    from hilum.training.dry_run import plan

    threads = torch.get_num_threads() if way == "torch" else 0
    training = {"batch_size": batch_size, "device": "cpu", "threads": threads}
    overrides = {"data": data, "preprocess": {"size": size}, "training": training}
    return plan(load_config(overrides=overrides)).seconds_per_step


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processors busy inside the block."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(way: str, data: Path, arguments: argparse.Namespace) -> float:
    """Seconds per step of one way, in a process of its own."""
    command = [sys.executable, __file__, "--size", str(arguments.size), "--batch-size", str(arguments.batch_size)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_"))}
    done = subprocess.run(
        [*command, "--one", way, str(data)], env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="side of the input, pixels")
    parser.add_argument("--batch-size", type=int, default=16, help="images per batch")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--busy", type=int, default=1, help="number of busy processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write the figures to")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "DATA"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        way, data = arguments.one
        print(seconds_per_step(way, Path(data), arguments.size, arguments.batch_size))
        return

    load = os.getloadavg()[0]
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder, busy(arguments.busy):
        write_phantoms(Path(folder) / "data", 48, size=64)
        for turn in range(arguments.rounds):
            for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
                taken[way].append(measure(way, Path(folder) / "data", arguments))
    ratios = [one / other for one, other in zip(*taken.values(), strict=True)]
    result: dict[str, Any] = {
        "command": f"python benchmarks/threads.py --rounds {arguments.rounds} --busy {arguments.busy}",
        "size": arguments.size, "batch": arguments.batch_size, "rounds": arguments.rounds, "busy": arguments.busy,
        "seconds": {way: spread(times) for way, times in taken.items()}, "ratio": spread(ratios),
        "load_average": load, "processors": available_cpus(), "processor": processor_name(),
        "python": platform.python_version(),
    }  # fmt: skip
    print(
        f"{arguments.size} px, batch {arguments.batch_size}, {arguments.rounds} interleaved rounds, beside "
        f"{arguments.busy} busy process(es), load average {load:.1f} on {available_cpus()} processors "
        f"({processor_name()})"
    )
    for name, values in (*result["seconds"].items(), ("ratio", result["ratio"])):
        print(f"  {name:6} {values['median']:6.2f} ({values['min']:.2f}-{values['max']:.2f})")
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
