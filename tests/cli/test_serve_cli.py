"""``hilum app`` says what is wrong before it serves anything."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def test_a_bundle_or_an_audit_that_is_none_is_told(hilum: Callable[..., str], tmp_path: Path) -> None:
    assert "bundle.json" in hilum("app", "--bundle", tmp_path, "--port", "0", code=2)
    assert "audit report" in hilum("app", "--audit", tmp_path / "audit.json", "--port", "0", code=2)


def test_a_port_that_is_taken_is_told(hilum: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in hilum("app", "--port", port, code=2)


def test_without_the_extra_it_says_what_to_install(hilum: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "streamlit", None)
    told = hilum("app", "--port", "0", code=2)
    assert "streamlit" in told
    assert 'pip install ".[serve]"' in told
