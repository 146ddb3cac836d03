"""Measure prediction on Ray beside the local pipeline, and kill a worker and the driver on the way.

    python benchmarks/scale.py --images 20000 --json benchmarks/results/scale.json
    python benchmarks/scale.py --images 600 --shard-rows 50 --rounds 1

The images are phantoms of 299 px and links to them, and to those of --source. Each round predicts on all of them once
by each way, in an order that rotates. Both write a table of Parquet files; the local one uses a thread per processor,
Ray a process per processor. The time of Ray is given with the start of its processes and without: from the first shard
to the last one.

Then `hilum predict --engine ray` with masks runs as a process of its own: when half of the shards are written, one of
the processes that predict is killed by SIGKILL; at three quarters, the command is. It is run again to its end. Its
table must be the local one's, each image once. An image counts as repeated if its mask was written and its shard was
not. Exit code 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from folder import copies, links
from measuring import command_of, machine, publish, spread

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.cpus import available_cpus
from hilum.data.find import PARQUET_TABLE, find_images
from hilum.inference.folder import predict_folder
from hilum.inference.parquet import SHARD_ROWS
from hilum.inference.ray import predict_on_ray
from hilum.inference.ray_cluster import Cluster
from hilum.inference.settings import PredictorSettings

BOUND = 0.15
"""Greatest overhead of Ray, as a share of the local time."""


class Clock:
    """When shards were done, and how many images by then."""

    def __init__(self, shard_rows: int) -> None:
        self.seen: list[tuple[float, int]] = []
        self._shard_rows = shard_rows

    def __call__(self, done: int, total: int) -> None:
        if done % self._shard_rows == 0 or done == total:
            self.seen.append((time.perf_counter(), done))

    @property
    def per_image(self) -> float:
        """Milliseconds per image between the first shard and the last."""
        (first, before), (last, after) = self.seen[0], self.seen[-1]
        return 1000 * (last - first) / max(after - before, 1)


def workers_of_ray(parent: int) -> list[int]:
    """Processes of Ray that predict and descend from another one."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue

    def descends(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == parent:
                return True
        return False

    return [pid for pid, name in names.items() if name.startswith(b"ray::ShardWriter") and descends(pid)]


def kill_one(parent: int | None = None) -> None:
    """Kill one process of Ray that predicts for another process; None: this one."""
    os.kill(workers_of_ray(parent or os.getpid())[0], signal.SIGKILL)


def run(name: str, settings: PredictorSettings, files: Sequence[Path], out: Path, shard_rows: int) -> dict[str, float]:
    """Seconds of one prediction, and milliseconds per image after the first shard."""
    clock, began = Clock(shard_rows), time.perf_counter()
    shared: dict[str, Any] = {"shard_rows": shard_rows, "progress": clock}
    if name == "local":
        predict_folder(settings.open(), files, out, table_format="parquet", **shared)
    else:
        predict_on_ray(settings, files, out, cluster=Cluster(workers=available_cpus()), **shared)
    return {"seconds": time.perf_counter() - began, "ms_per_image": clock.per_image}


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows of a table, by file name."""
    from pyarrow import parquet

    rows = [row for path in sorted((out / PARQUET_TABLE).iterdir()) for row in parquet.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: str(row["file"]))


def shards_of(out: Path) -> dict[str, int]:
    """When each shard that is there was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / PARQUET_TABLE).glob("part-*.parquet")}


def unkept(out: Path) -> int:
    """Images whose mask was written, and whose shard was not."""
    masks = sum(1 for path in (out / "masks").rglob("*.png") if not path.name.startswith("."))
    return masks - sum(row["status"] == "ok" for row in rows_of(out))


def killed(files: Path, settings: PredictorSettings, out: Path, shard_rows: int, count: int) -> dict[str, Any]:
    """Kill a worker half-way and the command at three quarters, and run it again to its end."""
    words = [
        sys.executable, "-c", "from hilum.cli import main; main()", "predict", str(files), "--output", str(out),
        "--engine", "ray", "--workers", str(available_cpus()), "--shard-rows", str(shard_rows), "--save-masks",
        "--quiet", "--backend", settings.backend, "--precision", settings.precision,
    ]  # fmt: skip
    process, again = subprocess.Popen(words), []
    shards = -(-count // shard_rows)
    for goal in (shards // 2, shards * 3 // 4):
        while len(shards_of(out)) < goal:
            if process.poll() is not None:
                raise SystemExit("hilum predict ended before it was killed")
            time.sleep(0.02)
        if goal == shards // 2:
            again.append(unkept(out))
            kill_one(process.pid)
        else:
            process.kill()
            process.wait()
            again.append(unkept(out))
        print(f"killed at {goal} of {shards} shards", file=sys.stderr, flush=True)
    before = shards_of(out)
    subprocess.run(words, check=True)
    after = shards_of(out)
    seen = Counter(row["file"] for row in rows_of(out))
    return {
        "shards": shards, "shards_before": len(before), "repeated": again,
        "written_again": sum(after[name] != stamp for name, stamp in before.items()),
        "missing": count - len(seen), "twice": sum(number > 1 for number in seen.values()),
    }  # fmt: skip


def missed(result: dict[str, Any]) -> bool:
    """Whether a bound is missed."""
    kill = result["kill"]
    wrong = (result["different_rows"], kill["different_rows"], kill["written_again"], kill["missing"], kill["twice"])
    most = result["shard_rows"] * result["workers"]
    return bool(any(wrong) or max(kill["repeated"]) > most or result["overhead"]["seconds"]["median"] > BOUND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, metavar="N")
    parser.add_argument("--source", type=Path, metavar="DIR", help="images to link to, besides phantoms")
    parser.add_argument("--shard-rows", type=int, default=SHARD_ROWS, metavar="N", help="rows of each Parquet file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/scale.json")
    arguments = parser.parse_args()
    settings = PredictorSettings(load_bundle(resolve_bundle()), backend="onnxruntime", precision="fp32")
    before, shard_rows = machine(), arguments.shard_rows
    taken: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        files = list(copies(None, min(arguments.images, 500), place / "images"))
        if arguments.source:
            files += find_images(arguments.source)
        files = links(files, arguments.images, place / "links")
        for turn in range(arguments.rounds):
            for name in ("local", "ray") if turn % 2 else ("ray", "local"):
                taken[name].append(run(name, settings, files, place / f"{name}-{turn}", shard_rows))
                print(f"round {turn + 1}, {name}: {taken[name][-1]}", file=sys.stderr, flush=True)
            local, ray = rows_of(place / f"local-{turn}"), rows_of(place / f"ray-{turn}")
            different += sum(one != other for one, other in zip(local, ray, strict=True))
        kill = killed(place / "links", settings, place / "killed", shard_rows, len(files))
        pairs = zip(rows_of(place / "local-0"), rows_of(place / "killed"), strict=True)
        kill["different_rows"] = sum(one != other for one, other in pairs)
    ratios = {
        key: [two[key] / one[key] - 1 for one, two in zip(taken["local"], taken["ray"], strict=True)]
        for key in ("seconds", "ms_per_image")
    }
    result: dict[str, Any] = {
        "command": command_of(parser, arguments),
        "images": arguments.images, "rounds": arguments.rounds, "shard_rows": shard_rows, "workers": available_cpus(),
        "different_rows": different, "kill": kill,
        "ways": {
            name: {key: spread([row[key] for row in rows]) for key in ("seconds", "ms_per_image")}
            for name, rows in taken.items()
        },
        "overhead": {key: spread(values) for key, values in ratios.items()}, "bound": BOUND,
    }  # fmt: skip
    publish("scale", result | before, arguments.json)
    sys.exit(missed(result))


if __name__ == "__main__":
    main()
