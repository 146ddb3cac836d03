"""What is one click away: the model card, the audit's findings, how to read the page, the phantoms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import streamlit as st

from hilum.audit.report import AuditReport
from hilum.service.page.browser import gallery
from hilum.service.page.documents import card_on_data, model_card, read_audit, told_findings
from hilum.service.page.gallery import specimens
from hilum.service.page.session import DialogName, Session
from hilum.service.page.viewing import set_level

_KEYS = (
    ("↓ or j, ↑ or k", "next image, image before"),
    ("o, held", "the image as it is in the file, nothing drawn over it"),
    ("i", "invert"),
    ("l", "lung outline on, off"),
    ("e", "evidence on, off"),
    ("1 to 9", "evidence of another class"),
    ("+, −, 0", "zoom in, out, whole image"),
    ("w", "window and level back"),
)
_SIGNS = {"error": ":material/error:", "warning": ":material/warning:", "info": ":material/info:"}


def show_dialog(session: Session) -> None:
    """Draw the dialog that is open, if one is; it stays open while images are being answered behind it."""

    def close() -> None:
        session.dialog = None

    if session.dialog is not None:
        title, draw = _DIALOGS[session.dialog]
        width: Literal["medium", "large"] = "large" if session.dialog in ("card", "audit") else "medium"
        st.dialog(title, width=width, on_dismiss=close)(draw)(session)


def _card(session: Session) -> None:
    bundle = session.predictor.bundle
    st.caption(f"Bundle {bundle.manifest.bundle_id[:12]}, {bundle.manifest.name}")
    st.markdown(model_card(bundle))


def _audit(session: Session) -> None:
    """The findings of an audit report; without one, what the card says of data and limits."""
    if session.settings.audit is not None:
        _findings(read_audit(session.settings.audit))
        return
    st.caption(
        "What the model card says of its data. For an audit of your own: `hilum audit DATA --output audit`, then "
        "`hilum app --audit audit`."
    )
    parts = card_on_data(model_card(session.predictor.bundle))
    for title, text in parts:
        st.markdown(f"#### {title}\n\n{text}")
    if not parts:
        st.markdown("The card says nothing of the data.")


def _help(session: Session) -> None:
    """The keys, and what the numbers and colors mean."""
    manifest = session.predictor.manifest
    level = set_level(manifest)
    sets = (
        f"Classes marked *in set* are **not ruled out at {level}**: on images like those the set holds the right class "
        f"in at least {level} of each class's images. "
        if level
        else ""
    )
    st.markdown(
        f"""
**Probability** is calibrated on the validation images: of those answered with 80%, about 80% were right. {sets}*Unsure*
means that the probability is below the model's bound: a person should decide.

**Evidence** of a class is what each place adds to its logit; inside the lung it adds up to the class's answer. Colors
start at a quarter of the image's strongest place. **Region** outlines the strongest evidence that covers the chosen
share of the lung, and says how much of all evidence in favor lies in it.

Wheel or pinch zooms, dragging moves, a double click shows the whole image; with Shift, dragging sets window and level.
"""
    )
    st.markdown("| key | |\n|---|---|\n" + "\n".join(f"| {keys} | {does} |" for keys, does in _KEYS))
    st.caption(f"Bundle {manifest.bundle_id[:12]}")


def _phantoms(session: Session) -> None:
    """The gallery again, once there are images."""

    def take(places: list[int]) -> None:
        session.take_specimens(places)
        session.dialog = None

    gallery(specimens(), take, key="gallery-again")
    if session.dialog is None:
        st.rerun()


def _findings(report: AuditReport) -> None:
    data = report.data
    st.caption(f"{data.name}: {data.images:,} images, {data.groups:,} groups, {len(data.sources)} sources")
    if report.conclusion:
        st.markdown("#### Conclusion")
        st.text(report.conclusion.text)
    for finding in told_findings(report):
        with st.container(border=True):
            st.markdown(f"{_SIGNS[finding.severity]} **{finding.word}** · {finding.check.replace('_', ' ')}")
            st.text(finding.message)
            if finding.count:
                st.caption(f"{finding.count:,} images")
    for part, why in report.not_run.items():
        st.caption(f"Not run: {part}: {why}")


_DIALOGS: dict[DialogName, tuple[str, Callable[[Session], None]]] = {
    "card": ("Model card", _card),
    "audit": ("Audit", _audit),
    "help": ("How to read this", _help),
    "phantoms": ("Phantoms", _phantoms),
}
