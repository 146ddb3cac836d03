"""The page as Streamlit draws it: a bar, the list, the image, and what is one click away."""

from __future__ import annotations

from html import escape

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from hilum.inference.legend import DISCLAIMER
from hilum.service.page import dialogs
from hilum.service.page.browser import film_list, gallery, viewer
from hilum.service.page.gallery import specimens
from hilum.service.page.menu import download_buttons
from hilum.service.page.rows import film_rows, progress
from hilum.service.page.session import DialogName, Session
from hilum.service.page.style import page_css


def show(session: Session) -> None:
    """Draw the page for one event; then answer a few of the images that wait, and draw it again."""
    st.set_page_config(page_title="hilum", layout="wide")
    st.html(f"<style>{page_css()}</style>")
    _bar(session)
    if len(session.films):
        with st.container(key="room", horizontal=True, gap="small", vertical_alignment="top"):
            with st.container(key="left", width=288, gap="small"):
                _drop_box(session)
                _listing(session)
            with st.container(key="right", width="stretch", gap="small"):
                _reading(session)
    else:
        _welcome(session)
    st.html(f'<footer class="h-foot">{DISCLAIMER}</footer>')
    dialogs.show_dialog(session)
    if session.answer_some():
        st.rerun()
    session.look_ahead()


def _bar(session: Session) -> None:
    manifest = session.predictor.manifest
    with st.container(key="bar", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<div class="h-brand"><b>hilum</b><span>model: {escape(manifest.name)}</span></div>', width="stretch")
        if len(session.films):
            with st.popover("Download", key="downloads"):
                download_buttons(session)
            _dialog_button(session, "Phantoms", "phantoms")
        _dialog_button(session, "Model card", "card")
        _dialog_button(session, "Audit", "audit")
        _dialog_button(session, "Help", "help")


def _dialog_button(session: Session, label: str, name: DialogName) -> None:
    st.button(label, key=name, on_click=lambda: setattr(session, "dialog", name))


def _welcome(session: Session) -> None:
    with st.container(key="welcome", gap="medium"):
        st.html(
            "<h1>Drop chest radiographs here</h1><p>One image or a hundred: PNG, JPEG, WebP, BMP, TIFF or DICOM. They "
            "stay in this session’s memory and are forgotten two minutes after the page is closed.</p>"
        )
        _drop_box(session)
        st.html("<h2>Or try a phantom</h2><p>Drawn chests that belong to nobody; the last three are refused.</p>")
        gallery(specimens(), session.take_specimens)


def _drop_box(session: Session) -> None:
    files = st.file_uploader(
        "Add images",
        accept_multiple_files=True,
        key=f"upload-{session.uploads}",
        label_visibility="collapsed",
    )
    if files:
        known = session.add((file.name, file.getvalue()) for file in files)
        context = get_script_run_ctx()
        for file in files if context else ():
            # The session holds what it needs; the box's own copy would stay until the session ends.
            context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)  # type: ignore[union-attr]
        session.uploads += 1
        if known:
            st.toast(f"{known} of {len(files)} files were in the list already.")
        st.rerun()


def _listing(session: Session) -> None:
    shown = session.films.shown(session.filter, session.order)

    def on_look() -> None:
        look = st.session_state["list"].look
        session.filter, session.order = look["filter"], look["order"]

    def on_choose() -> None:
        session.choose(st.session_state["list"].choose)

    def on_remove() -> None:
        session.remove(st.session_state["list"].remove)

    film_list(
        {
            "rows": film_rows(shown),
            "chosen": session.chosen,
            "filter": session.filter,
            "order": session.order,
            "counts": session.films.counts(),
            "progress": progress(session.films),
        },
        choose=on_choose,
        look=on_look,
        remove=on_remove,
        clear=session.clear,
    )


def _reading(session: Session) -> None:
    film = session.film

    def on_evidence() -> None:
        session.evidence_class = st.session_state["viewer"].evidence_class

    if film is not None:
        viewer(session.view(film), evidence_class=on_evidence)
