"""Kill `hilum predict` at random instants until it is done, and compare its folder with an uninterrupted one's.

    python benchmarks/resume.py --images 3000 --kills 20 --json benchmarks/results/resume.json
    python benchmarks/resume.py --images 200 --kills 5

Phantoms of 299 px are predicted with masks. Each process is killed by SIGKILL after a random number of rows and a
random time; the last one ends by itself. An image counts as repeated if its mask was written and its row is not kept.
Then the start of a run on 100,000 finished rows is timed, and that of one with nothing done. Exit code 1 if a bound is
missed.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from folder import copies, links
from killing.compare import contents, differences
from measuring import command_of, machine, publish, spread

from hilum.backends.base import CHUNK
from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.cpus import available_cpus
from hilum.data.find import PARTIAL, TABLE
from hilum.inference.folder import predict_folder
from hilum.inference.predictor import Predictor
from hilum.inference.saving import Wanted
from hilum.inference.shards import FolderRun
from hilum.inference.table import image_names, table_header

ROWS = 100_000
BOUND_SECONDS = 1.0
"""To resume ROWS rows."""


def command(images: Path, out: Path) -> list[str]:
    """`hilum predict` with masks."""
    hilum = "from hilum.cli import main; main()"
    return [sys.executable, "-c", hilum, "predict", str(images), "--output", str(out), "--save-masks", "--quiet"]


def rows_in(out: Path) -> int:
    """Number of rows in the partial table."""
    partial = out / PARTIAL
    return max(partial.read_bytes().count(b"\n") - 1, 0) if partial.exists() else 0


def repeated(out: Path, stride: int) -> int:
    """Images whose mask was written, and whose row the next process will not keep."""
    lines = (out / PARTIAL).read_text(encoding="utf-8").split("\n")[1:-1] if (out / PARTIAL).exists() else []
    kept = len(lines) - len(lines) % stride
    masks = sum(1 for path in (out / "masks").rglob("*.png") if not path.name.startswith("."))
    return masks - sum(",ok," in line for line in lines[:kept])


def kill_until_done(images: Path, out: Path, count: int, kills: int, stride: int) -> dict[str, Any]:
    """Kill processes at random instants, then let one end."""
    chance, again, done = random.Random(0), [], 0
    goals = sorted(chance.randrange(1, count) for _ in range(kills))
    for goal in goals:
        process = subprocess.Popen(command(images, out))
        while rows_in(out) < goal and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.2)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            done += 1
            again.append(repeated(out, stride))
            print(f"killed at {rows_in(out):,} rows; {again[-1]} images again", file=sys.stderr, flush=True)
    subprocess.run(command(images, out), check=True)
    return {"kills": done, "repeated": again}


def resume_seconds(predictor: Predictor, files: list[Path], out: Path, rounds: int = 5) -> dict[str, Any]:
    """Seconds until the first image of a run with ROWS rows done, and of one with none."""
    save = Wanted(masks=True)
    predict_folder(predictor, files[:1], out / "one", save=save)
    header, row = (out / "one" / TABLE).read_text(encoding="utf-8").splitlines()
    assert header == ",".join(table_header(predictor.manifest))
    rest = row.removeprefix(f"{files[0]},")
    text = "".join(f"{file},{rest}\n" for file in files)
    resumed, fresh = [], []
    for number in range(rounds):
        for seconds, done in ((fresh, False), (resumed, True)):
            place = out / f"{number}-{done}"
            began = time.perf_counter()
            _first(predictor, files, place, save)
            if done:
                (place / PARTIAL).write_text(f"{header}\n{text}".rsplit("\n", 2)[0] + "\n", encoding="utf-8")
                began = time.perf_counter()
                _first(predictor, files, place, save)
            seconds.append(time.perf_counter() - began)
    costs = [one - other for one, other in zip(resumed, fresh, strict=True)]
    began = time.perf_counter()
    image_names(files)
    return {
        "rows": len(files) - 1, "resumed": spread(resumed), "fresh": spread(fresh), "cost": spread(costs),
        "names": time.perf_counter() - began,
    }  # fmt: skip


class _FirstImageError(Exception):
    """Raised in place of the first image."""


def _first(predictor: Predictor, files: list[Path], out: Path, save: Wanted) -> None:
    """Run `predict_folder` up to its first image."""

    def stop(*_: object) -> Any:
        raise _FirstImageError

    original = FolderRun.predict
    FolderRun.predict = stop  # type: ignore[method-assign]
    try:
        predict_folder(predictor, files, out, save=save)
    except _FirstImageError:
        pass
    finally:
        FolderRun.predict = original  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000, metavar="N")
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help="finished rows of the run that is timed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/resume.json")
    arguments = parser.parse_args()
    before, predictor = machine(), Predictor(load_bundle(resolve_bundle()))
    in_flight = (available_cpus() + 2) * CHUNK + predictor.stride
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        files = copies(None, arguments.images, place / "images")
        subprocess.run(command(place / "images", place / "whole"), check=True)
        killed = kill_until_done(place / "images", place / "out", len(files), arguments.kills, predictor.stride)
        expected, found = contents(place / "whole"), contents(place / "out")
        many = links(list(files), arguments.rows + 1, place / "links")
        seconds = resume_seconds(predictor, many, place / "resume")
    result: dict[str, Any] = {
        "command": command_of(parser, arguments),
        "images": arguments.images, **killed, "in_flight": in_flight, "files": len(expected),
        "different": len(differences(expected, found)), "more": len({*found} - {*expected}),
        "resume": seconds, "bound_seconds": BOUND_SECONDS,
    }  # fmt: skip
    publish("resume", result | before, arguments.json)
    slow = seconds["cost"]["median"] * 100_000 / arguments.rows > BOUND_SECONDS
    sys.exit(bool(result["different"] or slow or max(killed["repeated"], default=0) > in_flight))


if __name__ == "__main__":
    main()
