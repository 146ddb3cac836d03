"""A self-contained HTML document: it asks nothing of any server, so it can be mailed, archived and read offline.

Pictures and styles stand in the file itself, there is no script, and a Content-Security-Policy (W3C CSP Level 3) in its
head tells the browser to refuse every request. What is filled in is escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum._version import __version__
from hilum.errors import OutputError
from hilum.storage import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"<?xml": "image/svg+xml",
    b"<svg": "image/svg+xml",
}
_ADDRESSES = frozenset(
    {"src", "srcset", "href", "xlink:href", "data", "poster", "background", "action", "formaction", "cite", "ping"}
)
_ACTIVE = frozenset({"script", "iframe", "object", "embed", "base", "link", "form"})
_STYLE_ADDRESS = re.compile(r"@import|url\(\s*['\"]?(?!data:|#)", re.IGNORECASE)


def write_document(path: Path, template: str, context: Mapping[str, Any]) -> None:
    """Fill in a template of hilum/templates and write it atomically, as one self-contained file.

    Args:
        path: the HTML to write.
        template: its name, ``evaluation.html.j2``.
        context: what the template names; a name that it lacks is an error.

    Raises:
        OutputError: the document would ask for something outside itself, or the file cannot be written.
    """
    html = render(template, context)
    if found := external_references(html):
        raise OutputError(
            f"Expected a self-contained document, got one that asks for {', '.join(sorted(found)[:3])}.",
            hint="This is a fault of the template: please report it.",
        )
    write_text(path, html)


def render(template: str, context: Mapping[str, Any]) -> str:
    """A template of hilum/templates, filled in."""
    return _environment().get_template(template).render({**context, "hilum_version": __version__})


def data_uri(content: bytes | str) -> str:
    """A PNG, JPEG or SVG picture as a ``data:`` address.

    Raises:
        OutputError: it is none of these.
    """
    raw = content.encode() if isinstance(content, str) else content
    kind = next((kind for start, kind in _SIGNATURES.items() if raw.startswith(start)), None)
    if kind is None:
        raise OutputError(f"Expected a PNG, JPEG or SVG picture, got bytes that begin with {raw[:8]!r}.")
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def external_references(html: str) -> set[str]:
    """What a document asks for outside itself, or could run: addresses but ``data:`` and ``#``, scripts, frames."""
    parser = _References()
    parser.feed(html)
    parser.close()
    return parser.found


class _References(HTMLParser):
    """Collects what leaves the document."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._in_style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        if tag in _ACTIVE:
            self.found.add(f"<{tag}>")
        for name, value in attributes:
            text = (value or "").strip()
            outside = name in _ADDRESSES and not text.startswith(("data:image/", "#"))
            if outside or name.startswith("on") or (tag == "meta" and text.lower() == "refresh"):
                self.found.add(f"{name}={text[:80]}")
            elif name == "style":
                self._check_style(text)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._check_style(data)

    def _check_style(self, text: str) -> None:
        if match := _STYLE_ADDRESS.search(text):
            self.found.add(text[match.start() : match.start() + 80])


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
        "number": number,
        "bounds": bounds,
        "count": count,
        "percent": percent,
        "place": place,
        "words": words,
        "p_value": p_value,
        "data_uri": data_uri,
    }
    return environment


def number(value: float | None, digits: int = 3) -> str:
    """``0.912``; a dash where it is undefined, a true minus sign."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def bounds(estimate: Mapping[str, Any], digits: int = 3) -> str:
    """``0.900–0.924``, ``−0.012 to 0.104``, or nothing where there is no interval."""
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return ""
    return f"{number(low, digits)}{' to ' if low < 0 else '–'}{number(high, digits)}"


def count(value: int | None) -> str:
    """``2,777``."""
    return "–" if value is None else f"{value:,}"


def percent(value: float | None, digits: int = 1) -> str:
    """``4.2%``."""
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def p_value(value: float) -> str:
    """``p = 0.031``, or ``p < 0.001``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def place(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """Where a value lies on an axis, for SVG: ``42.00%``, kept inside it."""
    return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%"


def words(name: str) -> str:
    """A name in snake case as words."""
    return name.replace("_", " ")
