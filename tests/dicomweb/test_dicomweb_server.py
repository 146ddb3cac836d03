"""The transactions against a server that answers as a test tells it to, on loopback."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian

from hilum.dicomweb import server as server_module
from hilum.dicomweb.address import Address
from hilum.dicomweb.archive import find_studies
from hilum.dicomweb.selection import Image
from hilum.dicomweb.server import Server
from hilum.errors import HilumError, RequestError, ServerError

IMAGE = Image("1.1", "1.2", "1.3")
CONTENT = b"\0" * 128 + b"DICM" + bytes(range(256)) * 40 + b"\r\n--other\r\n"
MULTIPART = 'multipart/related; type="application/dicom"; boundary=edge'
BODY = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + CONTENT + b"\r\n--edge--\r\n"


class Told(NamedTuple):
    """One answer."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/dicom+json"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Script:
    """The answers in order, the last one over and over, and what was asked."""

    def __init__(self) -> None:
        self.answers: list[Told] = []
        self.asked: list[Asked] = []
        self.url = ""

    def set(self, *answers: Told) -> None:
        self.answers, self.asked = list(answers), []

    def server(self, *, timeout: tuple[float, float] = (5, 5), **credentials: Any) -> Server:
        return Server(Address(self.url, **credentials), timeout=timeout)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from hilum.dicomweb import server

    monkeypatch.setattr(server, "_RETRIES", server._RETRIES.new(backoff_factor=0))
    told = Script()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            told.asked.append(Asked(self.command, self.path, dict(self.headers), self.rfile.read(size)))
            answer = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
            time.sleep(answer.delay)
            self.send_response(answer.status)
            for name, text in answer.headers:
                self.send_header(name, text)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # gone on purpose
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told.url = f"http://127.0.0.1:{listening.server_port}/dicom-web"
        yield told
        listening.shutdown()
        thread.join()


def studies(*uids: str, modality: str = "DX") -> bytes:
    return json.dumps(
        [
            {"0020000D": {"vr": "UI", "Value": [uid]}, "00080061": {"vr": "CS", "Value": ["KO", modality]}}
            for uid in uids
        ]
    ).encode()


def report(uid: str = "2.25.1") -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = ComprehensiveSRStorage, uid, "SR"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.1", "1.9"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    return dataset


def stored(uid: str = "", failed: str = "") -> bytes:
    def sequence(name: str, more: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"00081155": {"vr": "UI", "Value": [name]}, **more}] if name else []

    return json.dumps(
        {
            "00081199": {"vr": "SQ", "Value": sequence(uid, {})},
            "00081198": {"vr": "SQ", "Value": sequence(failed, {"00081197": {"vr": "US", "Value": [0xA700]}})},
        }
    ).encode()


def test_an_image_comes_as_it_is_stored(script: Script) -> None:
    script.set(Told(body=BODY, kind=MULTIPART))
    with script.server() as server:
        assert server.fetch(IMAGE) == CONTENT
    (asked,) = script.asked
    assert asked.path == "/dicom-web/studies/1.1/series/1.2/instances/1.3"
    assert asked.headers["Accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert "Authorization" not in asked.headers
    script.set(Told(body=CONTENT, kind="application/dicom"))
    with script.server() as server:
        assert server.fetch(IMAGE) == CONTENT


def test_credentials_are_the_named_ones_alone(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    sent = []
    for credentials in ({}, {"token": "t0ken"}, {"login": ("hilum", "s3cret")}):
        script.set(Told(body=studies("1.1")))
        with script.server(**credentials) as server:
            assert [study.uid for study in find_studies(server)] == ["1.1"]
        sent.append(script.asked[0].headers.get("Authorization"))
    assert sent == [None, "Bearer t0ken", "Basic aGlsdW06czNjcmV0"]


@pytest.mark.parametrize("status", [429, 503, 504])
def test_a_busy_server_is_asked_again(script: Script, status: int) -> None:
    script.set(Told(status), Told(status), Told(body=studies("1.1")))
    with script.server() as server:
        assert [study.uid for study in find_studies(server)] == ["1.1"]
    assert len(script.asked) == 3
    script.set(Told(status), Told(body=stored("2.25.1")))
    with script.server() as server:
        server.store("1.1", [report()])
    first, second = script.asked
    assert first.path == "/dicom-web/studies/1.1"
    assert first.body == second.body
    assert first.headers["Host"] == script.url.split("/")[2]
    assert b"\0" * 128 + b"DICM" in first.body


def test_a_server_that_stays_busy(script: Script) -> None:
    script.set(Told(503))
    with script.server() as server, pytest.raises(RequestError, match="503 Service Unavailable"):
        find_studies(server)
    assert len(script.asked) == 5


@pytest.mark.parametrize(
    ("told", "error", "said"),
    [
        (Told(401), ServerError, r"401 Unauthorized\. Set HILUM_DICOMWEB_USER"),
        (Told(403), ServerError, "403 Forbidden"),
        (Told(404, b"Mustermann"), RequestError, r"404 Not Found\.$"),
        (Told(500, b"Mustermann"), RequestError, "500 Internal Server Error"),
        (Told(302, headers=(("Location", "https://elsewhere/"),)), ServerError, "redirects to 'https://elsewhere/'"),
        (Told(body=b"<html>Mustermann", kind="text/html"), RequestError, "not a DICOM file but text/html"),
        (Told(body=BODY[:-20], kind=MULTIPART), RequestError, "incomplete"),
        (Told(body=b"", kind=MULTIPART), RequestError, "incomplete"),
        (Told(body=b"x" * 200_000, kind=MULTIPART), RequestError, "larger than 100,000 bytes"),
        (Told(delay=0.6), RequestError, r"no response for 0\.3 s"),
    ],
)
def test_an_image_that_does_not_come(
    script: Script, monkeypatch: pytest.MonkeyPatch, told: Told, error: type[HilumError], said: str
) -> None:
    from hilum.dicomweb import server as module

    monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    script.set(told)
    with script.server(timeout=(1, 0.3)) as server, pytest.raises(error, match=said) as caught:
        server.fetch(IMAGE)
    assert type(caught.value) is error
    assert "Mustermann" not in str(caught.value)


def test_what_is_no_search_result(script: Script) -> None:
    for body in (b"<html>", b'["a", "b"]', b'"text"'):
        script.set(Told(body=body))
        with script.server() as server, pytest.raises(RequestError, match="Orthanc's is http"):
            find_studies(server)


def test_pages(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.dicomweb.server._LAST_PAGE", 2)
    script.set(Told(body=studies("1.1", "1.2")), Told(body=studies("1.3", "1.2")), Told(body=studies("1.4")))
    with script.server() as server:
        assert [study.uid for study in find_studies(server)] == ["1.1", "1.2", "1.3", "1.4"]
    assert {asked.headers["Host"] for asked in script.asked} == {script.url.split("/")[2]}
    assert [asked.path.partition("offset=")[2] for asked in script.asked] == ["0", "2", "4"]
    script.set(Told(body=studies("1.1", "1.2")))  # whatever the offset
    with script.server() as server:
        assert [study.uid for study in find_studies(server)] == ["1.1", "1.2"]
    script.set(Told(body=studies("1.1", modality="CT")))
    with script.server() as server:
        assert [study.uid for study in find_studies(server)] == []


def test_a_filter_that_the_server_ignores(script: Script) -> None:
    script.set(Told(body=json.dumps([{"00080018": {"vr": "UI", "Value": ["1.7"]}}]).encode()))
    with script.server() as server:
        assert server.has("1.1", "1.7")
        assert not server.has("1.1", "1.3")


def test_what_the_server_did_not_store(script: Script) -> None:
    with script.server() as server:
        script.set(Told(202, stored(failed="2.25.1")))
        with pytest.raises(RequestError, match=r"refused to store the SR: .*A700H"):
            server.store("1.1", [report()])
        script.set(Told(200, stored("2.25.7")))
        with pytest.raises(RequestError, match="no reason given"):
            server.store("1.1", [report()])
        script.set(Told(409, b"Mustermann"))
        with pytest.raises(RequestError, match=r"409 Conflict\.$"):
            server.store("1.1", [report()])
        script.set(Told(200))
        server.store("1.1", [report()])


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"<html>", "application/dicom+xml"), (b"{", "application/dicom+json"), (b"[1]", "application/dicom+json")],
)
def test_what_is_no_answer_to_a_storing(script: Script, body: bytes, kind: str) -> None:
    script.set(Told(body=body, kind=kind))
    with script.server() as server, pytest.raises(RequestError, match="not DICOMweb"):
        server.store("1.1", [report()])


def answering(stack: contextlib.ExitStack, head: bytes, body: bytes, step: int, pause: float) -> str:
    """The address of a server that answers everything with these bytes, a few at a time."""
    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            whole = head + body
            for start in range(0, len(whole), step):
                connection.sendall(whole[start : start + step])
                time.sleep(pause)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listening.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    stack.callback(thread.join)
    stack.callback(listening.shutdown, socket.SHUT_RDWR)
    return f"http://127.0.0.1:{listening.getsockname()[1]}/dicom-web"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
LATE = HEAD.replace(b"\r\nContent", b"\r\n" + b"X: y\r\n" * 5000 + b"Content", 1)


@pytest.mark.parametrize("head", [HEAD, LATE], ids=["body", "head"])
def test_a_server_that_drips_is_given_up(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(server_module, "_RETRIES", server_module._RETRIES.new(backoff_factor=0, read=0))
    with contextlib.ExitStack() as stack:
        image = answering(stack, head % (MULTIPART.encode(), len(BODY)), BODY, step=4, pause=0.02)
        found = studies(*["1.1"] * 500)
        search = answering(stack, head % (b"application/dicom+json", len(found)), found, step=4, pause=0.02)
        for url, ask in ((image, lambda server: server.fetch(IMAGE)), (search, find_studies)):
            started = time.monotonic()
            with Server(Address(url), timeout=(1, 0.3)) as server, pytest.raises(RequestError, match="no response"):
                ask(server)
            assert time.monotonic() - started < 20


def test_a_slow_server_that_is_fast_enough_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        url = answering(stack, HEAD % (MULTIPART.encode(), len(BODY)), BODY, step=len(BODY) // 20, pause=0.03)
        with Server(Address(url), timeout=(1, 0.3)) as server:  # 0.6 s in all, of 0.3 and 1 for 10 KB
            assert server.fetch(IMAGE) == CONTENT


def test_answers_other_than_images_are_bounded(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.dicomweb.pace.MAX_TEXT", 100_000)
    script.set(Told(body=studies(*["1.1"] * 5_000)))
    with script.server() as server, pytest.raises(RequestError, match="larger than 100,000 bytes"):
        find_studies(server)
    script.set(Told(body=studies(*["1.1"] * 500), kind=MULTIPART))
    with script.server() as server, pytest.raises(RequestError, match="an image"):
        find_studies(server)
    script.set(Told(body=gzip.compress(bytes(1 << 20)), headers=(("Content-Encoding", "gzip"),)))
    with script.server() as server, pytest.raises(RequestError, match="encoding 'gzip'"):
        find_studies(server)
    assert script.asked[0].headers["Accept-Encoding"] == "identity"
