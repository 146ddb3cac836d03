"""uvicorn's HTTP/1.1 protocol with deadlines, a limit on connections, and a close that lets the client read the answer.

uvicorn limits only the pause between two requests. Deadlines of bodies that the application reads are in
``middleware.py``.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus
from typing import Any, Literal, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hilum.service.metrics import Metrics
from hilum.service.problems import MEDIA_TYPE, problem
from hilum.service.settings import ServeSettings

DRAINED_UPLOADS = 4
"""Bytes that are read and dropped after an answer, as a multiple of the largest upload."""

Reason = Literal["refused", "evicted", "slow-head", "slow-reader", "unread-body"]


def bounded_protocol(settings: ServeSettings, metrics: Metrics) -> type[H11Protocol]:
    """Return the protocol class of a service, for ``uvicorn.Config(http=...)``.

    Args:
        settings: Settings of the service.
        metrics: Metrics to update.
    """
    return type("BoundedProtocol", (_BoundedProtocol,), {"settings": settings, "metrics": metrics})


class _Transport:
    """A transport whose ``close`` is that of the protocol."""

    def __init__(self, transport: asyncio.Transport, protocol: _BoundedProtocol) -> None:
        self._transport, self._protocol = transport, protocol
        self.write = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._protocol.is_ending or self._transport.is_closing()

    def close(self) -> None:
        self._protocol.end()


class _BoundedProtocol(H11Protocol):
    """One connection; see the module.

    A connection has ``header_timeout`` seconds from its first byte to the end of the head of a request, and ``timeout``
    seconds for each of: the rest of a body after the answer, and 48 KiB of an answer that is larger than 64 KiB.
    """

    settings: ServeSettings
    metrics: Metrics

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection; above the limit, close one without a request, or refuse the new one."""
        self._socket = cast(asyncio.Transport, transport)
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf
        self._drained = 0
        self.is_ending = self._is_stalled = self._is_draining = False
        self.waiting_since: float | None = None  # in the head of a request, or before it
        self._has_begun = False  # the head of a request
        super().connection_made(cast(asyncio.Transport, _Transport(self._socket, self)))
        self._await_head(self.settings.header_timeout)
        if len(self.connections) > self.settings.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.is_ending = True
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data to the parser, or drop them when the connection is about to end."""
        if self.is_ending:
            self._drained += len(data)
            if self._drained > DRAINED_UPLOADS * self.settings.max_upload_bytes:
                self._abort("unread-body")
            return
        super().data_received(data)
        self._watch(has_data=True)

    def pause_writing(self) -> None:
        """Give the client time to read."""
        super().pause_writing()
        self._is_stalled = True
        self._set_deadline(self.settings.timeout)

    def resume_writing(self) -> None:
        """Continue: the client has read."""
        super().resume_writing()
        self._is_stalled = False
        if not self.is_ending:
            self._deadline = math.inf
            self._watch()

    # Called by uvicorn

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of the body."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # the application is told, and its answer is not sent
            cycle.message_event.set()
            if cycle.response_started:
                self._socket.abort()
                return
        self._refuse(HTTPStatus.BAD_REQUEST, "bad-request", msg)

    def shutdown(self) -> None:
        """Close the connection after what is written, unless a request is under way."""
        if self.is_ending or self.waiting_since is not None or self._is_draining:
            self._close()
        else:
            super().shutdown()

    def end(self) -> None:
        """Close the connection after what is written, and after the client has read it (RFC 9112, 9.6).

        Closing a socket with unread data makes the system reset the connection, and the client then loses the answer.
        """
        if self.is_ending:
            return
        is_read = self.conn.their_state in (h11.DONE, h11.IDLE, h11.MUST_CLOSE, h11.CLOSED) and not self._has_begun
        self.is_ending, self.waiting_since = True, None
        if self._socket.is_closing():
            return
        self._set_deadline(self.settings.timeout)
        if (is_read and not self.flow.read_paused) or not self._socket.can_write_eof():
            self._socket.close()
        else:
            self._socket.write_eof()
            self.flow.resume_reading()

    # Deadlines

    def _watch(self, *, has_data: bool = False) -> None:
        """Set the deadline of what the connection waits for."""
        if self.is_ending or self._is_stalled:
            return
        if self.conn.their_state is h11.IDLE:
            self._is_draining = False
            if self.waiting_since is None:
                self._has_begun = False
                self._await_head(max(self.settings.header_timeout, self.timeout_keep_alive))
            if not self._has_begun and self.conn.trailing_data[0]:
                self._has_begun = True
                self._set_deadline(self.settings.header_timeout)
            return
        self.waiting_since, self._has_begun = None, False
        if self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete:
            if not self._is_draining:
                self._is_draining = True
                self._set_deadline(self.settings.timeout)
        else:
            self._deadline = math.inf

    def _await_head(self, seconds: float) -> None:
        self.waiting_since = self.loop.time()
        self._set_deadline(seconds)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:  # else it is set again when it fires
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline > self.loop.time():
            if self._deadline < math.inf:
                self._timer = self.loop.call_at(self._deadline, self._on_timer)
        elif self._is_stalled or (self.is_ending and self._socket.get_write_buffer_size()):
            self._abort("slow-reader")
        elif self._is_draining or self._drained:
            self._abort("unread-body")
        elif self.is_ending:
            self._socket.abort()
        elif self._has_begun:
            self._count("slow-head")
            detail = f"The head of the request was not complete after {self.settings.header_timeout:g} s."
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "slow", detail)
        else:
            self.end()

    # Ends

    def _make_room(self) -> None:
        """Close the connection that has waited longest for a request, or refuse this one if all others have one."""
        others = [each for each in self.connections if isinstance(each, _BoundedProtocol) and each is not self]
        ending = [each for each in others if each.is_ending]
        if len(others) - len(ending) < self.settings.max_connections:
            if len(ending) > self.settings.max_connections:
                min(ending, key=lambda each: each._deadline)._socket.abort()
            return
        waiting = [each for each in others if each.waiting_since is not None]
        if waiting:
            oldest = min(waiting, key=lambda each: each.waiting_since or 0.0)
            oldest._count("evicted")
            oldest._close()
            return
        self._count("refused")
        self._has_begun = True  # its request is on its way
        detail = f"{self.settings.max_connections} requests are under way; try again later."
        self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "connections", detail)

    def _refuse(self, status: HTTPStatus, kind: str, detail: str) -> None:
        """Answer with a problem, past the parser, and end the connection."""
        body = problem(kind, status, detail).model_dump_json(exclude_none=True).encode()
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Type: {MEDIA_TYPE}"]
        lines += [f"Content-Length: {len(body)}", "Cache-Control: no-store", "Connection: close"]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            lines.append(f"Retry-After: {self.settings.retry_after}")
        self._socket.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.end()

    def _close(self) -> None:
        """Close the connection after what is written."""
        self.is_ending, self.waiting_since = True, None
        self._set_deadline(self.settings.timeout)
        self._socket.close()

    def _abort(self, reason: Reason) -> None:
        self._count(reason)
        self.is_ending = True
        self._socket.abort()

    def _count(self, reason: Reason) -> None:
        self.metrics.ended.labels(reason).inc()
