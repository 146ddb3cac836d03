"""The Open Inference Protocol: Triton's client against a service process, and malformed requests."""

from __future__ import annotations

import base64
import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from hilum.bundle.bundle import load_bundle
from hilum.inference.predictor import Predictor, Upload
from hilum.inference.result import Prediction
from hilum.phantoms.chest import draw_phantom
from hilum.run_folder import RunFolder
from hilum.service.api import create_app
from hilum.service.settings import ServeSettings

INFER = "/v2/models/hilum/infer"


def png(seed: int) -> bytes:
    return cv2.imencode(".png", draw_phantom(seed, "Normal", size=256).image)[1].tobytes()


@pytest.fixture(scope="module")
def client(trained_run: RunFolder) -> Iterator[TestClient]:
    with TestClient(create_app(ServeSettings(bundle=trained_run.bundle, max_files=3))) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(trained_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, "-c", "from hilum.cli import main; main()", "serve", "--bundle", str(trained_run.bundle)]
    log = tmp_path_factory.mktemp("log") / "log"
    with log.open("w") as errors:
        process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "http://" in line)
        found = re.search(r"127\.0\.0\.1:\d+", line)
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def request(*contents: bytes, outputs: tuple[str, ...] = (), **tensor: Any) -> dict[str, Any]:
    data = [base64.b64encode(content).decode() for content in contents]
    given = {"name": "image", "datatype": "BYTES", "shape": [len(contents)], "data": data} | tensor
    return {"inputs": [given], **({"outputs": [{"name": name} for name in outputs]} if outputs else {})}


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_gets_the_predictions_of_the_command(
    address: str, trained_run: RunFolder, tmp_path: Path, binary: bool
) -> None:
    triton = pytest.importorskip("tritonclient.http")
    folder = tmp_path / "in"
    folder.mkdir()
    contents = [png(4_000_001), png(4_000_002), b"no image"]
    for number, content in enumerate(contents):
        (folder / f"{number}.png").write_bytes(content)
    command = ["predict", str(folder), "--bundle", str(trained_run.bundle), "--output", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", "from hilum.cli import main; main()", *command], check=False)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with triton.InferenceServerClient(address) as opened:
        assert opened.is_server_live()
        assert opened.is_server_ready()
        assert opened.is_model_ready("hilum")
        assert {own["name"] for own in opened.get_model_metadata("hilum")["outputs"]} >= {
            "predicted_label",
            "probabilities",
        }
        tensor = triton.InferInput("image", [len(contents)], "BYTES")
        tensor.set_data_from_numpy(np.array(contents, np.object_))
        names = ("status", "predicted_label", "probabilities", "lung_fraction", "abstained", "evidence")
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        found = opened.infer("hilum", [tensor], outputs=wanted, request_id="a1")
    assert found.get_response()["id"] == "a1"
    values = {name: found.as_numpy(name) for name in names}
    decoded = [own.decode() if isinstance(own, bytes) else own for own in values["status"]]
    assert decoded == [row["status"] for row in rows] == ["ok", "ok", "unreadable"]
    for place, row in enumerate(rows[:2]):
        label = values["predicted_label"][place]
        assert (label.decode() if isinstance(label, bytes) else label) == row["predicted_label"]
        probabilities = [float(row[name]) for name in row if name.startswith("prob_")]
        np.testing.assert_allclose(values["probabilities"][place], probabilities, atol=1e-6)
        assert values["lung_fraction"][place] == pytest.approx(float(row["lung_fraction"]), abs=1e-4)
        assert bool(values["abstained"][place]) == (row["abstained"] == "1")
        expected = Predictor(load_bundle(trained_run.bundle)).predict(Upload(contents[place], "image"))
        assert isinstance(expected, Prediction)
        assert expected.evidence is not None
        np.testing.assert_allclose(values["evidence"][place], expected.evidence, atol=1e-6)
    assert not values["probabilities"][2].any()


def test_tritons_client_sees_the_errors(address: str) -> None:
    triton = pytest.importorskip("tritonclient.http")
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(address) as opened:
        tensor = triton.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([png(1)], np.object_))
        with pytest.raises(InferenceServerException, match="The only model is 'hilum'"):
            opened.infer("other", [tensor])


def test_all_outputs_as_json(client: TestClient) -> None:
    content = client.post(INFER, json=request(png(4_000_001), b"no image")).json()
    assert (content["model_name"], content["model_version"]) == ("hilum", "1")
    described = client.get("/v2/models/hilum/versions/1").json()
    assert [own["name"] for own in content["outputs"]] == [own["name"] for own in described["outputs"]]
    for own, expected in zip(content["outputs"], described["outputs"], strict=True):
        assert own["datatype"] == expected["datatype"]
        assert own["shape"] == [2, *expected["shape"][1:]]
        assert len(own["data"]) == int(np.prod(own["shape"]))
    found = {own["name"]: own["data"] for own in content["outputs"]}
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(found["mask"][0]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (256, 256)
    assert np.mean(mask > 0) == pytest.approx(found["lung_fraction"][0], abs=1e-6)
    assert found["status"] == ["ok", "unreadable"]
    assert found["mask"][1] == found["predicted_label"][1] == ""
    assert found["reason"][1]


@pytest.mark.parametrize(
    "content",
    [
        [], {}, "text", {"inputs": []}, {"inputs": [1]}, {"inputs": None}, request(),
        request(b"a", name="input"), request(b"a", datatype="FP32"), request(b"a", shape=[2]),
        request(b"a", shape=[[1]]), request(b"a", data=["&"]), request(b"a", data=[1]), request(b"a", data=None),
        request(b"a", outputs=("logits",)), request(b"a", parameters={"binary_data_size": 5}),
        request(b"a", parameters=[]), request(b"a") | {"outputs": 3}, request(b"a") | {"parameters": []},
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(client: TestClient, content: Any) -> None:
    response = client.post(INFER, json=content)
    assert response.status_code == 400
    assert response.json()["error"].startswith("The request is invalid: ")


@pytest.mark.parametrize(
    ("header", "tail"),
    [("-1", b""), ("x", b""), ("9999", b""), (None, b"\x01"), ("0", b""), ("own", b"\xff\xff\xff\xffa"),
     ("own", b"\x01\0\0\0"), ("own", b"\x01\0\0")],
)  # fmt: skip
def test_a_malformed_binary_tensor_is_refused(client: TestClient, header: str | None, tail: bytes) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = (
        {} if header is None else {"Inference-Header-Content-Length": str(len(head)) if header == "own" else header}
    )
    assert client.post(INFER, content=head + tail, headers=headers).status_code == 400


def test_too_many_images_and_a_token(client: TestClient, trained_run: RunFolder) -> None:
    assert client.post(INFER, json=request(*[b"a"] * 4)).status_code == 422
    with TestClient(create_app(ServeSettings(bundle=trained_run.bundle, token="secret"))) as guarded:  # type: ignore[arg-type]
        refused = guarded.post(INFER, json=request(b"a"))
        assert (refused.status_code, refused.json()["error"]) == (401, "A valid bearer token is required")
        assert guarded.get("/v2/models/hilum").status_code == 401
        assert guarded.get("/v2/health/live").status_code == 200
