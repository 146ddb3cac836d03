"""The REST service on a small trained bundle, in this process and as a process of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from dicom_writing import content_of, dataset_of
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from hilum.bundle.bundle import load_bundle
from hilum.inference.evidence_file import read_evidence
from hilum.inference.predictor import Predictor
from hilum.inference.render import class_evidence
from hilum.inference.result import Prediction
from hilum.phantoms.chest import draw_phantom
from hilum.run_folder import RunFolder
from hilum.service.api import create_app
from hilum.service.settings import ServeSettings
from hilum.types import Radiograph

PHANTOM = draw_phantom(4_000_001, "Normal", size=256).image


def png(pixels: NDArray[np.uint8] = PHANTOM) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.png", content)) for number, content in enumerate(contents)]


def settings(run: RunFolder, **more: Any) -> ServeSettings:
    return ServeSettings(bundle=run.bundle, **more)


@pytest.fixture(scope="module")
def client(trained_run: RunFolder) -> Iterator[TestClient]:
    with TestClient(create_app(settings(trained_run, max_files=3)), raise_server_exceptions=False) as opened:
        yield opened


def is_problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["type"] == f"urn:hilum:problem:{kind}"
    assert content["status"] == status
    assert content["title"]
    assert content["request_id"] == response.headers["x-request-id"]
    return content


def test_one_image_gets_what_the_library_says(client: TestClient, trained_run: RunFolder) -> None:
    response = client.post("/v1/predict", files=files(png()))
    assert response.status_code == 200
    content = response.json()
    assert "not a medical device" in content["notice"]
    (result,) = content["results"]
    expected = Predictor(load_bundle(trained_run.bundle)).predict(Radiograph(PHANTOM))
    assert isinstance(expected, Prediction)
    assert content["bundle_id"] == expected.bundle_id
    got = result["prediction"]
    assert got["predicted_label"] == expected.label
    assert got["prediction_set"] == list(expected.prediction_set)
    np.testing.assert_allclose(
        [got["probabilities"][name] for name in expected.class_names], list(expected.probabilities.values()), atol=1e-6
    )
    assert (got["height"], got["width"]) == (256, 256)
    assert "mask_png" not in got
    assert "problem" not in result


def test_images_and_run_lengths_are_those_of_the_image(
    client: TestClient, trained_run: RunFolder, tmp_path: Path
) -> None:
    response = client.post("/v1/predict?include=mask&include=rle&include=evidence&include=overlay", files=files(png()))
    got = response.json()["results"][0]["prediction"]
    expected = Predictor(load_bundle(trained_run.bundle)).predict(Radiograph(PHANTOM))
    assert isinstance(expected, Prediction)
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(got["mask_png"]), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, expected.mask.astype(np.uint8) * 255)
    flat = np.repeat(np.arange(len(got["mask_rle"]["counts"])) % 2, got["mask_rle"]["counts"])
    np.testing.assert_array_equal(flat.reshape(got["mask_rle"]["size"], order="F"), expected.mask)
    assert expected.evidence is not None
    np.testing.assert_allclose(got["evidence"]["values"], expected.evidence, atol=1e-4)
    (tmp_path / "evidence.png").write_bytes(base64.b64decode(got["evidence"]["png"]))
    values, facts = read_evidence(tmp_path / "evidence.png")
    whole = class_evidence(expected, PHANTOM.shape, load_bundle(trained_run.bundle).manifest.preprocess)
    assert whole is not None
    assert facts["class"] == got["predicted_label"]
    assert facts["logits_per_gray_level"] == got["evidence"]["step"]
    np.testing.assert_allclose(values, whole, atol=got["evidence"]["step"])
    overlay = cv2.imdecode(np.frombuffer(base64.b64decode(got["overlay_png"]), np.uint8), cv2.IMREAD_COLOR)
    assert overlay is not None
    assert overlay.shape[0] >= 256


def written(kind: str) -> bytes:
    if kind == "dcm":
        return content_of(dataset_of(PHANTOM.astype(np.uint16) << 4, 12))
    return cv2.imencode(f".{kind}", PHANTOM)[1].tobytes()


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "bmp", "dcm"])
def test_every_kind_of_file_is_read(client: TestClient, kind: str) -> None:
    """The label and probabilities of the PNG; those of JPEG and WebP, which lose some, nearly."""
    expected = client.post("/v1/predict", files=files(png())).json()["results"][0]["prediction"]
    got = client.post("/v1/predict", files=files(written(kind))).json()["results"][0]["prediction"]
    assert got["predicted_label"] == expected["predicted_label"]
    assert got["probabilities"] == pytest.approx(
        expected["probabilities"], abs=0.1 if kind in ("jpg", "webp") else 0.01
    )


def test_of_several_files_each_has_its_own_result(client: TestClient) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    response = client.post("/v1/predict", files=files(png(), png(noise), b"no image"))
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result["status"] for result in results] == ["ok", "refused", "unreadable"]
    assert [result["file"] for result in results] == ["0.png", "1.png", "2.png"]
    assert results[1]["problem"]["type"] == "urn:hilum:problem:refused"
    assert results[1]["problem"]["findings"][0]["check"] == "frontal"
    assert "PNG, JPEG, WebP, BMP, TIFF or DICOM" in results[2]["problem"]["detail"]


def test_one_refused_file_is_a_problem_with_its_findings(client: TestClient) -> None:
    turned = is_problem(client.post("/v1/predict", files=files(png(np.rot90(PHANTOM, -1)))), 422, "refused")
    assert turned["detail"].startswith("rotated 90 degrees clockwise")
    assert turned["findings"][0]["check"] == "rotated"
    is_problem(client.post("/v1/predict", files=files(b"")), 422, "unreadable")


@pytest.mark.parametrize(
    ("words", "said"), [("?include=cat", "got 'cat'"), ("?include=mask&include=all", "got 'all'")], ids=["one", "two"]
)
def test_what_is_asked_wrongly_is_said(client: TestClient, words: str, said: str) -> None:
    problem = is_problem(client.post(f"/v1/predict{words}", files=files(png())), 422, "bad-request")
    assert said in problem["detail"]


def test_wrong_requests_are_problems(client: TestClient) -> None:
    is_problem(client.post("/v1/predict"), 415, "media-type")
    is_problem(client.post("/v1/predict", content=b"nonsense"), 415, "media-type")
    is_problem(client.post("/v1/predict", data={"other": "x"}, files=[("image", b"x")]), 422, "bad-request")
    is_problem(client.get("/v1/predict"), 405, "bad-request")
    is_problem(client.get("/elsewhere"), 404, "not-found")
    problem = is_problem(client.post("/v1/predict", files=files(*[png()] * 4)), 422, "too-many-files")
    assert "at most 3 files" in problem["detail"]


def test_pixels_are_capped_before_decoding(trained_run: RunFolder) -> None:
    with TestClient(create_app(settings(trained_run, max_pixels=200 * 200))) as client:
        problem = is_problem(client.post("/v1/predict", files=files(png())), 422, "unreadable")
    assert "Expected at most 40,000 pixels" in problem["detail"]


def test_a_body_is_capped_with_and_without_a_length(trained_run: RunFolder) -> None:
    def parts() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(50):
            yield b"x" * 100_000

    with TestClient(create_app(settings(trained_run, max_upload=1))) as client:
        is_problem(client.post("/v1/predict", files=files(b"x" * (1 << 20))), 413, "too-large")
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        is_problem(client.post("/v1/predict", content=parts(), headers=form), 413, "too-large")
        assert client.get("/healthz").status_code == 200


def test_the_token_guards_all_but_health(trained_run: RunFolder) -> None:
    with TestClient(create_app(settings(trained_run, token="secret"))) as client:
        for path in ("/v1/bundle", "/v1/bundle/card", "/metrics"):
            response = client.get(path)
            is_problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            for scheme in ("Bearer", "bearer", "BEARER"):
                assert client.get(path, headers={"Authorization": f"{scheme} secret"}).status_code == 200
            assert client.get(path, headers={"Authorization": "Basic secret"}).status_code == 401
        is_problem(client.post("/v1/predict", files=files(png())), 401, "unauthorized")
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_a_full_queue_turns_away_and_says_when_to_come_again(trained_run: RunFolder) -> None:
    with TestClient(create_app(settings(trained_run, queue=2))) as client:
        response = client.post("/v1/predict", files=files(*[png()] * 3))
        is_problem(response, 429, "busy")
        assert response.headers["retry-after"] == "1"
        assert client.post("/v1/predict", files=files(png(), png())).status_code == 200


def test_what_takes_too_long_is_given_up_and_its_room_is_free_again(trained_run: RunFolder) -> None:
    app = create_app(settings(trained_run, timeout=0.2, queue=1))
    engine = app.state.engine
    fast = engine._predictor.prepare

    def slow(source: object) -> object:
        time.sleep(0.6)
        return fast(source)

    engine._predictor.prepare = slow
    with TestClient(app) as client:
        response = client.post("/v1/predict", files=files(png()))
        is_problem(response, 503, "timeout")
        assert "retry-after" in response.headers
        engine._predictor.prepare = fast
        time.sleep(0.6)
        assert client.post("/v1/predict", files=files(png())).status_code == 200


def test_stuck_workers_are_not_ready_and_do_not_hold_up_the_end(trained_run: RunFolder) -> None:
    app = create_app(settings(trained_run, timeout=0.4, workers=2))
    gate = threading.Event()
    fast = app.state.engine._predictor.prepare

    def hang(source: object) -> object:
        gate.wait(60)
        return fast(source)

    with TestClient(app) as client:
        app.state.engine._predictor.prepare = hang
        for _ in range(2):
            is_problem(client.post("/v1/predict", files=files(png())), 503, "timeout")
        for path in ("/readyz", "/v2/health/ready", "/v2/models/hilum/ready"):
            is_problem(client.get(path), 503, "stuck")
        assert client.get("/healthz").status_code == 200
        started = time.monotonic()
    assert time.monotonic() - started < 20  # of the 60
    gate.set()


def test_facts_and_card_are_the_bundles(client: TestClient, trained_run: RunFolder) -> None:
    manifest = load_bundle(trained_run.bundle).manifest
    facts = client.get("/v1/bundle").json()
    assert facts["bundle_id"] == manifest.bundle_id
    assert facts["class_names"] == list(manifest.class_names)
    assert facts["gate"] == "learned"
    card = client.get("/v1/bundle/card")
    assert card.headers["content-type"].startswith("text/markdown")
    assert "not a medical device" in card.text


def test_request_ids_come_back_unless_they_are_odd(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    odd = client.get("/healthz", headers={"X-Request-ID": "a b{}"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", odd)


def test_the_log_names_no_file(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    from hilum.service.middleware import LOGGER, JsonLines

    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        client.post("/v1/predict", files=[("files", ("Mustermann_Erika.png", png()))])
        client.get("/elsewhere/Mustermann")
        client.get("/healthz")
    lines = [JsonLines().format(record) for record in caplog.records if record.name == LOGGER.name]
    assert [json.loads(line)["route"] for line in lines] == ["/v1/predict", "other"]
    assert not [line for line in lines if "Mustermann" in line]


def test_a_bug_is_logged_with_its_place_and_without_its_text(
    trained_run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    from hilum.service.middleware import LOGGER, JsonLines

    app = create_app(settings(trained_run))

    def broken(source: Any) -> None:
        raise ValueError("Mustermann")

    app.state.engine._predictor.prepare = broken
    with TestClient(app, raise_server_exceptions=False) as client, caplog.at_level(logging.INFO, logger=LOGGER.name):
        is_problem(client.post("/v1/predict", files=files(png())), 500, "internal")
        assert client.get("/metrics").text.count("hilum_images_under_way 0.0") == 1
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    line = JsonLines().format(record)
    assert "Mustermann" not in line
    assert json.loads(line)["error"] == "ValueError"
    assert re.search(r"test_service\.py:\d+$", json.loads(line)["place"])


def test_measurements_count_images(client: TestClient) -> None:
    client.post("/v1/predict", files=files(png()))
    text = client.get("/metrics").text
    found = re.search(r'^hilum_images_total\{status="ok"\} (\S+)', text, re.MULTILINE)
    assert found
    assert float(found[1]) >= 1
    assert re.search(r"^hilum_images_under_way 0\.0", text, re.MULTILINE)


def test_the_documentation_asks_no_other_server(client: TestClient) -> None:
    page = client.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    assert not [link for link in links if not link.startswith("/")]
    assert all(client.get(link).status_code == 200 for link in links)


def test_a_body_that_stops_coming_is_given_up(trained_run: RunFolder) -> None:
    app = create_app(settings(trained_run, timeout=0.2))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(30)
        raise AssertionError("nobody waits so long")

    async def send(message: Any) -> None:
        sent.append(message)

    form = [(b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": form, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    app.state.engine.close()


def test_a_full_service_reads_no_body(trained_run: RunFolder) -> None:
    app = create_app(settings(trained_run, queue=1))
    app.state.engine._images = 1

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 429
    app.state.engine.close()


def test_the_schema_describes_every_answer(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    operations = {path: operation for path, found in schema["paths"].items() for operation in found.values()}
    assert {operation["operationId"] for operation in operations.values()} == {
        "predict", "image", "dicom", "bundle", "card", "audit", "healthz", "readyz", "metrics",
    }  # fmt: skip
    assert all(operation["summary"] for operation in operations.values())
    predict = operations["/v1/predict"]
    assert {"200", "401", "406", "408", "413", "415", "422", "429", "503"} == set(predict["responses"])
    assert set(predict["responses"]["200"]["content"]) == {"application/json", "image/png"}
    assert {"multipart/form-data", "application/dicom", "image/png"} <= set(predict["requestBody"]["content"])
    for status in ("401", "422", "503"):
        (media_type,) = predict["responses"][status]["content"]
        assert media_type == "application/problem+json"
        assert predict["responses"][status]["content"][media_type]["schema"]["$ref"].endswith("/Problem")
    include = next(parameter for parameter in predict["parameters"] if parameter["name"] == "include")
    assert "cells" in json.dumps(include["schema"])
    assert '"enum"' in json.dumps(include["schema"])
    example = schema["components"]["schemas"]["PredictResponse"]["examples"][0]
    assert example["results"][0]["prediction"]["predicted_label"] == "Normal"


def test_a_process_serves_under_load_and_finishes_what_it_accepted(trained_run: RunFolder, tmp_path: Path) -> None:
    """SIGTERM in the middle of requests: each is answered, the process ends with 0, nobody else can reach it."""
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-c",
        "from hilum.cli import main; main()",
        "serve",
        "--bundle",
        str(trained_run.bundle),
        "--port",
        "0",
    ]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream, stdout=stream, env={**os.environ, "COLUMNS": "200"})
    try:
        port = _port(log, process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            assert client.get("/readyz").status_code == 200
            body = client.build_request("POST", "/v1/predict", files=files(*[png()] * 8), headers=_FORM).read()
            request = b"".join([_HEAD % len(body), body])
            with ExitStack() as stack:
                asking = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(8)]
                for connection in asking:
                    connection.sendall(request)
                while _images(client.get("/metrics").text) < 64:  # under way or done: all are accepted
                    assert process.poll() is None
                process.send_signal(signal.SIGTERM)
                answers = [connection.makefile("rb").readline() for connection in asking]
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)  # uvicorn raises the signal again once all is done
        assert answers == [b"HTTP/1.1 200 OK\r\n"] * 8
    finally:
        process.kill()
        process.wait()


_FORM = {"Content-Type": "multipart/form-data; boundary=b"}
_HEAD = (
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: %d\r\n\r\n"
)


def _images(metrics: str) -> float:
    """Images under way and done."""
    counts = re.findall(r"^hilum_images_(?:under_way|total\{.*\}) (\S+)", metrics, re.MULTILINE)
    return sum(map(float, counts))


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    for _ in range(600):
        if found := re.search(r"http://127\.0\.0\.1:([1-9]\d*)", log.read_text()):
            return int(found[1])
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_the_service_runs_the_engine_that_it_is_given(trained_run: RunFolder) -> None:
    answers = []
    for backend in ("onnxruntime", "openvino"):
        app = create_app(settings(trained_run, backend=backend, precision="fp32"))
        assert app.state.engine.network == (backend, "fp32")
        with TestClient(app) as client:
            (found,) = client.post("/v1/predict", files=files(png())).json()["results"]
            answers.append(found["prediction"]["probabilities"])
    one, two = answers
    assert one == pytest.approx(two, abs=1e-4)
