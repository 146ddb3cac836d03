"""Where a server listens."""

from __future__ import annotations

import socket

from hilum.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""The addresses that no other machine reaches."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ConfigError: The address cannot be bound.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"Expected to bind {host}, port {port}, got: {error.strerror or error}.", hint="Choose another --port."
        ) from error


def url_of(host: str, port: int) -> str:
    """The address as a browser takes it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
