"""ASGI middleware for request IDs, logging, metrics, authentication and limits of the request body.

As plain ASGI, it counts a body while it arrives, and rejects it unread if the queue is full.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hilum.service.faults import kind_and_place
from hilum.service.metrics import Metrics
from hilum.service.problems import ProblemError, problem, problem_response
from hilum.service.settings import ServeSettings

LOGGER = logging.getLogger("hilum.service")
REQUEST_ID = "X-Request-ID"
PREDICT = "/v1/predict"
IMAGE = "/v1/image"
DICOM = "/v1/dicom"
_IMAGE_PATHS = re.compile(rf"{PREDICT}|{IMAGE}|{DICOM}|/v2/models/.*/infer")
"""Routes that take images; they are rejected unread while the queue is full."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_POLLED = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")  # logged at DEBUG
_PROTECTED = ("/v1/", "/v2/models", "/metrics")
_CLIENT_CLOSED = 499  # in log and metrics, as in those of nginx
_CLOSE = {"Connection": "close"}  # the rest of the body is not read


HELD_UPLOADS = 4
"""Bytes of the bodies of all requests under way, as a multiple of the largest upload."""


class _Body:
    """What has come of the body of a request."""

    taken, waited, is_whole = 0, 0.0, False


class Envelope:
    """Middleware around the application; see the module.

    Args:
        app: The application.
        settings: Settings of the service.
        metrics: Metrics to update.
        turned_away: Returns the problem if no image can be accepted now, else None.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        metrics: Metrics,
        turned_away: Callable[[], ProblemError | None],
    ) -> None:
        self._app, self._settings, self._metrics, self._turned_away = app, settings, metrics, turned_away
        self._held = 0  # bytes of bodies of requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; whatever is not HTTP passes unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, started, status, body = Headers(scope=scope), time.perf_counter(), 0, _Body()
        given = headers.get(REQUEST_ID, "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out[REQUEST_ID] = request_id
                out["X-Content-Type-Options"] = "nosniff"
                out.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            if (refusal := self._refusal(scope, headers)) is not None:
                response = problem_response(refusal.problem, scope, refusal.headers)
                await response(scope, receive, reply)
            else:
                await self._app(scope, self._counted(receive, body), reply)
        except ClientDisconnect:
            status = status or _CLIENT_CLOSED
        except Exception as error:  # unexpected; the server would log its text
            LOGGER.error("failed", exc_info=error, extra={"facts": {"request_id": request_id}})
            if not status:
                response = problem_response(problem("internal", 500, "See the log of the service."), scope)
                await response(scope, receive, reply)
        finally:
            self._held -= body.taken
            self._note(scope, request_id, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: Headers) -> ProblemError | None:
        """Return the problem of a request that is rejected before its body is read, or None."""
        token = self._settings.token
        if token is not None and scope["path"].startswith(_PROTECTED):
            scheme, _, given = headers.get("Authorization", "").partition(" ")
            known = hmac.compare_digest(given.strip().encode(), token.get_secret_value().encode())
            if scheme.lower() != "bearer" or not known:  # RFC 9110, 11.1: the scheme is case-insensitive
                return ProblemError.of("unauthorized", 401, headers={"WWW-Authenticate": "Bearer"})
        length = headers.get("Content-Length", "")
        if length.isdigit() and int(length) > self._settings.max_upload_bytes:
            return self._too_large()
        takes_images = scope["method"] == "POST" and _IMAGE_PATHS.fullmatch(scope["path"])
        return self._turned_away() if takes_images else None

    def _too_large(self) -> ProblemError:
        detail = f"Expected at most {self._settings.max_upload_bytes:,} bytes in one request."
        return ProblemError.of("too-large", 413, detail, headers=_CLOSE)

    def _counted(self, receive: Receive, body: _Body) -> Receive:
        """Return a ``receive`` that rejects a body that exceeds the size limits or arrives too slowly.

        A body has ``timeout`` seconds, and a second more for each ``min_rate`` bytes (as in Apache's mod_reqtimeout).
        Time during which the application does not ask for data is not counted.
        """
        pause = self._settings.timeout

        async def counted() -> Message:
            if body.is_whole:
                return await receive()
            left, started = pause + body.taken / self._settings.min_rate - body.waited, time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), min(pause, left))
            except asyncio.TimeoutError as error:
                seconds = body.waited + time.monotonic() - started
                detail = f"Received {body.taken:,} bytes of the body in {seconds:.0f} s."
                raise ProblemError.of("slow", 408, detail, headers=_CLOSE) from error
            size = len(message.get("body", b""))
            body.waited += time.monotonic() - started
            body.taken, self._held = body.taken + size, self._held + size
            body.is_whole = not message.get("more_body", False)
            if body.taken > self._settings.max_upload_bytes:
                raise self._too_large()
            if self._held > HELD_UPLOADS * self._settings.max_upload_bytes:
                again = {**_CLOSE, "Retry-After": str(self._settings.retry_after)}
                raise ProblemError.of("busy", 429, f"{self._held:,} bytes are in progress.", headers=again)
            return message

        return counted

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # not the path itself, which the client chooses
        self._metrics.requests.labels(scope["method"], route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        # No file names, addresses or bodies, which may contain patient data.
        facts = {"request_id": request_id, "method": scope["method"], "route": route, "status": status}
        level = logging.DEBUG if route in _POLLED and status < HTTPStatus.BAD_REQUEST else logging.INFO
        LOGGER.log(level, "request", extra={"facts": {**facts, "ms": round(1000 * seconds, 1)}})


class JsonLines(logging.Formatter):
    """Log formatter that writes one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON: time (UTC), level, event and facts; errors by type and location, without text."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        facts = {"time": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        facts |= {"event": record.getMessage(), **getattr(record, "facts", {})}
        if record.exc_info and record.exc_info[1] is not None:
            facts["error"], facts["place"] = kind_and_place(record.exc_info[1])
        return json.dumps(facts)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Write the log of the service to standard error, as JSON lines, within a ``with`` block."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    level, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
