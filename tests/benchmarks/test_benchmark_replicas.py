"""The proxy of replicas.py is configured by the file that is shipped."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "haproxy.cfg"


@pytest.fixture(scope="module")
def replicas(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("replicas")


def accepted(file: Path) -> bool:
    """Whether HAProxy takes a configuration."""
    return subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, timeout=60).returncode == 0


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
def test_haproxy_takes_the_configuration(replicas: ModuleType, tmp_path: Path) -> None:
    assert accepted(CONFIGURATION)
    text = replicas.configured(CONFIGURATION.read_text(), 8080, tmp_path / "admin", [8101, 8102])
    (tmp_path / "haproxy.cfg").write_text(text)
    assert accepted(tmp_path / "haproxy.cfg")
    (tmp_path / "haproxy.cfg").write_text(text.replace("balance leastconn", "balance nothing"))
    assert not accepted(tmp_path / "haproxy.cfg")


def test_ports_servers_and_socket_are_replaced_and_nothing_else(replicas: ModuleType, tmp_path: Path) -> None:
    before = CONFIGURATION.read_text()
    after = replicas.configured(before, 8080, tmp_path / "admin", [8101, 8102])
    assert re.findall(r"(?m)^    server \w+ (\S+)$", after) == ["127.0.0.1:8101", "127.0.0.1:8102"]
    changed = {*before.splitlines()} ^ {*after.splitlines()}
    assert {line.split()[0] for line in changed} == {"bind", "stats", "server"}
    with pytest.raises(ValueError, match="another form"):
        replicas.configured(before, 8080, tmp_path / "admin", range(5))


def test_readiness_is_a_route_of_the_service_and_its_requests_end_before_the_proxy_does() -> None:
    from fastapi.routing import APIRoute

    from hilum.service.api import create_app
    from hilum.service.settings import ServeSettings

    text, settings = CONFIGURATION.read_text(), ServeSettings()
    (asked,) = re.findall(r"http-check send meth GET uri (\S+)", text)
    assert asked in {route.path for route in create_app(settings).routes if isinstance(route, APIRoute)}
    (limit,) = re.findall(r"timeout server (\d+)s", text)
    assert int(limit) > settings.timeout
    (connections,) = re.findall(r"default-server .*maxconn (\d+)", text)
    assert int(connections) <= settings.queue


@pytest.mark.parametrize(("statuses", "count"), [({"200": 5, "422": 2}, 0), ({"200": 5, "503": 1, "broken": 2}, 3)])
def test_failed_requests_are_counted(replicas: ModuleType, statuses: dict[str, int], count: int) -> None:
    assert replicas.failed(Counter(statuses)) == count


def test_the_table_has_every_way(benchmark: Callable[[str], ModuleType]) -> None:
    spread = {"median": 2.0, "min": 1.0, "max": 3.0}
    result: dict[str, Any] = {
        "ways": {"one": spread, "four": spread}, "ratios": {"one": spread, "four": spread}, "statuses": {"200": 9},
        "failed": 0, "restart": {"statuses": {"200": 7}, "failed": 0, "seconds": spread}, "clients": 4, "rounds": 1,
        "seconds": 5, "images": 3, "drawn": True, "proxy": "2.6", "processors": 2, "processor": "x",
        "load_average": 1.0,
        "command": "python benchmarks/replicas.py",
    }  # fmt: skip
    table = benchmark("tables").template("replicas", result=result)
    assert "| four | 2.0 (1.0–3.0) | 2.00 (1.00–3.00) |" in table
    assert "Not measured yet" in benchmark("tables").template("replicas", result=None)
