"""Clients that are slow, many or rude, as raw sockets to the service on a port of its own."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import pytest
import uvicorn

from hilum.phantoms.chest import draw_phantom
from hilum.service.address import bind
from hilum.service.api import create_server
from hilum.service.settings import ServeSettings

PNG = cv2.imencode(".png", draw_phantom(1, "Normal", size=256).image)[1].tobytes()
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
FORM = PART + PNG + b"\r\n--b--\r\n"


def head(length: int, path: str = "/v1/predict") -> bytes:
    text = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return f"{text}Content-Length: {length}\r\n\r\n".encode()


class Client:
    """A socket, and as little of HTTP as the answers need."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.reader = self.socket.makefile("rb")

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        status = int(self.reader.readline().split()[1])
        fields: dict[str, str] = {}
        while line := self.reader.readline().strip().decode():
            name, _, value = line.partition(": ")
            fields[name.lower()] = value
        return status, fields, json.loads(self.reader.read(int(fields["content-length"])))

    def drip(self, content: bytes, pause: float, seconds: float = 5.0) -> float:
        """Send a byte at a time until something comes back or the connection ends; the time it took."""
        started = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in content:
                self.socket.send(bytes([byte]))
                if select.select([self.socket], [], [], pause)[0]:
                    break
                if time.monotonic() - started > seconds:
                    break
        return time.monotonic() - started

    def has_ended(self, seconds: float = 3.0) -> bool:
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


Start = Callable[..., "Service"]


class Service:
    """The service in a thread."""

    def __init__(self, server: uvicorn.Server, port: int, stack: contextlib.ExitStack) -> None:
        self.server, self.port, self._stack = server, port, stack

    def client(self) -> Client:
        return self._stack.enter_context(contextlib.closing(Client(self.port)))

    def ask(self, request: bytes = HEALTH) -> tuple[int, dict[str, str], Any]:
        client = self.client()
        client.send(request)
        return client.answer()

    def metric(self, name: str) -> float:
        client = self.client()
        client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        found = re.search(rf"^{re.escape(name)} (\S+)", client.reader.read().decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def ended(self, reason: str) -> float:
        return self.metric(f'hilum_connections_ended_total{{reason="{reason}"}}')

    def connections(self) -> list[Any]:
        return list(self.server.server_state.connections)


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def started(**more: Any) -> Service:
            bound = stack.enter_context(bind("127.0.0.1", 0))
            usual = {"backend": "onnxruntime", "precision": "fp32", "workers": 1, "shutdown": 2}
            server = create_server(ServeSettings.model_validate(usual | more))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            while not server.started:
                time.sleep(0.01)
            return Service(server, bound.getsockname()[1], stack)

        yield started


def wait_until(is_met: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_met():
        assert time.monotonic() < end, f"not met within {seconds:g} s"
        time.sleep(0.01)


def test_a_head_that_is_never_finished_is_given_up(start: Start) -> None:
    service = start(header_timeout=0.3)
    stopped, dripping, silent = service.client(), service.client(), service.client()
    stopped.send(HEALTH[:-2])
    assert 0.2 < dripping.drip(b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 1000, pause=0.02) < 2
    for client in (stopped, dripping):
        status, fields, problem = client.answer()
        assert (status, problem["type"]) == (408, "urn:hilum:problem:slow")
        assert fields["connection"] == "close"
        assert client.has_ended()
    assert silent.has_ended()
    assert service.ended("slow-head") == 2


def test_the_head_of_a_later_request_has_the_same_time(start: Start) -> None:
    service = start(header_timeout=0.4)
    client = service.client()
    for _ in range(3):
        client.send(HEALTH)
        assert client.answer()[0] == 200
        time.sleep(0.25)  # longer in all than the time for one head
    assert 0.3 < client.drip(HEALTH[:-2] + b"x: y\r\n" * 1000, pause=0.05) < 2
    assert client.answer()[0] == 408


def test_a_body_that_drips_is_given_up(start: Start) -> None:
    service = start(timeout=0.4, min_rate=1000)
    client = service.client()
    client.send(head(100_000) + PART)
    assert 0.3 < client.drip(b"x" * 1000, pause=0.02) < 2
    status, _, problem = client.answer()
    assert (status, problem["type"]) == (408, "urn:hilum:problem:slow")
    assert client.has_ended()


def test_a_slow_body_that_is_fast_enough_is_taken(start: Start) -> None:
    service = start(timeout=1.5, min_rate=1000)
    client = service.client()
    client.send(head(4000))
    body = PART + b"x" * (4000 - len(PART) - 9) + b"\r\n--b--\r\n"
    for at in range(0, 4000, 200):  # longer than the time limit
        client.send(body[at : at + 200])
        time.sleep(0.09)
    status, _, problem = client.answer()
    assert (status, problem["type"]) == (422, "urn:hilum:problem:unreadable"), problem


@pytest.mark.parametrize("path", ["/v1/predict", "/elsewhere"], ids=["refused", "not found"])
def test_the_rest_of_a_body_after_the_answer_is_not_waited_for(start: Start, path: str) -> None:
    service = start(timeout=0.4, token="secret")  # the answer is a 401 or 404, and no body is read for it
    client = service.client()
    client.send(head(100_000, path) + b"x" * 100)
    assert client.answer()[0] in (401, 404)
    client.drip(b"x" * 1000, pause=0.02)
    assert client.has_ended()


def test_a_body_after_the_answer_leaves_the_connection_open(start: Start) -> None:
    service = start(timeout=0.4)
    client = service.client()
    client.send(head(1000, "/elsewhere"))
    assert client.answer()[0] == 404
    client.send(b"x" * 1000 + HEALTH)
    assert client.answer()[0] == 200
    time.sleep(0.6)  # the time for the body is over
    client.send(HEALTH)
    assert client.answer()[0] == 200


def test_too_large_an_upload_gets_its_413(start: Start) -> None:
    service = start(max_upload=1)
    size, block = 30 << 20, b"x" * (1 << 16)
    for chunked in (False, True):
        client = service.client()
        if chunked:
            client.send(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
            client.send(b"%x\r\n%s\r\n" % (len(PART), PART))
        else:
            client.send(head(size) + PART)
        with contextlib.suppress(OSError):  # 30 of 1 MB: more than is drained
            for _ in range(3 << 4):
                client.send(b"10000\r\n" + block + b"\r\n" if chunked else block)
        status, fields, problem = client.answer()
        assert (status, problem["type"], fields["connection"]) == (413, "urn:hilum:problem:too-large", "close")
        assert client.reader.read() == b""  # the service's side has ended, without a reset


def test_what_is_read_after_a_413_is_bounded(start: Start) -> None:
    service = start(max_upload=1)
    client, block, sent = service.client(), b"x" * (1 << 16), 0
    client.send(head(1 << 30))
    with contextlib.suppress(OSError):
        while sent < 1 << 26:
            sent += client.socket.send(block)
    assert sent < 1 << 25
    assert service.ended("unread-body") == 1


def test_an_upload_that_goes_on_after_a_413_is_given_up(start: Start) -> None:
    service = start(max_upload=1, timeout=0.4)
    client = service.client()
    client.send(head(1 << 30))
    assert client.answer()[0] == 413
    assert client.drip(b"x" * 1000, pause=0.02) < 2
    wait_until(lambda: not service.connections())


def test_uploads_under_way_are_bounded_together(start: Start) -> None:
    service, clients, statuses = start(max_upload=1), [], []
    for _ in range(6):
        client = service.client()
        client.send(head(1_000_000) + PART + b"x" * 900_000)
        clients.append(client)
    for client in clients:
        if select.select([client.socket], [], [], 0.3)[0]:
            status, fields, problem = client.answer()
            assert (problem["type"], fields["connection"]) == ("urn:hilum:problem:busy", "close")
            statuses.append(status)
        client.close()
    assert statuses == [429] * 2  # of 4 MiB, four clients hold 3.6 MB
    wait_until(lambda: service.ask(head(len(FORM)) + FORM)[0] == 200)


def test_an_idle_connection_makes_room(start: Start) -> None:
    service = start(max_connections=2)
    first, second = service.client(), service.client()
    for client in (first, second):
        client.send(HEALTH)
        assert client.answer()[0] == 200
    assert service.ask()[0] == 200
    assert first.has_ended(1)
    second.send(HEALTH)
    assert second.answer()[0] == 200
    assert service.ended("evicted") >= 1


def test_connections_with_a_request_are_kept_and_more_are_refused(start: Start) -> None:
    service = start(max_connections=2, retry_after=7)
    working = [service.client() for _ in range(2)]
    for client in working:
        client.send(head(len(FORM)) + FORM[:100])
    wait_until(lambda: [each.waiting_since for each in service.connections()] == [None] * 2)
    status, fields, problem = service.ask(head(len(FORM)) + FORM)
    assert (status, problem["type"]) == (503, "urn:hilum:problem:connections")
    assert (fields["retry-after"], fields["connection"]) == ("7", "close")
    for client in working:
        client.send(FORM[100:])
        assert client.answer()[0] == 200
    assert service.ask()[0] == 200
    assert service.ended("refused") == 1


def test_many_connections_without_a_request_do_not_stop_others(start: Start) -> None:
    service = start(max_connections=8, header_timeout=5)
    silent = [service.client() for _ in range(50)]
    for number, client in enumerate(silent):
        with contextlib.suppress(OSError):
            client.send(HEALTH[: number % 20])
        assert len(service.connections()) <= 18  # at most as many again are about to end
    assert service.ask()[0] == 200
    assert service.ask(head(len(FORM)) + FORM)[0] == 200
    assert service.ended("evicted") >= 40


def test_a_client_that_does_not_read_its_answer_is_given_up(start: Start) -> None:
    service = start(timeout=0.5, max_connections=4)
    client = service.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    request = f"GET /openapi.json HTTP/1.1\r\nHost: a\r\n{'x: y' * 100}: z\r\n\r\n".encode()
    client.socket.settimeout(1.0)
    with contextlib.suppress(OSError):  # what the system's buffers do not hold
        client.send(3000 * request)
    wait_until(lambda: service.ended("slow-reader") == 1)


@pytest.mark.parametrize(
    "body",
    [FORM[:-8], FORM[:-4], FORM[:200], PART, PART + PNG + b"\r\n" + PART + PNG, FORM.replace(b"--b--", b"--b")],
    ids=["closing boundary", "its end", "file", "empty file", "second file", "more announced"],
)
def test_a_truncated_form_is_said_to_be_so(start: Start, body: bytes) -> None:
    status, _, problem = start().ask(head(len(body)) + body)
    assert (status, problem["type"]) == (422, "urn:hilum:problem:bad-request")
    assert "truncated" in problem["detail"]


def test_nonsense_is_a_problem(start: Start) -> None:
    service = start()
    for request in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x" * 100_000):
        status, fields, problem = service.ask(request)
        assert (status, problem["type"], fields["connection"]) == (400, "urn:hilum:problem:bad-request", "close")
    client = service.client()
    client.send(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"zz\r\n")
    assert client.answer()[0] == 400
    assert client.has_ended()


def test_the_end_does_not_wait_for_slow_clients(start: Start) -> None:
    service = start(max_upload=1, shutdown=90)
    heads, drained = service.client(), service.client()
    heads.send(HEALTH[:-2])
    drained.send(head(1 << 30))
    assert drained.answer()[0] == 413
    assert service.metric("hilum_connections") >= 2
    started = time.monotonic()
    service.server.should_exit = True
    wait_until(lambda: not service.connections())
    assert time.monotonic() - started < 45
