"""Wall time of `hilum --help` and `import hilum`, against an interpreter that does nothing.

    python benchmarks/startup.py                10 rounds; in each, every command once, one after the other

The bound is hilum's own: `hilum --help` answers in under 0.5 s. The first round fills the page cache and is not
counted. Run it on an idle machine: the load average at the start stands in the result.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from hilum.storage import write_json

BOUND = 0.5
_HILUM = Path(sys.executable).with_name("hilum")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    'python -c "import hilum"': [sys.executable, "-c", "import hilum"],
    "hilum --help": [str(_HILUM), "--help"],
}


def seconds_of(command: list[str]) -> float:
    """Wall time of one run; it must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    """Per command its time in each round; the commands take turns, the first round is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, command in COMMANDS.items():
            seconds[name].append(seconds_of(command))
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="at least 10")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/startup.json")
    arguments = parser.parse_args()
    if arguments.rounds < 10:
        parser.error("--rounds must be at least 10")
    load = os.getloadavg()[0]
    seconds = measure(arguments.rounds)
    print(f"{arguments.rounds} interleaved runs, load average {load:.1f} on {os.cpu_count()} processors")
    print(f"{'command':26} {'median, s':>10} {'range, s':>14}")
    for name, values in seconds.items():
        print(f"{name:26} {statistics.median(values):10.3f} {min(values):6.3f}-{max(values):.3f}")
    result = {
        "rounds": arguments.rounds,
        "seconds": {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values), "all": values}
            for name, values in seconds.items()
        },
        "bound": BOUND,
        "load_average": load,
        "processors": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    if arguments.json:
        write_json(arguments.json, result)
    median = statistics.median(seconds["hilum --help"])
    if median >= BOUND:
        sys.exit(f"hilum --help took {median:.2f} s, under {BOUND} s is needed")


if __name__ == "__main__":
    main()
