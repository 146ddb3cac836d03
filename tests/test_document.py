"""Documents: escaped, self-contained, written whole or not at all."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from html_references import external_references
from jinja2 import DictLoader, UndefinedError
from report_writing import image_png

from hilum import document
from hilum.document import data_uri, place, render, write_document
from hilum.errors import OutputError

CONTEXT = {"kind": "Kind", "title": "<b>&\"'", "sections": {"one": "One"}}


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Templates beside those of the package."""
    own: dict[str, str] = {}
    environment = document._environment()
    package = environment.loader
    assert package is not None

    class Both(DictLoader):
        def get_source(self, environment, template):  # type: ignore[no-untyped-def]
            return (super() if template in own else package).get_source(environment, template)

    monkeypatch.setattr(environment, "loader", Both(own))
    return own


def test_what_is_filled_in_is_escaped() -> None:
    html = render("base.html.j2", CONTEXT)
    assert "<title>&lt;b&gt;&amp;&#34;&#39;</title>" in html
    assert "<b>" not in html


def test_the_base_is_self_contained_and_says_once_what_it_is() -> None:
    html = render("base.html.j2", CONTEXT)
    assert external_references(html) == set()
    assert html.count("Research tool, not a medical device.") == 1
    assert '<html lang="en">' in html
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    assert '<a href="#one">One</a>' in html


def test_a_name_that_is_absent_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("base.html.j2", {"kind": "", "sections": {}})


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://example.org/a.png">',
        '<img src="image.png">',
        '<img srcset="image.png 2x" src="data:image/png;base64,AAAA">',
        '<img src="data:text/html,<script>">',
        '<a href="//example.org">x</a>',
        '<svg><image xlink:href="image.svg"/></svg>',
        '<link rel="stylesheet" href="#">',
        "<script>1</script>",
        '<iframe srcdoc="x"></iframe>',
        '<p onclick="x()">x</p>',
        '<p style="background: url(image.png)">x</p>',
        "<style>p { background: url('https://example.org/a.png') }</style>",
        '<style>@import "a.css";</style>',
        '<meta http-equiv="refresh" content="0; url=elsewhere">',
    ],
)
def test_references_outside_are_found(html: str) -> None:
    assert external_references(f"<body>{html}</body>")


def test_text_that_names_an_address_is_no_reference() -> None:
    html = (
        '<a href="#x">see http://example.org</a> <img src="data:image/png;base64,AAAA"> '
        "<style>p { background: url(data:image/png;base64,AAAA) url(#a) }</style> url(image.png)"
    )
    assert external_references(html) == set()


def test_a_document_is_written_filled_in_and_alone(tmp_path: Path, templates: dict[str, str]) -> None:
    templates["own.html.j2"] = "<p>{{ title }}</p>"
    write_document(tmp_path / "page.html", "own.html.j2", CONTEXT)
    assert (tmp_path / "page.html").read_text() == "<p>&lt;b&gt;&amp;&#34;&#39;</p>"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (image_png(0), "png"),
        (b"\xff\xd8\xff\xe0rest", "jpeg"),
        ("<svg/>", "svg+xml"),
        ("<?xml version='1.0'?>", "svg+xml"),
    ],
)
def test_images_become_addresses(content: bytes | str, kind: str) -> None:
    head, _, body = data_uri(content).partition(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(body) == (content.encode() if isinstance(content, str) else content)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(OutputError):
        data_uri(b"GIF89a")


def test_a_place_on_an_axis_stays_inside_it() -> None:
    assert (place(0.25), place(-3, -1, 1), place(0, -1, 1), place(7)) == ("25.00%", "0.00%", "50.00%", "100.00%")


def test_the_bar_of_an_interval_lies_where_its_numbers_are(templates: dict[str, str]) -> None:
    templates["bar.html.j2"] = '{% from "parts.html.j2" import bar %}{{ bar(e, -1, 1, chance=0, band=(-0.2, 0.2)) }}'
    html = render("bar.html.j2", {"e": {"value": 0.5, "low": 0.4, "high": 0.7, "n": 9}})
    assert re.search(r'class="interval" x1="70.00%" x2="85.00%"', html)
    assert re.search(r'class="dot" cx="75.00%"', html)
    assert re.search(r'class="chance" x1="50.00%"', html)
    assert re.search(r'<svg x="40.00%" y="0" width="20.00%"', html)
    undefined = render("bar.html.j2", {"e": {"value": None, "low": None, "high": None, "n": 0}})
    assert "interval" not in undefined
    assert "dot" not in undefined
