"""Targets: bodies of requests to the service, and answers of a DICOMweb server. No socket is opened."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from answering import answering
from dicom_images import content_of, dicom_image
from fuzz_case import Target
from image_writing import encode, gray
from PIL import Image

from hilum.dicomweb.archive import find_study, images_of
from hilum.dicomweb.selection import Image as ArchivedImage
from hilum.imaging.read import read_radiograph
from hilum.phantoms.chest import draw_phantom

_STUDY = "1.2.3"


def multipart() -> Target:
    """The Content-Type and body of a request for predictions, each with its line in the case."""
    application = _Application()
    image = encode(Image.fromarray(draw_phantom(1, "Normal", size=128).image), optimize=True)
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    named = b"--b\r\nContent-Disposition: form-data; name=files; filename*=UTF-8''a%C3%A9.png\r\n\r\nno image\r\n"
    seeds = [b"multipart/form-data; boundary=b\n" + body + b"--b--\r\n" for body in (
        part + image + b"\r\n", part + image + b"\r\n" + named,
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    )]  # fmt: skip
    seeds += [b"image/png\n" + image, b"application/dicom\n" + content_of(dicom_image(gray(32, 32)))]

    def run(content: bytes) -> Hashable:
        kind, _, body = content.partition(b"\n")
        return application.post("/v1/predict", body, {b"content-type": kind})

    return Target("multipart", seeds, run)


def inference() -> Target:
    """The length of the header and the body of a request of the Open Inference Protocol."""
    application = _Application()
    image = encode(Image.fromarray(draw_phantom(1, "Normal", size=128).image), optimize=True)
    tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1]}
    plain = {"id": "1", "inputs": [tensor | {"data": [base64.b64encode(image).decode()]}]}
    plain["outputs"] = [{"name": "status"}, {"name": "mask", "parameters": {"binary_data": True}}]
    binary = len(image).to_bytes(4, "little") + image
    header = {"inputs": [tensor | {"parameters": {"binary_data_size": len(binary)}}], "outputs": [{"name": "evidence"}]}
    text = json.dumps(header).encode()
    seeds = [b"\n" + json.dumps(plain).encode(), b"%d\n" % len(text) + text + binary]

    def run(content: bytes) -> Hashable:
        length, _, body = content.partition(b"\n")
        headers = {b"inference-header-content-length": length} if length else {}
        return application.post("/v2/models/hilum/infer", body, headers)

    return Target("inference", seeds, run)


def search() -> Target:
    """Answers to searches (QIDO-RS): of studies, series and instances."""
    study = {"0020000D": {"vr": "UI", "Value": [_STUDY]}, "00080020": {"vr": "DA", "Value": ["20260131"]}}
    series = {"00080060": {"vr": "CS", "Value": ["DX"]}, "0020000E": {"vr": "UI", "Value": ["1.2.4"]}}
    series |= {"00180015": {"vr": "CS", "Value": ["CHEST"]}, "00201209": {"vr": "IS", "Value": [2]}}
    image = {
        "00080018": {"vr": "UI", "Value": ["1.2.5"]},
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.1"]},
    }
    everything = {**study, **series, **image, "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}}
    seeds = [json.dumps([one]).encode() for one in (study, series, image, everything)]
    seeds += [json.dumps([everything] * 3).encode(), b"[]", json.dumps(everything).encode()]

    def run(content: bytes) -> Hashable:
        with answering(content, "application/dicom+json") as server:
            images, reports = images_of(server, _STUDY)
            return len(images), reports, find_study(server, _STUDY) is None, server.has(_STUDY, "1.2.5")

    return Target("search", seeds, run)


def retrieve() -> Target:
    """Answers to the retrieval of an image (WADO-RS): the Content-Type, and the body."""
    image = content_of(dicom_image(gray(32, 32)))
    kind = b'multipart/related; type="application/dicom"; boundary=edge'
    body = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + image + b"\r\n--edge--\r\n"
    seeds = [kind + b"\n" + body, kind + b"\n" + body[:-8], b"application/dicom\n" + image]
    seeds.append(b'multipart/related; boundary="e d"; start="<1>"\n--e d\r\n\r\n' + image + b"\r\n--e d--")

    def run(content: bytes) -> Hashable:
        declared, _, body = content.partition(b"\n")
        with answering(body, declared.decode("latin-1")) as server:
            fetched = server.fetch(ArchivedImage(_STUDY, "1.2.4", "1.2.5"))
        return read_radiograph(fetched, origin="1.2.5.dcm").shape

    return Target("retrieve", seeds, run)


def store() -> Target:
    """Answers to the storage of an object (STOW-RS)."""
    dataset = dicom_image(gray(8, 8))
    item = {
        "00081150": {"vr": "UI", "Value": [dataset.SOPClassUID]},
        "00081155": {"vr": "UI", "Value": [dataset.SOPInstanceUID]},
    }
    failed = item | {"00081197": {"vr": "US", "Value": [272]}}
    answers = [{"00081199": {"vr": "SQ", "Value": [item]}}, {"00081198": {"vr": "SQ", "Value": [failed]}}, {}]
    seeds = [b"application/dicom+json\n" + json.dumps(one).encode() for one in answers]
    seeds.append(
        b'application/dicom+xml\n<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00081199" vr="SQ" '
        b'keyword="ReferencedSOPSequence"><Item number="1"/></DicomAttribute></NativeDicomModel>'
    )

    def run(content: bytes) -> Hashable:
        declared, _, body = content.partition(b"\n")
        with answering(body, declared.decode("latin-1")) as server:
            server.store(_STUDY, [dataset])
        return True

    return Target("store", seeds, run)


class _Application:
    """The service's application, called as a server calls it."""

    def __init__(self) -> None:
        from hilum.service.api import create_app
        from hilum.service.settings import ServeSettings

        self._app = create_app(ServeSettings(workers=1, measure=0, backend="onnxruntime", precision="fp32"))
        self._loop = asyncio.new_event_loop()

    def post(self, path: str, body: bytes, headers: dict[bytes, bytes]) -> Hashable:
        """Return the status and kind of an answer; an unexpected exception inside the application is raised."""
        return self._loop.run_until_complete(self._post(path, body, headers))

    async def _post(self, path: str, body: bytes, headers: dict[bytes, bytes]) -> Hashable:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "state": {},
            "headers": [(b"content-length", str(len(body)).encode()), *headers.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        parts = [body[: len(body) // 3], body[len(body) // 3 :]]
        answers: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            answers.append(message)

        with raising():
            await self._app(scope, receive, send)
        status = answers[0]["status"]
        if status == 500:
            raise AssertionError("status 500")
        content = b"".join(answer.get("body", b"") for answer in answers[1:])
        return status, content[:40]


@contextmanager
def raising() -> Iterator[None]:
    """Raise what the service logs before it answers with status 500."""
    logger, handler = logging.getLogger("hilum.service"), _Raising()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Raising(logging.Handler):
    """Raises the exception of a record."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and record.exc_info and record.exc_info[1] is not None:
            raise record.exc_info[1]
