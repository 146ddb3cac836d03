"""Refusals as RFC 9457 problem details: what happened, why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from hilum.serving.schemas import FindingSchema

MEDIA_TYPE = "application/problem+json"

TITLES = {
    "refused": "The gate refuses this film",
    "unreadable": "This file cannot be read",
    "no-files": "No file in the request",
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


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "type": "urn:hilum:problem:refused", "title": TITLES["refused"], "status": 422,
        "detail": "lateral view: probability of a frontal chest film 0.0004, expected at least 0.5",
        "request_id": "6f1c...", "file": "film.dcm",
        "findings": [{"check": "frontal", "severity": "error", "message": "lateral view: ..."}],
    }]})  # fmt: skip

    type: str = Field(description="urn:hilum:problem:KIND.")
    title: str = Field(description="The kind in words, always the same for a kind.")
    status: int = Field(description="The HTTP status that it is or would be.")
    detail: str = Field("", description="What happened here.")
    request_id: str = Field("", description="As in the header X-Request-ID and in the service's log.")
    file: str | None = Field(None, description="The name that the client gave the file.")
    findings: list[FindingSchema] = Field([], description="All that speaks against the file.")


class ProblemError(HTTPException):
    """Raised anywhere in a request; answered as its problem."""

    def __init__(
        self, kind: str, status: int, detail: str = "", *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        # FastAPI lets an HTTPException through where it reads a body, and turns all others into a 400
        super().__init__(status, detail or TITLES[kind], dict(headers or {}))
        self.problem = problem(kind, status, detail, **more)


def problem(kind: str, status: int, detail: str = "", **more: Any) -> Problem:
    """The problem of a kind of TITLES."""
    return Problem(type=f"urn:hilum:problem:{kind}", title=TITLES[kind], status=status, detail=detail, **more)


def problem_response(found: Problem, request_id: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem as an answer."""
    content = found.model_copy(update={"request_id": request_id}).model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, found.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)
