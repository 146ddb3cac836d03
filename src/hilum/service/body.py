"""Read the images of a request: a multipart form, or a body that is one image."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from hilum.service.engine import Waiting
from hilum.service.problems import ProblemError

FORM = "multipart/form-data"
FIELD = "files"
DICOM = "application/dicom"
RAW_TYPES = (
    "image/png", "image/jpeg", "image/webp", "image/bmp", "image/tiff", DICOM, "application/octet-stream",
)  # fmt: skip
"""Media types of a body that is one file. Its format is recognized by its content."""

_FILE = {"type": "string", "format": "binary"}
_RAW_CONTENT = {name: {"schema": _FILE} for name in RAW_TYPES}
ONE_FILE: dict[str, Any] = {"requestBody": {"required": True, "content": _RAW_CONTENT}}
"""OpenAPI of a request whose body is one file."""
FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "items": _FILE,
                            "description": "PNG, JPEG, WebP, BMP, TIFF or DICOM; one or many.",
                        }
                    },
                }
            },
            **_RAW_CONTENT,
        },
    }
}
"""OpenAPI of a request with a form of files, or one file as its body."""


@asynccontextmanager
async def request_files(request: Request, limit: int) -> AsyncIterator[list[Waiting]]:
    """Yield the files of a request, which are read when needed; those of a form are deleted at the end.

    Args:
        request: The request.
        limit: Maximum number of files.

    Raises:
        ProblemError: The body has another media type, is truncated, or has too many files or none.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in RAW_TYPES:
        # DICOM without the preamble of PS3.10 is recognized by its suffix alone.
        yield [Waiting("image.dcm" if media_type == DICOM else "image", request.body)]
        return
    if media_type != FORM:
        expected = ", ".join((FORM, *RAW_TYPES))
        raise ProblemError.of("media-type", 415, f"Expected Content-Type {expected}, got {media_type or 'none'}.")
    form = await _read_form(request, limit + 1)
    try:
        files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
        if not files:
            raise ProblemError.of("bad-request", 422, f"The form has no file named {FIELD!r}.")
        if len(files) > limit:
            raise ProblemError.of("too-many-files", 422, f"Expected at most {limit} files, got more.")
        yield [Waiting(file.filename or f"file {n}", file.read) for n, file in enumerate(files, start=1)]
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Parser that rejects a form that was cut off; Starlette's drops the part that is not whole.

    Args:
        request: The request.
        max_files: Maximum number of files.
    """

    def __init__(self, request: Request, max_files: int) -> None:
        super().__init__(request.headers, self._checked(request.stream()), max_files=max_files)
        self._is_whole = False

    def on_end(self) -> None:
        """Note the closing boundary (RFC 2046, 5.1.1)."""
        self._is_whole = True

    async def _checked(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._is_whole:
            raise MultiPartException("The form is truncated: its closing boundary is missing.")


async def _read_form(request: Request, max_files: int) -> FormData:
    try:
        return await _Parser(request, max_files).parse()
    except MultiPartException as error:
        raise ProblemError.of("bad-request", 422, error.message) from error
