"""What an HTML document asks for outside itself: the pages that hilum writes must ask for nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_ADDRESSES = frozenset(
    {"src", "srcset", "href", "xlink:href", "data", "poster", "background", "action", "formaction", "cite", "ping"}
)
_ACTIVE = frozenset({"script", "iframe", "object", "embed", "base", "link", "form"})
_STYLE_ADDRESS = re.compile(r"@import|url\(\s*['\"]?(?!data:|#)", re.IGNORECASE)


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
