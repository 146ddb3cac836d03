"""Refusals as RFC 9457 problem details: what happened, why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hilum.service.schemas import Problem

MEDIA_TYPE = "application/problem+json"

TITLES = {
    "refused": "The gate refuses this image",
    "unreadable": "This file cannot be read",
    "too-many-files": "Too many files in the request",
    "too-large": "The request is too large",
    "slow": "The request stopped coming",
    "unauthorized": "A bearer token is needed",
    "busy": "The queue is full",
    "timeout": "It took too long",
    "stopping": "The service is stopping",
    "bad-request": "The request cannot be understood",
    "not-found": "There is nothing here",
    "internal": "Something failed inside the service",
}
"""Kind of problem to its title."""


class ProblemError(HTTPException):
    """Raised anywhere in a request; answered as its problem.

    FastAPI lets an HTTPException through where it reads a body, and turns all others into a 400.
    """

    def __init__(self, found: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(found.status, found.detail or found.title, dict(headers or {}))
        self.problem = found

    @classmethod
    def of(cls, kind: str, status: int, detail: str = "", headers: Mapping[str, str] | None = None) -> ProblemError:
        """That of a kind of TITLES."""
        return cls(problem(kind, status, detail), headers)


def problem(kind: str, status: int, detail: str = "", **more: Any) -> Problem:
    """The problem of a kind of TITLES."""
    return Problem(type=f"urn:hilum:problem:{kind}", title=TITLES[kind], status=status, detail=detail, **more)


def problem_response(found: Problem, request_id: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem as an answer."""
    content = found.model_copy(update={"request_id": request_id}).model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, found.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)
