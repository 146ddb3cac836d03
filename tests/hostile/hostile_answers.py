"""Answers that a DICOMweb server could give."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from dicom_images import dicom_image
from image_writing import gray
from pydicom.dataset import Dataset

from hilum.dicomweb.archive import find_study, images_of
from hilum.dicomweb.selection import Image
from hilum.dicomweb.server import Server

JSON, XML = "application/dicom+json", "application/dicom+xml"
_PARTS = 'multipart/related; type="application/dicom"; boundary=edge'
_STORED, _FAILED, _INSTANCE, _REASON = "00081199", "00081198", "00081155", "00081197"


class Answer(NamedTuple):
    """An answer, and the name of the exception that the request must end with, or ``ok``."""

    name: str
    request: Callable[[Server], object]
    body: bytes
    answer: str
    kind: str = JSON


def _search(server: Server) -> object:
    return images_of(server, "1.2.3"), find_study(server, "1.2.3")


def _fetch(server: Server) -> object:
    return server.fetch(Image("1.2.3", "1.2.4", "1.2.5"))


def _object() -> Dataset:
    return dicom_image(gray(8, 8))


def _store(server: Server) -> object:
    return server.store("1.2.3", [_object()])


def _items(tag: str, *items: dict[str, Any]) -> bytes:
    return json.dumps({tag: {"vr": "SQ", "Value": [*items]}}).encode()


def _uid(text: object) -> dict[str, Any]:
    return {"vr": "UI", "Value": [text]}


_OWN = str(_object().SOPInstanceUID)

ANSWERS = [
    Answer("search: nothing", _search, b"[]", "ok"),
    Answer("search: an object", _search, b"{}", "ok"),
    Answer("search: text", _search, b"<html>", "RequestError"),
    Answer("search: not UTF-8", _search, b"[\xff]", "RequestError"),
    Answer("search: nested 100,000 deep", _search, b"[" * 100_000, "RequestError"),
    Answer("search: numbers for items", _search, b"[1, 2]", "RequestError"),
    Answer("search: numbers for elements", _search, b'[{"00080060": 5, "0020000E": []}]', "ok"),
    Answer("search: a series that is no UID", _search, json.dumps([
        {"00080060": {"vr": "CS", "Value": ["DX"]}, "0020000E": _uid("../../etc")}]).encode(), "ok"),
    Answer("search: an unknown character set", _search, b"[]", "ok", JSON + "; charset=hilum"),
    Answer("fetch: text", _fetch, b"<html>", "RequestError", "text/html"),
    Answer("fetch: no boundary", _fetch, b"--edge\r\n\r\n", "RequestError", "multipart/related"),
    Answer("fetch: no part", _fetch, b"--edge--", "RequestError", _PARTS),
    Answer("fetch: a part without end", _fetch, b"--edge\r\n\r\n" + bytes(100), "RequestError", _PARTS),
    Answer("fetch: a boundary that is not ASCII", _fetch, b"--edge", "RequestError", _PARTS[:-4] + "\xe9"),
    Answer("store: stored", _store, _items(_STORED, {_INSTANCE: _uid(_OWN)}), "ok"),
    Answer("store: failed", _store, _items(_FAILED, {_INSTANCE: _uid(_OWN)}), "RequestError"),
    Answer("store: stored, without a UID", _store, _items(_STORED, {}), "RequestError"),
    Answer("store: failed, without a UID", _store, _items(_FAILED, {}), "RequestError"),
    Answer("store: another object stored", _store, _items(_STORED, {_INSTANCE: _uid("1.2")}), "RequestError"),
    Answer("store: several reasons", _store, _items(_FAILED, {
        _INSTANCE: _uid(_OWN), _REASON: {"vr": "US", "Value": [1, 2]}}), "RequestError"),
    Answer("store: a reason in words", _store, _items(_FAILED, {
        _INSTANCE: _uid(_OWN), _REASON: {"vr": "US", "Value": ["full"]}}), "RequestError"),
    Answer("store: text", _store, b"stored", "RequestError"),
    Answer("store: XML without end", _store, b"<NativeDicomModel>", "RequestError", XML),
    Answer("store: XML, an item without a UID", _store, (
        b'<NativeDicomModel><DicomAttribute tag="00081199" vr="SQ"><Item number="1"/></DicomAttribute>'
        b"</NativeDicomModel>"), "RequestError", XML),
]  # fmt: skip
