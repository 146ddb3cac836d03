"""Bind server addresses."""

from __future__ import annotations

import socket

from hilum.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that other machines cannot reach."""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 selects a free port.

    Raises:
        ConfigError: The address cannot be bound.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"Cannot bind {host}, port {port}: {error.strerror or error}.", hint="Choose another --port."
        ) from error


def url_of(host: str, port: int) -> str:
    """Return the http URL of an address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
