"""Errors of the service as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from hilum.service.schemas import Problem

MEDIA_TYPE = "application/problem+json"

TITLES = {
    "refused": "The input check refused the image",
    "unreadable": "The file cannot be read",
    "too-many-files": "Too many files in the request",
    "too-large": "The request is too large",
    "slow": "The request arrived too slowly",
    "unauthorized": "A valid bearer token is required",
    "busy": "The queue is full",
    "connections": "The service has too many connections",
    "timeout": "The request timed out",
    "stopping": "The service is stopping",
    "stuck": "The service is stuck",
    "bad-request": "The request is invalid",
    "not-found": "Not found",
    "not-acceptable": "The requested media type is not available",
    "media-type": "The media type of the body is not supported",
    "internal": "Internal error",
}
"""Title of each kind of problem."""


class ProblemError(HTTPException):
    """Exception that is returned to the client as problem details.

    It is an HTTPException, since FastAPI converts other exceptions to status 400 while it reads a body.

    Args:
        found: The problem details.
        headers: Further response headers.
    """

    def __init__(self, found: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(found.status, found.detail or found.title, dict(headers or {}))
        self.problem = found

    @classmethod
    def of(cls, kind: str, status: int, detail: str = "", headers: Mapping[str, str] | None = None) -> ProblemError:
        """Return the exception of a kind of TITLES."""
        return cls(problem(kind, status, detail), headers)


def problem(kind: str, status: int, detail: str = "", **more: Any) -> Problem:
    """Return the problem details of a kind of TITLES."""
    return Problem(type=f"urn:hilum:problem:{kind}", title=TITLES[kind], status=status, detail=detail, **more)


def problem_response(found: Problem, scope: Scope, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response with problem details to the request of an ASGI scope."""
    more = {"request_id": scope["state"]["request_id"]}
    if scope["path"].startswith("/v2/"):
        more["error"] = ": ".join(filter(None, (found.title, found.detail)))
    content = found.model_copy(update=more).model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, found.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)
