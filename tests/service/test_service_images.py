"""What the web app and other clients ask beside predictions: raw bodies, PNG answers, gray values, static files."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dicom_writing import content_of, dataset_of
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from report_writing import audit_report

from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import read_radiograph, read_stored
from hilum.phantoms.chest import draw_phantom
from hilum.service.address import bind
from hilum.service.api import create_app
from hilum.service.phantoms import EXAMPLES, example_png
from hilum.service.settings import ServeSettings
from hilum.service.static import FOLDER, POLICY

PHANTOM = draw_phantom(3, "Lung_Opacity", size=512).image


def png(pixels: NDArray[Any] = PHANTOM) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def decoded(content: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(image, np.uint8)


def post(client: TestClient, path: str, content: bytes, media_type: str = "image/png", **headers: str) -> Any:
    return client.post(path, content=content, headers={"Content-Type": media_type, **headers})


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(ServeSettings())) as opened:
        yield opened


@pytest.mark.parametrize("media_type", ["image/png", "application/octet-stream", "IMAGE/PNG; q=1"])
def test_a_body_that_is_one_image_gets_the_same_answer_as_a_form(client: TestClient, media_type: str) -> None:
    expected = client.post("/v1/predict", files=[("files", ("a.png", png()))]).json()["results"][0]["prediction"]
    assert post(client, "/v1/predict", png(), media_type).json()["results"][0]["prediction"] == expected


def test_a_dicom_body_needs_no_preamble(client: TestClient) -> None:
    dataset = dataset_of(PHANTOM.astype(np.uint16) << 4, 12)
    with_preamble = content_of(dataset)
    found = post(client, "/v1/predict", with_preamble, "application/dicom").json()["results"][0]["prediction"]
    assert found["predicted_label"] == "Lung_Opacity"
    bare = with_preamble[132:]
    assert post(client, "/v1/predict", bare, "application/dicom").json()["results"][0]["prediction"] == found


def test_masks_and_overlays_come_as_png(client: TestClient) -> None:
    asked = post(client, "/v1/predict?include=mask&include=evidence", png()).json()["results"][0]["prediction"]
    for include, expected in (("mask", asked["mask_png"]), ("evidence", asked["evidence"]["png"])):
        response = post(client, f"/v1/predict?include={include}", png(), Accept="image/png")
        assert response.headers["content-type"] == "image/png"
        assert response.content == base64.b64decode(expected)
    overlay = decoded(post(client, "/v1/predict?include=overlay", png(), Accept="image/png, */*").content)
    assert overlay.shape[0] == 512
    assert overlay.shape[1] > 512  # the legend
    for query in ("", "?include=rle", "?include=mask&include=overlay"):
        response = post(client, f"/v1/predict{query}", png(), Accept="image/png")
        assert response.status_code == 406
        assert response.json()["type"] == "urn:hilum:problem:not-acceptable"
    response = post(client, "/v1/predict?include=mask", png(np.rot90(PHANTOM).copy()), Accept="image/png")
    assert response.status_code == 422
    assert response.json()["findings"][0]["check"] == "rotated"


def test_the_orientation_is_corrected_on_request(client: TestClient) -> None:
    upright = post(client, "/v1/predict?include=mask", png()).json()["results"][0]["prediction"]
    sideways = png(np.rot90(255 - PHANTOM, -1).copy())  # a quarter turn clockwise
    refused = post(client, "/v1/predict", sideways)
    assert refused.status_code == 422
    assert refused.json()["orientation_fix"] == {"rotate": 270, "invert": True}
    found = post(client, "/v1/predict?fix_orientation=true&include=mask", sideways).json()["results"][0]["prediction"]
    assert found["orientation_fix"] == {"rotate": 270, "invert": True}
    assert found["probabilities"] == pytest.approx(upright["probabilities"], abs=1e-6)
    mask, expected = (decoded(base64.b64decode(one["mask_png"])) for one in (found, upright))
    np.testing.assert_array_equal(np.rot90(mask), expected)
    assert "orientation_fix" not in upright


def test_a_gate_that_sees_no_orientation_corrects_none() -> None:
    with TestClient(create_app(ServeSettings(gate="none"))) as client:
        response = post(client, "/v1/predict?fix_orientation=true", png())
        assert response.status_code == 422
        assert response.json()["type"] == "urn:hilum:problem:bad-request"


def test_cells_are_the_evidence_without_its_png_and_where_the_image_is(client: TestClient) -> None:
    wide = png(np.hstack([PHANTOM, PHANTOM[:, :128]]))  # 512 x 640
    evidence = post(client, "/v1/predict?include=cells", wide).json()["results"][0]["prediction"]["evidence"]
    assert "png" not in evidence
    assert evidence["placement"] == pytest.approx([0.1, 0, 0.8, 1], abs=0.01)
    whole = post(client, "/v1/predict?include=evidence", wide).json()["results"][0]["prediction"]["evidence"]
    assert whole["values"] == evidence["values"]
    assert len(evidence["values"]) == len(evidence["class_names"]) == 4


def test_thumbnails_are_of_answered_and_of_refused_images(client: TestClient) -> None:
    answered = post(client, "/v1/predict?include=thumbnail", png()).json()["results"][0]["prediction"]["thumbnail"]
    refused = post(client, "/v1/predict?include=thumbnail", png(255 - PHANTOM)).json()["thumbnail"]
    for thumbnail, expected in ((answered, PHANTOM), (refused, 255 - PHANTOM)):
        image = decoded(base64.b64decode(thumbnail))
        assert image.shape == (112, 112)
        small = cv2.resize(expected, (112, 112), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(image - small).mean() < 4


def test_gray_values_are_those_of_the_file(client: TestClient) -> None:
    response = post(client, "/v1/image", png())
    facts = json.loads(response.headers["x-hilum-image"])
    assert (facts["width"], facts["height"], facts["levels"], facts["presets"]) == (512, 512, 256, [])
    values = np.frombuffer(response.content[: 512 * 512], np.uint8).reshape(512, 512)
    np.testing.assert_array_equal(values, PHANTOM)
    table = np.frombuffer(response.content[512 * 512 :], "<u2")
    np.testing.assert_array_equal(table, np.arange(256) * 257)
    unreadable = post(client, "/v1/image", b"no image")
    assert unreadable.status_code == 422
    assert unreadable.json()["type"] == "urn:hilum:problem:unreadable"


def dicom(photometric: str = "MONOCHROME2") -> bytes:
    """A 12-bit image, signed, with a rescale and two windows."""
    dataset = dataset_of((PHANTOM.astype(np.int16) << 4) - 2048, 12, PhotometricInterpretation=photometric)
    dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "100"
    dataset.WindowCenter, dataset.WindowWidth = ["300", "0"], ["1200", "500"]
    dataset.WindowCenterWidthExplanation = ["SOFT", "HARD"]
    return content_of(dataset)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_values_are_stored_ones_with_the_files_windows(client: TestClient, photometric: str) -> None:
    content = dicom(photometric)
    response = post(client, "/v1/image", content, "application/dicom")
    facts = json.loads(response.headers["x-hilum-image"])
    assert facts["presets"] == [
        {"name": "SOFT", "center": 300.0, "width": 1200.0, "function": "LINEAR"},
        {"name": "HARD", "center": 0.0, "width": 500.0, "function": "LINEAR"},
    ]
    assert (facts["slope"], facts["intercept"], facts["lowest"], facts["levels"]) == (0.5, 100.0, -2048, 4096)
    assert facts["inverted"] is (photometric == "MONOCHROME1")
    size = 2 * 512 * 512
    values = np.frombuffer(response.content[:size], "<u2").reshape(512, 512)
    np.testing.assert_array_equal(values.astype(int) + facts["lowest"], (PHANTOM.astype(int) << 4) - 2048)
    # The table gives what the model reads, exactly.
    table = np.frombuffer(response.content[size:], "<u2")
    np.testing.assert_array_equal(table[values], read_radiograph(content).pixels)


def test_pixels_that_are_not_square_keep_the_files_grid(client: TestClient) -> None:
    """Their aspect is told, and evidence is placed as in the square image."""
    flat = np.ascontiguousarray(PHANTOM[::2]).astype(np.uint16) << 4  # 256 x 512, each pixel twice as high as wide
    content = content_of(dataset_of(flat, 12, ImagerPixelSpacing=[0.4, 0.2]))
    facts = json.loads(post(client, "/v1/image", content, "application/dicom").headers["x-hilum-image"])
    assert (facts["height"], facts["width"], facts["pixel_aspect"]) == (256, 512, 2.0)
    response = post(client, "/v1/predict?include=cells", content, "application/dicom")
    found = response.json()["results"][0]["prediction"]
    assert (found["height"], found["width"], found["pixel_aspect"]) == (256, 512, 2.0)
    assert found["evidence"]["placement"] == [0, 0, 1, 1]
    assert found["predicted_label"] == "Lung_Opacity"
    assert found["evidence_summary"].startswith("Evidence for Lung_Opacity")


def test_stored_values_of_16_bit_and_color_files() -> None:
    deep = cv2.imencode(".png", PHANTOM.astype(np.uint16) * 257)[1].tobytes()
    stored = read_stored(deep)
    assert stored.values.dtype == np.uint16
    assert len(stored.table) == 65536
    color = cv2.imencode(".png", np.stack([PHANTOM, 255 - PHANTOM, PHANTOM], axis=-1))[1].tobytes()
    np.testing.assert_array_equal(read_stored(color).values, to_uint8(read_radiograph(color)))


def test_no_patient_comes_back(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    dataset = dataset_of(PHANTOM.astype(np.uint16) << 4, 12)
    dataset.PatientName, dataset.StudyDate = "Mustermann^Erika", "20240102"
    content = content_of(dataset)
    with caplog.at_level("DEBUG"):
        for path in ("/v1/predict?include=thumbnail&include=rle", "/v1/image"):
            response = post(client, path, content, "application/dicom")
            told = response.content + str(response.headers).encode()
            assert response.status_code == 200
            assert b"Mustermann" not in told
            assert b"20240102" not in told
    assert "Mustermann" not in caplog.text


def test_results_come_as_dicom_objects(client: TestClient) -> None:
    import pydicom

    dataset = dataset_of(PHANTOM.astype(np.uint16) << 4, 12, PatientName="Mustermann^Erika")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    content = content_of(dataset)
    for kind, modality in (("seg", "SEG"), ("sr", "SR"), ("sc", "OT"), ("pr", "PR")):
        response = post(client, f"/v1/dicom?kind={kind}", content, "application/dicom")
        assert response.headers["content-type"] == "application/dicom"
        made = pydicom.dcmread(io.BytesIO(response.content))
        assert made.Modality == modality
        assert made.StudyInstanceUID == "1.2.3"
    assert post(client, "/v1/dicom?kind=xx", content, "application/dicom").status_code == 422
    assert post(client, "/v1/dicom?kind=seg", png()).json()["type"] == "urn:hilum:problem:unreadable"
    sideways = dataset_of(np.rot90(PHANTOM).astype(np.uint16) << 4, 12)
    sideways.StudyInstanceUID, sideways.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    refused = content_of(sideways)
    assert (
        post(client, "/v1/dicom?kind=seg", refused, "application/dicom").json()["type"] == "urn:hilum:problem:refused"
    )
    report = post(client, "/v1/dicom?kind=sr", refused, "application/dicom")  # of a refusal, too
    assert pydicom.dcmread(io.BytesIO(report.content)).Modality == "SR"


def test_other_origins_are_allowed_by_name_alone() -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with TestClient(create_app(ServeSettings())) as closed:
        assert (
            "access-control-allow-origin" not in closed.get("/healthz", headers={"Origin": "https://a.example"}).headers
        )
        assert closed.options("/v1/predict", headers={"Origin": "https://a.example", **preflight}).status_code == 405
    with TestClient(create_app(ServeSettings(cors=("https://a.example",), token="secret"))) as client:
        allowed = client.options("/v1/predict", headers={"Origin": "https://a.example", **preflight})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        rejected = client.get("/v1/bundle", headers={"Origin": "https://a.example"})
        assert rejected.status_code == 401
        assert rejected.headers["access-control-allow-origin"] == "https://a.example"
        other = client.get("/healthz", headers={"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


def test_an_address_sends_small_packets_at_once() -> None:
    """asyncio sets TCP_NODELAY on sockets of protocol TCP alone; without it, a kept connection waits 40 ms."""
    with bind("127.0.0.1", 0) as bound, socket.create_connection(bound.getsockname()):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def test_the_web_app_is_served_under_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "<script>" not in page.text
    assert "style=" not in page.text
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 8
    assert not [link for link in links if link.startswith("/")]  # a proxy may serve it below a path
    for link in links:
        response = client.get(link)
        assert response.status_code == 200, link
        assert response.headers["content-security-policy"] == POLICY
    same = client.get(links[-1], headers={"If-None-Match": client.get(links[-1]).headers["etag"]})
    assert same.status_code == 304
    assert same.content == b""
    for path in ("/web/../api.py", "/web/%2e%2e/api.py", "/web/js", "/web/nothing.mjs", "/web/examples/nothing.png"):
        assert client.get(path).status_code == 404


def test_the_files_of_the_web_app_name_no_other_host() -> None:
    """Nor do they make HTML or code of text."""
    texts = {path: path.read_text(encoding="utf-8") for path in FOLDER.rglob("*") if path.is_file()}
    assert len(texts) >= 30
    for path, text in texts.items():
        text = text.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("^https:\\/\\/", "")
        for word in (
            "http:",
            "https:",
            "//cdn",
            "XMLHttpRequest",
            "import(",
            "@import url",
            "url(",
            "innerHTML",
            "eval(",
        ):
            found = re.sub(r'import\("\./\w+\.mjs"\)', "", text)  # of a type, in a comment
            assert word not in found, (path.name, word)


def test_the_examples_are_drawn(client: TestClient) -> None:
    listed = client.get("/web/examples").json()
    assert [one["name"] for one in listed] == list(EXAMPLES)
    statuses = []
    for name in EXAMPLES:
        content = client.get(f"/web/examples/{name}").content
        assert content == example_png(name)
        statuses.append(post(client, "/v1/predict", content).status_code)
    assert statuses == [200] * 5 + [422] * 3


def test_an_audit_is_summarized(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/v1/audit").status_code == 404
    (tmp_path / "audit.json").write_text(audit_report().model_dump_json())
    with TestClient(create_app(ServeSettings(audit=tmp_path))) as audited:
        found = audited.get("/v1/audit").json()
    report = audit_report()
    assert found["images"] == report.data.images
    assert found["findings"][0]["message"] == report.findings[0].message
    assert found["findings"][0]["word"] == report.findings[0].word
