"""A self-contained HTML document: it asks nothing of any server, so it can be mailed, archived and read offline.

Images and styles stand in the file itself, there is no script, and a Content-Security-Policy (W3C CSP Level 3) in its
head tells the browser to refuse every request. What is filled in is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum._version import __version__
from hilum.errors import OutputError
from hilum.format import FILTERS
from hilum.storage import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"<?xml": "image/svg+xml",
    b"<svg": "image/svg+xml",
}


def write_document(path: Path, template: str, context: Mapping[str, Any]) -> None:
    """Fill in a template of hilum/templates and write it atomically, as one self-contained file.

    Args:
        path: The HTML to write.
        template: Its name, ``evaluation.html.j2``.
        context: What the template names; a name that it lacks is an error.

    Raises:
        OutputError: The file cannot be written.
    """
    write_text(path, render(template, context))


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return a template of hilum/templates, filled in."""
    return _environment().get_template(template).render({**context, "hilum_version": __version__})


def data_uri(content: bytes | str) -> str:
    """Return a PNG, JPEG or SVG image as a ``data:`` address.

    Raises:
        OutputError: It is none of these.
    """
    raw = content.encode() if isinstance(content, str) else content
    kind = next((kind for start, kind in _SIGNATURES.items() if raw.startswith(start)), None)
    if kind is None:
        raise OutputError(f"Expected a PNG, JPEG or SVG image, got bytes that begin with {raw[:8]!r}.")
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hilum", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        **FILTERS,
        "place": place,
        "data_uri": data_uri,
    }
    return environment


def place(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """Return where a value lies on an axis, for SVG: ``42.00%``, kept inside it."""
    return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%"
