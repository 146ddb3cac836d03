"""Measure the service under load: 64 clients for 5 minutes, and the same predictor without a service.

    python benchmarks/service.py --images DIR --json benchmarks/results/service.json       6 minutes

`hilum serve` runs as a process of its own with its defaults. In every round the predictor first predicts on the images
alone, in this process (`Predictor.predict_many`: reading, input check, network, lung mask at the file's size); then 64
clients post one image after another over connections that stay open. The ratio of images per second is taken within
rounds. The clients run on the same processors, and their time counts against the service. One more connection requests
/healthz ten times a second, and the resident memory of the service is read once a second. For scale, the network alone
runs on the same images, preprocessed beforehand. Without --images, phantoms are drawn. Exit code 1 where a bound is
missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from measuring import command_of, engine_of, machine, publish

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.data.find import find_images
from hilum.inference.predictor import Predictor, Ready, Upload
from hilum.phantoms.chest import draw_phantom

BOUNDS = {"ratio": 0.85, "healthz_p99_ms": 100.0, "memory_growth": 0.05}
ALLOWED = (200, 422, 429, 503)  # 422: the gate refuses the image, as it does without a service
_TURNED_AWAY = (429, 503)
_BOUNDARY = "hilum-benchmark"


def load_parser(description: str | None, *, clients: int) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark whose clients post images to a service."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--images", type=Path, help="a folder of radiographs")
    parser.add_argument("--count", type=int, default=64, help="images at most")
    parser.add_argument("--clients", type=int, default=clients)
    results = f"benchmarks/results/{Path(parser.prog).stem}.json"
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"write the figures: {results}")
    return parser


def images_of(folder: Path | None, count: int) -> list[Upload]:
    """Images of a folder, or drawn ones of 1,024 x 1,024."""
    if folder is not None:
        return [Upload(file.read_bytes(), file.name) for file in find_images(folder)[:count]]
    drawn = (draw_phantom(seed, ("Normal", "COVID")[seed % 2], size=1024).image for seed in range(count))
    return [Upload(cv2.imencode(".png", image)[1].tobytes(), f"{n}.png") for n, image in enumerate(drawn)]


def bare(predictor: Predictor, images: Sequence[Upload], seconds: float) -> float:
    """Images per second of the predictor alone."""
    start = time.perf_counter()
    answered = 0
    for _ in predictor.predict_many(_until(images, start + seconds)):
        answered += 1
    return answered / (time.perf_counter() - start)


def network_alone(predictor: Predictor, uploads: Sequence[Upload], seconds: float) -> float:
    """Images per second of the engine alone, in batches of 8 that are prepared already."""
    ready = [item for item in map(predictor.prepare, uploads) if isinstance(item, Ready)]
    images = np.stack([item.image for item in itertools.islice(itertools.cycle(ready), 8)])
    start, answered = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        predictor.backend.run(images)
        answered += len(images)
    return answered / (time.perf_counter() - start)


def _until(images: Sequence[Upload], end: float) -> Iterator[Upload]:
    for image in itertools.cycle(images):
        if time.perf_counter() >= end:
            return
        yield image


@contextmanager
def service(bundle: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """`hilum serve` on a free port: the port and the process."""
    command = [sys.executable, "-c", "from hilum.cli import main; main()", "serve", "--bundle", bundle, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = None
        while found is None:
            line = process.stdout.readline()
            if not line:
                raise SystemExit("hilum serve did not start")
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        yield int(found[1]), process
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def posting(image: Upload) -> bytes:
    """A whole request for one image."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{image.name}"\r\n\r\n'
    body = head.encode() + image.content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    lines = [
        "POST /v1/predict HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}",
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + body


class Connection:
    """One kept-alive HTTP/1.1 connection; as little of HTTP as the service's answers need."""

    def __init__(self, port: int) -> None:
        self._port, self._streams = port, None

    async def ask(self, request: bytes) -> int:
        """The status of the answer; its body is read and dropped. Raises as `exchange`."""
        status, _ = await self.exchange(request)
        return status

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection broke.
        """
        self._streams = self._streams or await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert length is not None
        body = await reader.readexactly(int(length[1]))
        if re.search(rb"(?i)\r\nconnection: close", head):
            self.close()
        return int(head.split(b" ", 2)[1]), body

    def close(self) -> None:
        """End it; the next question opens another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


class Load:
    """What the clients saw."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.health: list[float] = []
        self.memory: list[tuple[float, float]] = []

    async def client(self, port: int, requests: Iterator[bytes], end: float) -> None:
        """One client: the next image as soon as the last is answered."""
        connection = Connection(port)
        while time.perf_counter() < end:
            try:
                status = await connection.ask(next(requests))
            except (OSError, asyncio.IncompleteReadError):
                self.statuses["broken"] += 1
                connection.close()
                continue
            self.statuses[str(status)] += 1
            if status in _TURNED_AWAY:
                await asyncio.sleep(1)  # what Retry-After says
        connection.close()

    async def watch(self, port: int, pid: int, end: float) -> None:
        """/healthz ten times a second, memory once."""
        connection = Connection(port)
        for turn in itertools.count():
            start = time.perf_counter()
            if start >= end:
                break
            assert await connection.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") == 200
            self.health.append(1000 * (time.perf_counter() - start))
            if turn % 10 == 0:
                self.memory.append((start, resident(pid)))
            await asyncio.sleep(max(0.0, start + 0.1 - time.perf_counter()))
        connection.close()

    async def run(self, port: int, pid: int, requests: Sequence[bytes], clients: int, seconds: float) -> float:
        """Images answered per second, refused ones included: they cost the gate."""
        before = self.statuses["200"] + self.statuses["422"]
        start = time.perf_counter()
        shared = itertools.cycle(requests)
        work = [self.client(port, shared, start + seconds) for _ in range(clients)]
        await asyncio.gather(self.watch(port, pid, start + seconds), *work)
        answered = self.statuses["200"] + self.statuses["422"] - before
        return answered / (time.perf_counter() - start)


def resident(pid: int) -> float:
    """Resident memory of a process, MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def growth(memory: Sequence[float]) -> float:
    """How much more the last fifth holds than the second one, as a share; the first fifth fills the allocator."""
    fifth = len(memory) // 5
    return statistics.fmean(memory[-fifth:]) / statistics.fmean(memory[fifth : 2 * fifth]) - 1


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every round, and what came of them."""
    images = images_of(arguments.images, arguments.count)
    predictor = Predictor(load_bundle(resolve_bundle(arguments.bundle)))
    bare(predictor, images, 3)
    requests, load, rounds = [posting(image) for image in images], Load(), []
    with service(arguments.bundle) as (port, process):
        asyncio.run(Load().run(port, process.pid, requests, arguments.clients, 5))
        for _ in range(arguments.rounds):
            network = network_alone(predictor, images, arguments.bare_seconds / 3)
            alone = bare(predictor, images, arguments.bare_seconds)
            served = asyncio.run(load.run(port, process.pid, requests, arguments.clients, arguments.seconds))
            rounds.append({"network": network, "bare": alone, "served": served, "ratio": served / alone})
            print(f"bare {alone:6.1f} images/s, served {served:6.1f}, ratio {served / alone:.3f}", flush=True)
    memory = [megabytes for _, megabytes in load.memory]
    p50, p99 = np.percentile(load.health, [50, 99]).tolist()
    sizes = [len(image.content) for image in images]
    return {
        "engine": engine_of(predictor.backend), "images": len(images), "drawn": arguments.images is None,
        "kilobytes": statistics.median(sizes) / 1000, "clients": arguments.clients,
        "seconds": arguments.rounds * arguments.seconds, "rounds": rounds, "statuses": dict(load.statuses),
        "healthz": {"n": len(load.health), "p50_ms": p50, "p99_ms": p99, "max_ms": max(load.health)},
        "memory": {"first_mib": memory[0], "last_mib": memory[-1], "max_mib": max(memory), "growth": growth(memory)},
    }  # fmt: skip


def missed(result: dict[str, Any]) -> list[str]:
    """The bounds that are not met, in words."""
    ratio = statistics.median(one["ratio"] for one in result["rounds"])
    failed = {status: n for status, n in result["statuses"].items() if status not in map(str, ALLOWED)}
    found = {
        f"throughput {ratio:.3f} of the bare predictor's, at least {BOUNDS['ratio']}": ratio < BOUNDS["ratio"],
        f"failed requests {failed}": bool(failed),
        f"p99 of /healthz {result['healthz']['p99_ms']:.0f} ms": result["healthz"]["p99_ms"] > BOUNDS["healthz_p99_ms"],
        f"memory grew by {result['memory']['growth']:.1%}": result["memory"]["growth"] > BOUNDS["memory_growth"],
    }
    return [words for words, is_missed in found.items() if is_missed]


def main() -> None:
    parser = load_parser(__doc__, clients=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="of load in each round")
    parser.add_argument("--bare-seconds", type=float, default=15, help="of the predictor alone in each round")
    arguments = parser.parse_args()
    before = machine()
    result = {"command": command_of(parser, arguments)} | measure(arguments) | before | {
        "bounds": BOUNDS, "allowed": [str(status) for status in ALLOWED], "onnxruntime": onnxruntime.__version__,
    }  # fmt: skip
    publish("service", result, arguments.json)
    if words := missed(result):
        sys.exit("NOT met: " + "; ".join(words))


if __name__ == "__main__":
    main()
