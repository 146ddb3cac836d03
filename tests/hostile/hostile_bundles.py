"""Bundles whose seals are right and whose content is hostile."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx
from hostile_case import Case
from onnx import TensorProto, helper

from hilum.bundle.bundle import FEATURES, ONNX_MODEL, TRAINING_HASHES, WEIGHTS, Bundle, load_bundle
from hilum.bundle.container import MANIFEST
from hilum.bundle.default import resolve_bundle
from hilum.cpus import available_memory
from hilum.gate.stored import GATE_MODEL
from hilum.storage import sha256_bytes

Manifest = dict[str, Any]
_SIZE, _CLASSES = 128, 4  # of the packaged model


@cache
def packaged() -> Bundle:
    """The packaged model."""
    return load_bundle(resolve_bundle())


def packaged_files() -> dict[str, bytes]:
    return {name: packaged().read(name) for name in packaged().manifest.files}


def sealed(folder: Path, *, fields: Manifest | None = None, **files: bytes) -> Path:
    """Write the packaged bundle with other fields of its manifest and other files, and seal it as hilum does."""
    contents = packaged_files() | {name.replace("__", "."): content for name, content in files.items()}
    manifest = packaged().manifest.model_dump(mode="json") | (fields or {})
    manifest |= {"files": {name: sha256_bytes(content) for name, content in contents.items()}, "bundle_id": ""}
    blank = json.dumps(manifest, indent=2)
    text = json.dumps(manifest | {"bundle_id": sha256_bytes(blank.encode())}, indent=2)
    path = folder / "hostile"
    path.mkdir()
    for name, content in (contents | {MANIFEST: text.encode()}).items():
        (path / name).write_bytes(content)
    return path


def with_fields(**fields: Any) -> Callable[[Path], Path]:
    return partial(sealed, fields=fields)


def with_file(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    return lambda folder: sealed(folder, **{name.replace(".", "__"): content()})


def graph(*, big: int = 1, loops: int = 0, classes: int = _CLASSES, side: int = _SIZE, channels: int = 1) -> bytes:
    """A graph with the names of hilum's; it allocates ``big`` floats, and adds one ``loops`` times."""
    tensor, value = helper.make_tensor, helper.make_tensor_value_info
    numbers = [
        tensor("big", TensorProto.INT64, [1], [big]), tensor("trips", TensorProto.INT64, [], [loops]),
        tensor("true", TensorProto.BOOL, [], [True]), tensor("shape", TensorProto.INT64, [2], [1, classes]),
    ]  # fmt: skip
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "one"], ["y"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, [])],
        [value("on", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, [])],
        [tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    nodes = [
        helper.make_node("Identity", ["input"], ["segmentation"]),
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Sub", ["whole", "whole"], ["zero"]),
        helper.make_node("Add", ["big", "zero"], ["count"]),  # of the input, so that it is not computed when loaded
        helper.make_node("ConstantOfShape", ["count"], ["many"]),
        helper.make_node("ReduceMax", ["many"], ["most"], keepdims=0),
        helper.make_node("Add", ["mean", "most"], ["sum"]),
        helper.make_node("Loop", ["trips", "true", "sum"], ["counted"], body=body),
        helper.make_node("Expand", ["counted", "shape"], ["classification"]),
    ]
    image = ["N", channels, side, side]
    made = helper.make_graph(
        nodes,
        "hostile",
        [value("input", TensorProto.FLOAT, image)],
        [value("segmentation", TensorProto.FLOAT, image), value("classification", TensorProto.FLOAT, ["N", classes])],
        numbers,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def renamed_output() -> bytes:
    model = onnx.load_from_string(packaged().read(ONNX_MODEL))
    model.graph.output[0].name = "mask"
    return model.SerializeToString()


def external_weights() -> bytes:
    """A graph whose weights are in a file outside the bundle."""
    model = onnx.load_from_string(packaged().read(ONNX_MODEL))
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    return model.SerializeToString()


def gate_graph(side: int | str) -> bytes:
    """A gate's graph with an input of another side, and outputs of its own shape."""
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [helper.make_node("Identity", ["image"], [name]) for name in ("kind", "turn", "flags")],
        "gate",
        [value("image", TensorProto.FLOAT, ["N", 1, side, side])],
        [value(name, TensorProto.FLOAT, ["N", 1, side, side]) for name in ("kind", "turn", "flags")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def safetensors(header: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def zip_bomb(name: str, size: int) -> Callable[[Path], Path]:
    """A zip with one file of zeros beside the rest of the packaged bundle."""

    def make(folder: Path) -> Path:
        path = folder / "bomb.hilum"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            if name != MANIFEST:
                text = packaged().manifest.content()
                archive.writestr(MANIFEST, text)
            with archive.open(name, "w", force_zip64=True) as stream:
                for _ in range(size >> 20):
                    stream.write(bytes(1 << 20))
        return path

    return make


def manifest_of(content: bytes) -> Callable[[Path], Path]:
    """A folder with nothing but a manifest."""

    def make(folder: Path) -> Path:
        (folder / MANIFEST).write_bytes(content)
        return folder

    return make


def sparse_manifest(folder: Path) -> Path:
    with (folder / MANIFEST).open("wb") as stream:
        stream.truncate(4 << 30)
    return folder


def npy(header: bytes, size: int) -> bytes:
    """A NumPy file of zeros with any header."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(size)


def archive_of(array: bytes, *, damage: bool = False) -> bytes:
    """Feature statistics, both of them the same file; ``damage`` changes the compressed data."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("mean.npy", "whitening.npy"):
            archive.writestr(name, array)
    content = bytearray(stream.getvalue())
    if damage:
        content[38] ^= 0xFF  # behind the local header of 30 bytes and the name
    return bytes(content)


def features(array: bytes, *, damage: bool = False) -> Callable[[Path], Path]:
    return with_file(FEATURES, partial(archive_of, array, damage=damage))


def in_one_file(method: int) -> Callable[[Path], Path]:
    """A manifest, compressed by a method that hilum does not write, with damaged data."""

    def make(folder: Path) -> Path:
        path = folder / "a.hilum"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr(MANIFEST, packaged().manifest.content())
        content = bytearray(path.read_bytes())
        content[200] ^= 0xFF
        path.write_bytes(content)
        return path

    return make


def damaged_archive() -> bytes:
    return b"PK\x03\x04" + bytes(100)


SHAPE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}"
_HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,%d]}}'
_INFINITE = float("inf")
_FIVE = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia", "Fifth")

BUNDLES = [
    Case("manifest: zip bomb", zip_bomb(MANIFEST, 128 << 20), "BundleError"),
    Case("graph: zip bomb", zip_bomb(ONNX_MODEL, 512 << 20), "BundleError"),
    Case("manifest: 4 GiB, sparse", sparse_manifest, "BundleError"),
    Case("manifest: nested 100,000 deep", manifest_of(b"[" * 100_000), "BundleError"),
    Case("manifest: a number of 100,000 digits", manifest_of(b'{"format": ' + b"1" * 100_000 + b"}"), "BundleError"),
    Case("manifest: not UTF-8", manifest_of(b'{"format": 1, "name": "\xff\xfe"}'), "BundleError"),
    Case("temperature: infinity", with_fields(temperature=_INFINITE), "BundleError"),
    Case("temperature: NaN", with_fields(temperature=float("nan")), "BundleError"),
    Case("temperature of a class: infinity", with_fields(class_temperatures=[_INFINITE] * 4), "BundleError"),
    Case("metrics: infinity", with_fields(metrics={"test": _INFINITE}), "BundleError"),
    Case("calibration: NaN", with_fields(calibration={"images": float("nan")}), "BundleError"),
    Case("gate threshold: infinity", with_fields(gate={"learned": {"color": _INFINITE}}), "BundleError"),
    Case("class names: five for four", with_fields(
        class_names=_FIVE, conformal_quantiles={}, class_temperatures=None, class_thresholds=None), "BundleError"),
    Case("class names: three for four", with_fields(
        class_names=_FIVE[:3], conformal_quantiles={}, class_temperatures=None, class_thresholds=None), "BundleError"),
    Case("class names: none", with_fields(
        class_names=(), conformal_quantiles={}, class_temperatures=None, class_thresholds=None), "BundleError"),
    Case("preprocessing: another size", with_fields(preprocess={"size": 256, "channels": 1}), "BundleError"),
    Case("preprocessing: another number of channels", with_fields(
        preprocess={"size": 128, "channels": 3}), "BundleError"),
    Case("preprocessing: 4 million pixels a side", with_fields(preprocess={"size": 1 << 22}), "BundleError"),
    Case("graph: 64 GiB", with_file(ONNX_MODEL, partial(graph, big=1 << 34)), "DeviceError"),
    Case("graph: more than half of the memory", with_file(
        ONNX_MODEL, lambda: graph(big=available_memory() * 6 // 10 // 4)), "DeviceError"),
    Case("graph: 2 ** 62 floats", with_file(ONNX_MODEL, partial(graph, big=1 << 62)), "BundleError"),
    Case("graph: a negative size", with_file(ONNX_MODEL, partial(graph, big=-5)), "BundleError"),
    Case("graph: fewer classes", with_file(ONNX_MODEL, partial(graph, classes=3)), "BundleError"),
    Case("graph: another side", with_file(ONNX_MODEL, partial(graph, side=64)), "BundleError"),
    Case("graph: three channels", with_file(ONNX_MODEL, partial(graph, channels=3)), "BundleError"),
    Case("graph: another output", with_file(ONNX_MODEL, renamed_output), "BundleError"),
    Case("graph: weights in a file elsewhere", with_file(ONNX_MODEL, external_weights), "BundleError"),
    Case("graph: a dimension whose name is not UTF-8",
         with_file(ONNX_MODEL, lambda: graph().replace(b"\x12\x01N", b"\x12\x01\xa1")), "BundleError"),
    Case("graph: empty", with_file(ONNX_MODEL, bytes), "BundleError"),
    Case("graph: text", with_file(ONNX_MODEL, lambda: b"hello"), "BundleError"),
    Case("graph: half of it", with_file(ONNX_MODEL, lambda: packaged().read(ONNX_MODEL)[: 3 << 20]), "BundleError"),
    Case("gate: no number as its side", with_file(GATE_MODEL, partial(gate_graph, "S")), "BundleError"),
    Case("gate: a side of 31", with_file(GATE_MODEL, partial(gate_graph, 31)), "BundleError"),
    Case("gate: outputs of another shape", with_file(GATE_MODEL, partial(gate_graph, 64)), "BundleError"),
    Case("gate: the network's graph", with_file(GATE_MODEL, lambda: packaged().read(ONNX_MODEL)), "BundleError"),
    Case("features: a damaged archive", with_file(FEATURES, damaged_archive), "BundleError"),
    Case("features: text", with_file(FEATURES, lambda: b"hello"), "BundleError"),
    Case("features: a header without end", features(npy(b"{'descr': (", 0)), "BundleError"),
    Case("features: a shape of 2 ** 62", features(npy(SHAPE % (1 << 62), 8)), "BundleError"),
    Case("features: a shape of 10 ** 30", features(npy(SHAPE % 10**30, 8)), "BundleError"),
    Case("features: a shape of 4 GiB", features(npy(SHAPE % (1 << 30), 8)), "BundleError"),
    Case("features: a negative shape", features(npy(SHAPE % -4, 8)), "BundleError"),
    Case("features: objects", features(npy(SHAPE.replace(b"<f4", b"|O") % 1, 8)), "BundleError"),
    Case("features: text for numbers", features(npy(SHAPE.replace(b"<f4", b"|S4") % 2, 8)), "BundleError"),
    Case("features: damaged compression", features(npy(SHAPE % 2, 8), damage=True), "BundleError"),
    Case("features: inflates to 512 MiB", with_file(
        FEATURES, lambda: archive_of(npy(SHAPE % (1 << 27), 1 << 28))), "BundleError"),
    Case("archive: compressed by LZMA", in_one_file(zipfile.ZIP_LZMA), "BundleError"),
    Case("archive: compressed by bzip2", in_one_file(zipfile.ZIP_BZIP2), "BundleError"),
    Case("training hashes: text", with_file(TRAINING_HASHES, lambda: b"hello"), "ok"),  # read only where compared
]  # fmt: skip

WEIGHT_FILES = [
    Case("weights: empty", with_file(WEIGHTS, bytes), "CheckpointError"),
    Case("weights: a header of 2 ** 60 bytes", with_file(
        WEIGHTS, partial(safetensors, b"{}", 1 << 60)), "CheckpointError"),
    Case("weights: no JSON", with_file(WEIGHTS, partial(safetensors, b"{" * 8)), "CheckpointError"),
    Case("weights: offsets beyond the file", with_file(
        WEIGHTS, partial(safetensors, _HEADER % (1 << 40))), "CheckpointError"),
    Case("weights: an unknown type", with_file(
        WEIGHTS, partial(safetensors, _HEADER.replace(b"F32", b"Q99") % 4, data=bytes(4))), "CheckpointError"),
    Case("weights: of another network", with_file(
        WEIGHTS, partial(safetensors, _HEADER % 4, data=bytes(4))), "CheckpointError"),
    Case("weights: half of them", with_file(
        WEIGHTS, lambda: packaged().read(WEIGHTS)[: 3 << 20]), "CheckpointError"),
    Case("weights: damaged header", with_file(
        WEIGHTS, lambda: b"\xff" * 64 + packaged().read(WEIGHTS)[64:]), "CheckpointError"),
]  # fmt: skip
