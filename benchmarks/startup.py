"""Measure the wall time of `hilum --help` and `import hilum`, beside an interpreter that does nothing.

    python benchmarks/startup.py                10 rounds; each command once per round

Exit code 1 if `hilum --help` takes 0.5 s or more. The first round fills the page cache and is not counted. Run it on an
idle machine: the result includes the load average at the start.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measuring import machine, publish, spread

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
    parser.add_argument("--rounds", type=int, default=10, help="number of rounds, at least 10")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/startup.json")
    arguments = parser.parse_args()
    if arguments.rounds < 10:
        parser.error("--rounds must be at least 10")
    before = machine()
    seconds = measure(arguments.rounds)
    result: dict[str, Any] = {
        "rounds": arguments.rounds,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "bound": BOUND,
    }
    publish("startup", result | before, arguments.json)
    median = result["seconds"]["hilum --help"]["median"]
    if median >= BOUND:
        sys.exit(f"hilum --help took {median:.2f} s, under {BOUND} s is needed")


if __name__ == "__main__":
    main()
