"""The routes of the Open Inference Protocol v2 (KServe), with Triton's binary tensor data extension.

The model is ``hilum``. Its input ``image`` holds the contents of N files, which go through the same pipeline as at
/v1/predict; its outputs are those of ``hilum predict``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

from hilum._version import __version__
from hilum.bundle.bundle import Manifest
from hilum.inference.png import png_bytes
from hilum.inference.predictor import Upload
from hilum.inference.result import Prediction, Result
from hilum.service.engine import Engine, Waiting
from hilum.service.problems import ProblemError
from hilum.service.settings import ServeSettings

ROOT = "/v2"
MODEL = "hilum"
VERSION = "1"
INPUT = "image"
_HEADER = "Inference-Header-Content-Length"
_MODEL_PATHS = ("/models/{model}", "/models/{model}/versions/{version}")

Row = Mapping[str, Any]
"""Values of one image by output."""


class Output(NamedTuple):
    """An output tensor; its first dimension, which is not in ``shape``, is that of the images."""

    datatype: str
    shape: tuple[int, ...]
    value: Callable[[Prediction], Any]


def add_open_inference_routes(app: FastAPI, engine: Engine, settings: ServeSettings) -> None:
    """Add the routes under /v2, which the protocol describes."""
    outputs = outputs_of(engine.manifest)
    described = _description(outputs)

    async def server() -> dict[str, Any]:
        return {"name": MODEL, "version": __version__, "extensions": ["binary_tensor_data"]}

    async def live() -> dict[str, bool]:
        return {"live": True}

    async def ready() -> dict[str, bool]:
        engine.check_ready()
        return {"ready": True}

    async def model_ready(model: str, version: str = VERSION) -> dict[str, Any]:
        _check_model(model, version)
        return {"name": MODEL, **await ready()}

    async def describe(model: str, version: str = VERSION) -> dict[str, Any]:
        _check_model(model, version)
        return described

    async def infer(request: Request, model: str, version: str = VERSION) -> Response:
        _check_model(model, version)
        call = read_call(await request.body(), request.headers.get(_HEADER), outputs, settings.max_files)
        waiting = [Waiting(f"image {n}", partial(_given, content)) for n, content in enumerate(call.contents, start=1)]
        rows = await engine.predict(waiting, partial(row_of, outputs={name: outputs[name] for name in call.binary}))
        return answer(call, rows, outputs)

    gets: dict[str, Callable[..., Any]] = {"": server, "/health/live": live, "/health/ready": ready}
    for path in _MODEL_PATHS:
        gets |= {f"{path}/ready": model_ready, path: describe}
        app.post(f"{ROOT}{path}/infer", include_in_schema=False, response_model=None)(infer)
    for path, work in gets.items():
        app.get(f"{ROOT}{path}", include_in_schema=False)(work)


def outputs_of(manifest: Manifest) -> dict[str, Output]:
    """Return the outputs by name; rows of images without a prediction are zeros and empty strings."""
    outputs = {
        "status": Output("BYTES", (), lambda result: result.status),
        "reason": Output("BYTES", (), lambda result: result.reason),
        "predicted_label": Output("BYTES", (), lambda result: result.label),
        "probabilities": Output(
            "FP32", (len(manifest.class_names),), lambda result: list(result.probabilities.values())
        ),
        "abstained": Output("BOOL", (), lambda result: result.abstained),
        "lung_fraction": Output("FP32", (), lambda result: result.lung_fraction),
        "mask": Output("BYTES", (), lambda result: png_bytes(result.mask)),
    }
    if (shape := manifest.evidence_shape) is not None:
        outputs["evidence"] = Output("FP32", shape, lambda result: result.evidence)
    return outputs


class Call(NamedTuple):
    """An inference request: its id, the contents of the files, and the outputs, with whether each is binary."""

    id: str | None
    contents: list[bytes]
    binary: dict[str, bool]


def read_call(body: bytes, header_length: str | None, outputs: Mapping[str, Output], limit: int) -> Call:
    """Read the body of an inference request.

    Args:
        body: JSON, followed by the input tensor if this is binary.
        header_length: Length of the JSON, as the header says; None if the body is only JSON.
        outputs: The outputs of the model.
        limit: Maximum number of images.

    Raises:
        ProblemError: The request is invalid.
    """
    if header_length is not None and not (header_length.isdigit() and int(header_length) <= len(body)):
        raise _invalid(f"{_HEADER} is {header_length}, of a body of {len(body):,} bytes.")
    length = len(body) if header_length is None else int(header_length)
    try:
        content = json.loads(body[:length])
        (tensor,) = content["inputs"]
        name, datatype, shape = tensor["name"], tensor["datatype"], list(tensor["shape"])
        wanted = content.get("outputs") or [{"name": name} for name in outputs]
        every = bool(content.get("parameters", {}).get("binary_data_output", False))
        binary = {own["name"]: bool(own.get("parameters", {}).get("binary_data", every)) for own in wanted}
        size = tensor.get("parameters", {}).get("binary_data_size")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _invalid(f"Expected an inference request with one input, got {error!r:.120}.") from error
    if unknown := sorted(map(str, binary.keys() - outputs.keys())):
        raise _invalid(f"Unknown output {unknown[0]!r:.80}; there are {', '.join(outputs)}.")
    if name != INPUT or datatype != "BYTES":
        raise _invalid(f"Expected input {INPUT!r} of type BYTES, got {name!r:.80} of type {datatype!r:.80}.")
    contents = _binary_elements(body[length:], size) if size is not None else _json_elements(tensor.get("data"))
    if shape not in ([len(contents)], [len(contents), 1]) or not contents:
        raise _invalid(f"Expected shape [N] or [N, 1], N at least 1, got {shape!r:.80} with {len(contents)} elements.")
    if len(contents) > limit:
        raise ProblemError.of("too-many-files", 422, f"Expected at most {limit} files, got {len(contents)}.")
    identifier = content.get("id")
    return Call(identifier if isinstance(identifier, str) else None, contents, binary)


def _binary_elements(data: bytes, size: object) -> list[bytes]:
    """Split a binary tensor of type BYTES: each element follows its length, 4 bytes little-endian."""
    elements, place = [], 0
    while place + 4 <= len(data):
        length = int.from_bytes(data[place : place + 4], "little")
        elements.append(data[place + 4 : place + 4 + length])
        place += 4 + length
    if place != len(data) or size != len(data):
        raise _invalid(f"The elements of the binary tensor end at byte {place:,} of {len(data):,}.")
    return elements


def _json_elements(data: object) -> list[bytes]:
    if not isinstance(data, list) or not all(isinstance(element, str) for element in data):
        raise _invalid("Expected the contents of the files as binary tensor data, or `data` as a list of base64.")
    try:
        return [base64.b64decode(element, validate=True) for element in data]
    except (binascii.Error, ValueError) as error:
        raise _invalid(f"`data` is not base64: {error}.") from error


def row_of(result: Result, upload: Upload, outputs: Mapping[str, Output]) -> Row:
    """Return the values of one image by output."""
    if isinstance(result, Prediction):
        return {name: output.value(result) for name, output in outputs.items()}
    return {"status": result.status, "reason": result.reason}


def answer(call: Call, rows: Sequence[Row], outputs: Mapping[str, Output]) -> Response:
    """Return the response: JSON, followed by the tensors that are binary."""
    tensors, parts = [], []
    for name, binary in call.binary.items():
        output = outputs[name]
        shape = [len(rows), *output.shape]
        tensor: dict[str, Any] = {"name": name, "datatype": output.datatype, "shape": shape}
        if output.datatype == "BYTES":
            elements = [_encoded(row.get(name, "")) for row in rows]
            content = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
            data: list[Any] = [base64.b64encode(own).decode() if name == "mask" else own.decode() for own in elements]
        else:
            values = _array(rows, name, output, shape)
            content, data = values.tobytes(), values.ravel().tolist()
        if binary:
            parts.append(content)
            tensor["parameters"] = {"binary_data_size": len(content)}
        else:
            tensor["data"] = data
        tensors.append(tensor)
    head: dict[str, Any] = {"model_name": MODEL, "model_version": VERSION, "outputs": tensors}
    if call.id is not None:
        head["id"] = call.id
    if not parts:
        return JSONResponse(head)
    text = json.dumps(head).encode()
    headers = {_HEADER: str(len(text))}
    return Response(b"".join([text, *parts]), media_type="application/octet-stream", headers=headers)


def _array(rows: Sequence[Row], name: str, output: Output, shape: Sequence[int]) -> NDArray[Any]:
    values = np.zeros(shape, np.bool_ if output.datatype == "BOOL" else np.dtype("<f4"))
    for place, row in enumerate(rows):
        if name in row:
            values[place] = row[name]
    return values


def _encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _description(outputs: Mapping[str, Output]) -> dict[str, Any]:
    tensors = [{"name": name, "datatype": own.datatype, "shape": [-1, *own.shape]} for name, own in outputs.items()]
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": "hilum",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": tensors,
    }


def _check_model(model: str, version: str) -> None:
    if (model, version) != (MODEL, VERSION):
        raise ProblemError.of("not-found", 404, f"The only model is {MODEL!r}, version {VERSION}.")


def _invalid(detail: str) -> ProblemError:
    return ProblemError.of("bad-request", 400, detail)


async def _given(content: bytes) -> bytes:
    return content
