"""The parts of the page that run in the browser, mounted: the list, the image, the gallery; none fetches anything."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import streamlit as st

from hilum.imaging.read import read_radiograph
from hilum.service.page.films import thumbnail
from hilum.service.page.gallery import Specimen
from hilum.service.page.style import asset

_ALSO = {"viewer": ("film",)}
"""Scripts that a part needs beside its own."""


def film_list(
    data: dict[str, Any],
    *,
    choose: Callable[[], None],
    look: Callable[[], None],
    remove: Callable[[], None],
    clear: Callable[[], None],
) -> None:
    """The list; what was pressed is in ``st.session_state["list"]`` when a callback runs."""
    _part("list")(
        key="list", data=data, on_choose_change=choose, on_look_change=look, on_remove_change=remove,
        on_clear_change=clear,
    )  # fmt: skip


def viewer(view: str, *, evidence_class: Callable[[], None]) -> None:
    """The image and what is said of it; ``view`` is from hilum.service.page.viewing."""
    _part("viewer")(key="viewer", data=view, on_evidence_class_change=evidence_class)


def gallery(specimens: Sequence[Specimen], take: Callable[[list[int]], None], key: str = "gallery") -> None:
    """The phantoms; ``take`` gets the places of those that were pressed."""
    pictures = [
        {"caption": one.caption, "picture": "data:image/png;base64," + base64.b64encode(_small(one)).decode()}
        for one in specimens
    ]
    _part("gallery")(key=key, data=pictures, on_take_change=lambda: take(st.session_state[key].take))


def _part(name: str) -> Any:
    return st.components.v2.component(
        f"hilum_{name}",
        html='<div class="part"></div>',
        css=asset("common.css") + asset(f"{name}.css"),
        js="".join(asset(f"{script}.js") for script in ("common", *_ALSO.get(name, ()), name)),
    )


@lru_cache(maxsize=32)
def _small(specimen: Specimen) -> bytes:
    return thumbnail(read_radiograph(specimen.content), side=208)
