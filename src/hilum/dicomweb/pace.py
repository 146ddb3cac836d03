"""HTTP for ``requests`` with limits on the time and the size of a response.

The timeout of ``requests`` is one between bytes: a server that sends one byte a minute holds the client forever.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.retry import Retry

from hilum.errors import RequestError

MIN_RATE = 10_000
"""Bytes of a response that extend its time by a second."""
MAX_TEXT = 1 << 24
"""Maximum size of a response other than an image, bytes; a page of 200 studies has 0.4 MB."""


def paced_session(retries: Retry) -> requests.Session:
    """Return a session whose responses have the read timeout in all, and a second more for each MIN_RATE bytes.

    Head and body count, and only the time that is spent waiting. A response that is slower raises what a timeout
    raises; one that is compressed or, unless an image was streamed, larger than MAX_TEXT raises RequestError.

    Args:
        retries: Which requests are sent again, and when.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _PacedAdapter(max_retries=retries))
    session.headers["Accept-Encoding"] = "identity"  # a megabyte that is compressed may be a gigabyte
    session.hooks["response"].append(_check)
    return session


class _PacedAdapter(HTTPAdapter):
    """Adapter that uses the connections of this module."""

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **more)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def _check(response: requests.Response, *, stream: bool = False, **more: object) -> None:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity" or (not stream and _is_image(response.headers.get("Content-Type", ""))):
        response.close()
        got = f"encoding {encoding!r:.40}" if encoding != "identity" else "an image"
        raise RequestError(f"The response has {got}, which was not asked for.")


def _is_image(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("application/dicom", "application/octet-stream") or kind.startswith("multipart/")


class _PacedStream(io.RawIOBase):
    """Bytes of a socket, until they come too slowly or are too many."""

    def __init__(self, source: socket.socket) -> None:
        super().__init__()
        self._socket, self._raw = source, source.makefile("rb", buffering=0)
        self._pause, self._waited, self._received = source.gettimeout(), 0.0, 0
        self.limit: int | None = None  # bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        started = time.monotonic()
        if self._pause is not None:
            left = self._pause + self._received / MIN_RATE - self._waited
            if left <= 0:
                raise TimeoutError("the response is too slow")
            self._socket.settimeout(min(self._pause, left))
        count = self._raw.readinto(buffer)
        self._waited += time.monotonic() - started
        self._received += count or 0
        if self.limit is not None and self._received > self.limit:
            raise RequestError(f"The response is larger than {self.limit:,} bytes.")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp.close()
        self._stream = _PacedStream(sock)
        self._stream.limit = MAX_TEXT  # also of the head
        self.fp = io.BufferedReader(self._stream, 1 << 16)

    def begin(self) -> None:
        super().begin()
        if _is_image(self.headers.get("Content-Type", "")):
            self._stream.limit = None  # the reader counts


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}
