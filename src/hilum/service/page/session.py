"""One session: its images, which is chosen, and how they are listed. All of it lives in Streamlit's session state."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from hilum.inference.predictor import Predictor, Upload
from hilum.inference.result import Result
from hilum.service.faults import kind_and_place
from hilum.service.page.downloads import why_no_objects
from hilum.service.page.films import Film, Films, Filter, Order, upload
from hilum.service.page.forgetting import FORGETTING
from hilum.service.page.gallery import specimens
from hilum.service.page.settings import PageSettings, open_predictor
from hilum.service.page.viewing import film_view
from hilum.types import Finding

DialogName: TypeAlias = Literal["card", "audit", "help", "phantoms"]

BATCH = 8
"""Images between two drawings of the page."""
_KEPT_VIEWS = 4
_STATE = "hilum"
_LOGGER = logging.getLogger("hilum.page")


@dataclass
class Session:
    """What one visitor has on the page.

    Attributes:
        settings: of the page.
        images: all of them.
        chosen: key of the image that is looked at.
        evidence_class: whose evidence is looked at; None for the predicted class's.
        filter, order: of the list.
        dialog: the dialog that is open.
        uploads: how many times the upload box was emptied; names the next one.
    """

    settings: PageSettings
    films: Films
    chosen: str | None = None
    evidence_class: str | None = None
    filter: Filter = "all"
    order: Order = "added"
    dialog: DialogName | None = None
    uploads: int = 0
    _views: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: PageSettings) -> Session:
        """The session of the visitor for whom the script runs."""
        if _STATE not in st.session_state:
            st.session_state[_STATE] = cls(settings, Films(settings.max_session << 20))
        session: Session = st.session_state[_STATE]
        if (context := get_script_run_ctx()) is not None:
            FORGETTING.enter(context.session_id, session)
        return session

    @property
    def predictor(self) -> Predictor:
        """That of the process."""
        return open_predictor(self.settings)

    @property
    def film(self) -> Film | None:
        """The chosen image."""
        return self.films.get(self.chosen)

    def add(self, files: Iterable[tuple[str, bytes]]) -> int:
        """Take files in; how many were there already."""
        known = sum(not self.films.add(name, content) for name, content in files)
        self.settle_choice()
        return known

    def take_specimens(self, places: Iterable[int]) -> None:
        """Take phantoms of the gallery in."""
        self.add((specimens()[place].name, specimens()[place].content) for place in places)

    def choose(self, key: str) -> None:
        """Look at another image, at its own class's evidence."""
        if key != self.chosen and self.films.get(key):
            self.chosen, self.evidence_class = key, None

    def remove(self, key: str) -> None:
        """Forget an image; its neighbor in the list is chosen."""
        shown = [film.key for film in self.films.shown(self.filter, self.order)]
        if key == self.chosen and key in shown and len(shown) > 1:
            place = shown.index(key)
            self.choose(shown[place + 1] if place + 1 < len(shown) else shown[place - 1])
        self.films.remove(key)
        self._views.pop(key, None)
        self.settle_choice()

    def clear(self) -> None:
        """Forget all images."""
        self.films.clear()
        self._views.clear()
        self._reasons.clear()
        self.chosen, self.filter = None, "all"

    def settle_choice(self) -> None:
        """Where nothing is chosen, or what was is gone, choose the first of the list."""
        if self.film is None:
            first = next(iter(self.films.shown(self.filter, self.order)), None)
            self.chosen = first.key if first else None

    def answer_some(self) -> bool:
        """Answer the next few images that wait; whether there were any."""
        waiting = self.films.waiting(BATCH)
        sources = [upload(film, self.settings.max_pixels) for film in waiting]
        try:
            answers = list(self.predictor.predict_many(sources))
        except Exception:  # a fault in one image's handling must not keep the others waiting for ever
            answers = [self._alone(source) for source in sources]
        for film, answer in zip(waiting, answers, strict=True):
            film.settle(answer)
        return bool(waiting)

    def _alone(self, source: Upload) -> Result:
        try:
            return next(self.predictor.predict_many([source]))
        except Exception as error:
            kind, place = kind_and_place(error)
            _LOGGER.error("an image could not be answered: %s at %s", kind, place)
            message = f"hilum failed on this file ({kind}); the log of the page says where."
            return Result(
                origin=source.name,
                status="unreadable",
                findings=(Finding("fault", "error", message, (source.name,)),),
            )

    def view(self, film: Film) -> str:
        """What the browser shows of an image; the last few are kept."""
        if film.result is None:
            return film_view(film, self.predictor.manifest, self.settings.max_pixels)
        if film.key not in self._views:
            self._views[film.key] = film_view(film, self.predictor.manifest, self.settings.max_pixels)
            if len(self._views) > _KEPT_VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(film.key)
        return self._views[film.key]

    def look_ahead(self) -> None:
        """Have the next image of the list ready: decoding a large one takes longer than a step should."""
        shown = self.films.shown(self.filter, self.order)
        place = next((place for place, film in enumerate(shown) if film.key == self.chosen), len(shown))
        for film in shown[place + 1 : place + 2]:
            self.view(film)

    def why_no_objects(self, film: Film) -> str:
        """Why no DICOM object can be made of an image, looked at once; empty where one can."""
        if film.key not in self._reasons:
            self._reasons[film.key] = why_no_objects(film)
        return self._reasons[film.key]
