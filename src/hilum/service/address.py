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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # asyncio sets TCP_NODELAY only on sockets with this protocol number, which create_server leaves at 0; without
        # it, a response in two packets waits for the client's delayed acknowledgment, 40 ms on Linux.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            bound.listen(2048)
        except OSError:
            bound.close()
            raise
        return bound
    except OSError as error:
        raise ConfigError(
            f"Cannot bind {host}, port {port}: {error.strerror or error}.", hint="Choose another --port."
        ) from error


def url_of(host: str, port: int) -> str:
    """Return the http URL of an address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
