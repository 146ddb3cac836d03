"""Serve the web app: static files of this package, under a Content-Security-Policy that allows no other host."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from hilum.service.phantoms import EXAMPLES, example_png
from hilum.service.problems import ProblemError
from hilum.storage import sha256_bytes

FOLDER = Path(__file__).with_name("web")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the web app: no inline script or style, no other host."""
_HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
_TYPES = {".mjs": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def add_web_app(app: FastAPI) -> None:
    """Add the web app at ``/`` and its files and example images below ``/web/``."""
    files = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in _TYPES}

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return _file(files["index.html"], request)

    @app.get("/web/examples", include_in_schema=False)
    async def examples() -> list[dict[str, str]]:
        return [{"name": name, "caption": example.caption} for name, example in EXAMPLES.items()]

    @app.get("/web/examples/{name}", include_in_schema=False)
    def example(name: str) -> Response:
        if name not in EXAMPLES:
            raise ProblemError.of("not-found", 404)
        return Response(example_png(name), media_type="image/png", headers={"Cache-Control": "no-cache"})

    @app.get("/web/{name:path}", include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        if name not in files:
            raise ProblemError.of("not-found", 404)
        return _file(files[name], request)


def _file(path: Path, request: Request) -> Response:
    content, tag = _read(path)
    headers = {**_HEADERS, "ETag": tag}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[path.suffix], headers=headers)


@lru_cache(maxsize=64)
def _read(path: Path) -> tuple[bytes, str]:
    content = path.read_bytes()
    return content, f'"{sha256_bytes(content)[:32]}"'
