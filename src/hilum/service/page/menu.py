"""The menu of downloads. A file is made when its button is pressed, of what the session then holds.

Streamlit keeps what makes a file for longer than the button is shown, so that it must hold no image.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from weakref import ref

import streamlit as st

from hilum.data.find import DICOM_SUFFIXES
from hilum.errors import DataError
from hilum.inference.result import Prediction
from hilum.service.page.downloads import (
    everything_zip,
    file_name,
    mask_file,
    overlay_file,
    report_file,
    segmentation_file,
    table_csv,
)
from hilum.service.page.films import Film
from hilum.service.page.session import Session

_DICOM = "application/dicom"


def download_buttons(session: Session) -> None:
    """Buttons for the chosen image and for all images."""
    film, manifest, cap = session.film, session.predictor.manifest, session.settings.max_pixels
    if film is not None and film.content and film.result is not None:
        _of_film(session, film)
    count = len(session.films) - len(session.films.waiting())
    st.caption(f"All {count} images" if count != 1 else "The one image")
    _button(session, "Table, CSV", lambda now: table_csv(now.films, manifest), "predictions.csv", "text/csv")
    _button(
        session,
        "Overlays, masks and table, ZIP",
        lambda now: everything_zip(now.films, manifest, cap),
        "hilum-images.zip",
        "application/zip",
    )


def _of_film(session: Session, film: Film) -> None:
    predictor, cap, key = session.predictor, session.settings.max_pixels, film.key
    is_predicted = isinstance(film.result, Prediction)
    st.caption(film.name)
    if is_predicted:
        _button(
            session,
            "Overlay, PNG",
            lambda now: overlay_file(_film(now, key), predictor.manifest, cap, now.evidence_class),
            file_name(film, "overlay"),
        )
        _button(session, "Lung mask, PNG", lambda now: mask_file(_film(now, key)), file_name(film, "mask"))
    if not film.is_dicom:
        return
    if reason := session.why_no_objects(film):
        st.caption(f"No DICOM object: {reason}")
        return
    if is_predicted:
        _button(
            session,
            "Segmentation, DICOM SEG",
            lambda now: segmentation_file(_film(now, key), predictor),
            _object_name(film.name, "seg"),
            _DICOM,
        )
    _button(
        session,
        "Report, DICOM SR",
        lambda now: report_file(_film(now, key), predictor),
        _object_name(film.name, "sr"),
        _DICOM,
    )


def _button(session: Session, label: str, make: Callable[[Session], bytes], name: str, mime: str = "image/png") -> None:
    weak = ref(session)

    def made() -> bytes:
        now = weak()
        if now is None:
            raise DataError("Expected a session that is still open, this one has ended.")
        return make(now)

    st.download_button(label, made, name, mime, key=f"download-{label}", on_click="ignore", width="stretch")


def _film(session: Session, key: str) -> Film:
    film = session.films.get(key)
    if film is None:
        raise DataError("Expected an image of this session, it was removed.")
    return film


def _object_name(name: str, kind: str) -> str:
    return str(PurePath(name).with_suffix(DICOM_SUFFIXES[kind]))
