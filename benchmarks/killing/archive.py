"""A DICOMweb archive in memory, on loopback, which counts how often each object is stored."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import DataElement, Dataset, dcmread

from killing.compare import LEFT_OUT_OF_OBJECTS

_SHOWN = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "StudyDate", "StudyInstanceUID", "SeriesInstanceUID",
    "BodyPartExamined",
)  # fmt: skip


class Archive:
    """The objects by their UID, with the study, and how often each was stored since ``reset``."""

    def __init__(self, images: list[bytes]) -> None:
        self._images = images
        self.reset()

    def reset(self) -> None:
        self.headers: dict[str, Dataset] = {}
        self.contents: dict[str, bytes] = {}
        self.stored: dict[str, int] = {}
        for content in self._images:
            self.put(content)
        self.stored.clear()

    def put(self, content: bytes) -> Dataset:
        header = dcmread(BytesIO(content), stop_before_pixels=True)
        uid = str(header.SOPInstanceUID)
        self.headers[uid], self.contents[uid] = header, content
        self.stored[uid] = self.stored.get(uid, 0) + 1
        return header

    def listed(self, level: str, path: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        named = dict(re.findall(r"(studies|series)/([0-9.]+)", path))
        found, seen = [], set()
        for header in self.headers.values():
            own = {"studies": header.StudyInstanceUID, "series": header.SeriesInstanceUID}
            key = own.get(level, header.SOPInstanceUID)
            wanted = query.get("SOPInstanceUID", [header.SOPInstanceUID])
            if key in seen or header.SOPInstanceUID not in wanted or any(own[at] != uid for at, uid in named.items()):
                continue
            seen.add(key)
            shown = Dataset()
            for name in _SHOWN:
                if name in header:
                    setattr(shown, name, header[name].value)
            found.append(shown.to_json_dict())
        first = int(query.get("offset", ["0"])[0])
        return found[first : first + int(query.get("limit", ["100"])[0])]

    def state(self) -> dict[str, Any]:
        """SHA-256 of each object without its times, and how often each was stored."""
        digests = {uid: _digest(content) for uid, content in self.contents.items()}
        return {"objects": digests, "stored": self.stored}


def _digest(content: bytes) -> str:
    def remove(dataset: Dataset, element: DataElement) -> None:
        if element.keyword in LEFT_OUT_OF_OBJECTS:
            del dataset[element.tag]

    whole = dcmread(BytesIO(content))
    whole.walk(remove)
    rest = BytesIO()
    whole.save_as(rest)
    return hashlib.sha256(rest.getvalue()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    archive: Archive

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        level = parts.path.rsplit("/", 1)[-1]
        if level in ("state", "reset"):
            if level == "reset":
                self.archive.reset()
            self._answer(json.dumps(self.archive.state()).encode(), "application/json")
        elif level in ("studies", "series", "instances"):
            listed = self.archive.listed(level, parts.path.removesuffix(level), parse_qs(parts.query))
            self._answer(json.dumps(listed).encode(), "application/dicom+json")
        else:
            kind = 'multipart/related; type="application/dicom"; boundary=edge'
            content = self.archive.contents[level]
            self._answer(b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--edge--\r\n", kind)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:
            return  # its client is gone
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
        assert boundary
        answer = Dataset()
        answer.ReferencedSOPSequence = []
        for part in body.split(b"--" + boundary[1].encode())[1:-1]:
            header = self.archive.put(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
            answer.ReferencedSOPSequence.append(item)
        self._answer(json.dumps(answer.to_json_dict()).encode(), "application/dicom+json")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(folder: Path) -> tuple[str, int]:
    """Serve the images of a folder from a child process; return the URL and the process."""
    images = [path.read_bytes() for path in sorted(folder.glob("*.dcm"))]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # a killed client
    pid = os.fork()
    if pid:
        server.server_close()
        return f"http://127.0.0.1:{server.server_port}", pid
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Handler.archive = Archive(images)
    try:
        server.serve_forever()
    finally:
        os._exit(0)
