"""Measure replicas of the service behind HAProxy, and restart one after the other under load.

    python benchmarks/replicas.py --images DIR --json benchmarks/results/replicas.json       6 minutes

One process of `hilum serve` with all processors, and four that are bound to one processor each, in turn, run as
processes of their own. In every round clients post images to the one, to the one through the proxy, and to two and
four of the others through the proxy, in an order that rotates. Then, with the clients on the four, each replica is
drained, stopped by SIGTERM, started again on its port and taken back; no request may fail. The proxy is configured by
deploy/haproxy.cfg, of which ports, servers and socket are replaced. All of it, clients too, runs on the same
processors, so that no number of replicas can exceed them. Without --images, phantoms are drawn. Exit code 1 if a
request fails.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from measuring import command_of, machine, publish, spread
from service import Load, images_of, load_parser, posting

CONFIGURATION = Path(__file__).resolve().parents[1] / "deploy" / "haproxy.cfg"
ANSWERED = ("200", "422")
"""Statuses of requests that did not fail; 422: the input check refuses the image."""


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Replica:
    """A process of `hilum serve` on a port of its own.

    Args:
        bundle: The bundle.
        cpu: The only processor that it may use; None: all.
    """

    def __init__(self, bundle: str, cpu: int | None) -> None:
        self.port = free_port()
        words = [sys.executable, "-c", "from hilum.cli import main; main()", "serve", "--bundle", bundle]
        bound = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
        self._command = [*bound, *words, "--port", str(self.port)]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it is ready."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        if "Serving" not in self._process.stdout.readline():
            raise SystemExit("hilum serve did not start")

    def stop(self) -> None:
        """Stop it by SIGTERM."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()


def configured(text: str, port: int, admin: Path, servers: Sequence[int]) -> str:
    """The shipped configuration of the proxy with other ports and as many of its servers.

    Raises:
        ValueError: It has no such lines, or fewer servers.
    """
    text, bound = re.subn(r"(?m)^(    bind ).*$", rf"\g<1>127.0.0.1:{port}", text)
    text, sockets = re.subn(r"(?m)^(    stats socket )\S+", rf"\g<1>{admin}", text)
    lines = re.findall(r"(?m)^    server \w+ .*\n", text)
    if (bound, sockets) != (1, 1) or len(lines) < len(servers):
        raise ValueError(f"{CONFIGURATION.name} has another form")
    for line in lines[len(servers) :]:
        text = text.replace(line, "")
    for line, own in zip(lines, servers, strict=False):
        text = text.replace(line, f"{line.rsplit(maxsplit=1)[0]} 127.0.0.1:{own}\n")
    return text


class Proxy:
    """HAProxy in front of some replicas.

    Args:
        replicas: The replicas.
        folder: Where to write configuration and socket.
    """

    def __init__(self, replicas: Sequence[Replica], folder: Path) -> None:
        self.port, self._admin = free_port(), folder / f"{len(replicas)}.sock"
        self._file = folder / f"{len(replicas)}.cfg"
        text = configured(
            CONFIGURATION.read_text(encoding="utf-8"), self.port, self._admin, [one.port for one in replicas]
        )
        self._file.write_text(text, encoding="utf-8")
        self.names = re.findall(r"(?m)^    server (\w+) ", text)

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Run it, and yield when all replicas take requests."""
        process = subprocess.Popen(["haproxy", "-db", "-f", str(self._file)], stderr=subprocess.DEVNULL)
        try:
            while not self._admin.exists():
                if process.poll() is not None:
                    raise SystemExit("haproxy did not start")
                time.sleep(0.05)
            for name in self.names:
                self.wait(name, "UP")
            yield self
        finally:
            process.terminate()
            process.wait()

    def ask(self, command: str) -> str:
        """The answer of the proxy's administration to a command."""
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(self._admin))
            one.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: one.recv(65536), b"")).decode()

    def state(self, name: str) -> dict[str, str]:
        """The statistics of a replica."""
        head, *rows = self.ask("show stat").removeprefix("# ").splitlines()
        tables = [dict(zip(head.split(","), row.split(","), strict=False)) for row in rows if row]
        return next(row for row in tables if (row["pxname"], row["svname"]) == ("hilum", name))

    def wait(self, name: str, status: str) -> None:
        """Wait until a replica has a status."""
        while not self.state(name)["status"].startswith(status):
            time.sleep(0.05)

    def restart(self, name: str, replica: Replica) -> float:
        """Drain a replica, restart it, take it back, and return the seconds that this took."""
        began = time.perf_counter()
        self.ask(f"set server hilum/{name} state drain")
        while (found := self.state(name))["scur"] != "0" or found["qcur"] not in ("", "0"):
            time.sleep(0.02)
        replica.stop()
        replica.start()
        self.ask(f"set server hilum/{name} state ready")
        self.wait(name, "UP")
        return time.perf_counter() - began


async def load(port: int, requests: Sequence[bytes], clients: int, seconds: float, statuses: Counter[str]) -> float:
    """Images answered per second."""
    own, shared, began = Load(), itertools.cycle(requests), time.perf_counter()
    await asyncio.gather(*(own.client(port, shared, began + seconds) for _ in range(clients)))
    statuses.update(own.statuses)
    return sum(own.statuses[status] for status in ANSWERED) / (time.perf_counter() - began)


async def rolling(proxy: Proxy, replicas: Sequence[Replica], requests: Sequence[bytes], clients: int) -> dict[str, Any]:
    """Restart each replica while clients post images, and return what they saw."""
    own, shared, ended = Load(), itertools.cycle(requests), asyncio.Event()

    async def client() -> None:
        while not ended.is_set():
            await own.client(proxy.port, shared, time.perf_counter() + 0.5)

    work = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.sleep(1)
    seconds = []
    for name, replica in zip(proxy.names, replicas, strict=True):
        seconds.append(await asyncio.to_thread(proxy.restart, name, replica))
        print(f"restarted {name} in {seconds[-1]:.1f} s; {dict(own.statuses)}", file=sys.stderr, flush=True)
    ended.set()
    await asyncio.gather(*work)
    return {"seconds": spread(seconds), "statuses": dict(own.statuses), "failed": failed(own.statuses)}


def failed(statuses: Counter[str]) -> int:
    """The number of requests that were not answered."""
    return sum(count for status, count in statuses.items() if status not in ANSWERED)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every round, and the restart."""
    images = images_of(arguments.images, arguments.count)
    requests, statuses = [posting(image) for image in images], Counter[str]()
    cpus = sorted(os.sched_getaffinity(0))
    single = Replica(arguments.bundle, None)
    replicas = [Replica(arguments.bundle, cpus[number % len(cpus)]) for number in range(4)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for one in (single, *replicas):
            stack.callback(one.stop)
            one.start()
        sets = {"one, through the proxy": [single], "two": replicas[:2], "four": replicas}
        proxies = {name: stack.enter_context(Proxy(own, folder).running()) for name, own in sets.items()}
        ports = {"one": single.port, **{name: proxy.port for name, proxy in proxies.items()}}
        taken: dict[str, list[float]] = {name: [] for name in ports}
        for port in ports.values():
            asyncio.run(load(port, requests, arguments.clients, arguments.seconds / 10, Counter()))
        for turn in range(arguments.rounds):
            names = [*ports][turn % len(ports) :] + [*ports][: turn % len(ports)]
            for name in names:
                rate = asyncio.run(load(ports[name], requests, arguments.clients, arguments.seconds, statuses))
                taken[name].append(rate)
                print(f"round {turn + 1}, {name}: {rate:.1f} images/s", file=sys.stderr, flush=True)
        restarted = asyncio.run(rolling(proxies["four"], replicas, requests, arguments.clients))
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout
    return {
        "images": len(images), "drawn": arguments.images is None, "clients": arguments.clients,
        "seconds": arguments.seconds, "rounds": arguments.rounds, "statuses": dict(statuses),
        "failed": failed(statuses), "ways": {name: spread(rates) for name, rates in taken.items()},
        "ratios": {
            name: spread([rate / one for rate, one in zip(rates, taken["one"], strict=True)])
            for name, rates in taken.items()
        },
        "restart": restarted, "proxy": version.split()[2],
    }  # fmt: skip


def main() -> None:
    parser = load_parser(__doc__, clients=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15, help="of load for each way in each round")
    arguments = parser.parse_args()
    if not (shutil.which("haproxy") and shutil.which("taskset")):
        sys.exit("haproxy and taskset are needed: make system")
    before = machine()
    result = {"command": command_of(parser, arguments)} | measure(arguments) | before
    publish("replicas", result, arguments.json)
    sys.exit(bool(result["failed"] or result["restart"]["failed"]))


if __name__ == "__main__":
    main()
