"""``hilum serve`` and ``hilum app`` report what is wrong before they serve anything."""

from __future__ import annotations

import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hilum.backends.base import CHUNK
from hilum.cli.serve import TOKEN
from hilum.service import api
from hilum.service.settings import ServeSettings

COMMANDS = ("serve", "app")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bundle_or_an_audit_that_is_none_is_reported(hilum: Callable[..., str], tmp_path: Path, command: str) -> None:
    assert "bundle.json" in hilum(command, "--bundle", tmp_path, "--port", "0", code=2)
    assert "audit report" in hilum(command, "--audit", tmp_path / "audit.json", "--port", "0", code=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_port_that_is_taken_is_reported(hilum: Callable[..., str], command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in hilum(command, "--port", port, code=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_extra_it_says_what_to_install(
    hilum: Callable[..., str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "hilum.service.api", None)
    assert 'pip install ".[serve]"' in hilum(command, "--port", "0", code=2)


def test_the_app_is_the_service_on_this_machine_in_the_browser(
    hilum: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[ServeSettings] = []
    opened: list[str] = []

    def run(settings: ServeSettings, announce: Callable[[str], None]) -> None:
        served.append(settings)
        announce("http://127.0.0.1:8000")

    def remember(address: str, *more: Any) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(api, "run", run)
    monkeypatch.setattr(webbrowser, "open", remember)
    monkeypatch.setenv(TOKEN, "secret")
    assert "http://127.0.0.1:8000" in hilum("app", "--max-upload", "7")
    assert opened == ["http://127.0.0.1:8000"]
    hilum("app", "--no-browser")
    hilum("serve", "--cors", "https://a.example", "--cors", "https://b.example", "--host", "0.0.0.0")
    assert len(opened) == 1
    assert [settings.host for settings in served] == ["127.0.0.1", "127.0.0.1", "0.0.0.0"]
    assert served[0].max_upload == 7
    assert served[0].token is not None
    assert served[2].cors == ("https://a.example", "https://b.example")


def test_options_of_the_service(hilum: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[ServeSettings] = []
    monkeypatch.setattr(api, "run", lambda settings, announce: served.append(settings))
    hilum("serve")
    hilum("serve", "--batch-size", "2", "--max-connections", "9")
    assert [(settings.batch_size, settings.max_connections) for settings in served] == [(CHUNK, 256), (2, 9)]
    hilum("serve", "--batch-size", CHUNK)
    hilum("serve", "--batch-size", CHUNK + 1, code=2)
