"""Write self-contained HTML documents that can be mailed, archived and read offline.

Images and styles are embedded, there are no scripts, and a Content-Security-Policy (W3C CSP Level 3) in the head
blocks all requests. Inserted text is escaped.
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
    """Render a template of hilum/templates and write it atomically to one self-contained file.

    Args:
        path: HTML file to write.
        template: Name of the template, such as ``evaluation.html.j2``.
        context: Values of the template's variables; an undefined variable is an error.

    Raises:
        OutputError: The file cannot be written.
    """
    write_text(path, render(template, context))


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of hilum/templates and return the HTML."""
    return _environment().get_template(template).render({**context, "hilum_version": __version__})


def data_uri(content: bytes | str) -> str:
    """Return a PNG, JPEG or SVG image as a ``data:`` URI.

    Raises:
        OutputError: The content is none of these formats.
    """
    raw = content.encode() if isinstance(content, str) else content
    kind = next((kind for start, kind in _SIGNATURES.items() if raw.startswith(start)), None)
    if kind is None:
        raise OutputError(f"Cannot embed an image that is not PNG, JPEG or SVG; it begins with {raw[:8]!r}.")
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
    """Return the position of a value on an SVG axis from ``low`` to ``high``, clipped, such as ``42.00%``."""
    return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%"
