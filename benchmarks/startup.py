"""Measure the wall time of short commands, beside an interpreter that does nothing.

    python benchmarks/startup.py                10 rounds; each command once per round

`hilum predict` answers for one synthetic radiograph, in ONNX Runtime, as where no engine was measured before, and in
OpenVINO with and without the compiled network of an earlier run. Exit code 1 if `hilum --help` takes 0.5 s or more. The
first round compiles Python's modules and fills the page cache; it is not counted. Run it on an idle machine: the result
includes the load average at the start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
from measuring import machine, publish, spread

from hilum.phantoms.chest import draw_phantom

BOUND = 0.5
_HILUM = str(Path(sys.executable).with_name("hilum"))
_PREDICT = [_HILUM, "predict", "one.png", "--output", "out"]
_OPENVINO = [*_PREDICT, "--backend", "openvino", "--precision", "int8"]
COMPILING = "hilum predict one.png --backend openvino --precision int8, network not compiled before"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    'python -c "import hilum"': [sys.executable, "-c", "import hilum"],
    "hilum --help": [_HILUM, "--help"],
    "hilum predict one.png": _PREDICT,
    "hilum predict one.png --backend openvino --precision int8": _OPENVINO,
    COMPILING: _OPENVINO,
}


def seconds_of(name: str, folder: Path) -> float:
    """Wall time of one run of a command in ``folder``; it must succeed."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    if name == COMPILING:
        shutil.rmtree(folder / "cache" / "openvino", ignore_errors=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["HILUM_CACHE"] = str(folder / "cache")
    start = time.perf_counter()
    subprocess.run(COMMANDS[name], check=True, cwd=folder, env=environment, capture_output=True)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    """Per command its time in each round; the commands take turns, the first round is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        cv2.imwrite(str(Path(folder) / "one.png"), draw_phantom(0, "Normal", size=299).image)
        for _ in range(rounds + 1):
            for name in COMMANDS:
                seconds[name].append(seconds_of(name, Path(folder)))
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
