"""Targets: the parts of a bundle. Seals are made right, since a wrong one ends the reading of a part at once."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
from fuzz_case import Target
from hostile_bundles import gate_graph, graph, packaged, safetensors

from hilum.bundle.bundle import FEATURES, ONNX_MODEL, SELF_TEST, TRAINING_HASHES, Bundle, load_bundle
from hilum.bundle.container import MANIFEST
from hilum.storage import sha256_bytes

_HERE = Path("fuzz")
_LOCAL = struct.Struct("<26xHH")  # a zip's header of an entry: the lengths of its name and of its extra field


def manifest() -> Target:
    """Manifests, sealed after the change."""
    facts = packaged().manifest.model_dump(mode="json") | {"files": {}, "bundle_id": ""}
    small = {
        name: facts[name] for name in ("format", "name", "class_names", "preprocess", "model", "files", "bundle_id")
    }
    folder = Path(tempfile.mkdtemp(prefix="hilum-fuzz-"))

    def run(content: bytes) -> Hashable:
        digest = sha256_bytes(content)
        (folder / MANIFEST).write_bytes(content.replace(b'"bundle_id": ""', b'"bundle_id": "%s"' % digest.encode(), 1))
        loaded = load_bundle(folder).manifest
        loaded.content()
        return len(loaded.class_names), loaded.applied_temperature == 1, loaded.evidence_shape

    return Target("manifest", [json.dumps(own, indent=2).encode() for own in (facts, small)], run)


def container() -> Target:
    """Bundles in one file."""
    files = {"a.txt": b"text" * 50}
    blank = packaged().manifest.model_copy(update={"training_hashes": None}).sealed(files)
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr(MANIFEST, blank.content())
            archive.writestr("a.txt", files["a.txt"])
        seeds.append(stream.getvalue())
    path = Path(tempfile.mkdtemp(prefix="hilum-fuzz-")) / "a.hilum"

    def run(content: bytes) -> Hashable:
        path.write_bytes(content)
        return len(load_bundle(path).manifest.files)

    return Target("container", seeds, run)


def weights() -> Target:
    """Weights for PyTorch, of a network of two tensors."""
    import torch
    from safetensors.torch import save
    from torch import nn

    from hilum.models.weights import fit_state, parse_weights

    network = nn.Linear(3, 2)
    seeds = [save(network.state_dict()), save({"a": torch.zeros(2, dtype=torch.bfloat16)}, {"hilum": "{}"})]
    seeds.append(safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', data=bytes(4)))

    def run(content: bytes) -> Hashable:
        fit_state(network, parse_weights(content, "fuzz"), "fuzz")
        return True

    return Target("weights", seeds, run)


def graphs() -> Target:
    """Graphs of a network and of an input check; both are opened and run."""
    from hilum.backends.onnxruntime import open as open_backend
    from hilum.gate.learned import GateEngine

    manifest = packaged().manifest.model_copy(update={"outputs": ("segmentation", "classification")})

    def run(content: bytes) -> Hashable:
        if b"segmentation" in content:
            return open_backend(Bundle(manifest, {ONNX_MODEL: content}, _HERE)).run(
                np.zeros((2, 1, 128, 128), np.float32)
            )
        return GateEngine(content).spec.size

    return Target("graphs", [graph(), graph(loops=3, big=100), gate_graph(64), gate_graph("S")], lambda c: bool(run(c)))


def arrays() -> Target:
    """Files of arrays: feature statistics, self-test and training hashes, by the first byte."""
    from hilum.bundle.self_test import self_test_of
    from hilum.bundle.training_hashes import known_images
    from hilum.gate.post_check import FeatureReference

    readers: tuple[tuple[str, Callable[[Bundle], object]], ...] = (
        (FEATURES, lambda bundle: FeatureReference.read(bundle.read(FEATURES)).mean.size),
        (SELF_TEST, lambda bundle: self_test_of(bundle) is None),
        (TRAINING_HASHES, lambda bundle: len(known_images(bundle).hashes)),
    )
    stream, plain, hashes = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez_compressed(stream, mean=np.zeros(3, np.float32), whitening=np.eye(3, dtype=np.float32))
    np.savez(plain, mean=np.zeros(3, np.float32), whitening=np.eye(3, dtype=np.float32))
    np.save(hashes, np.zeros((2, 32), np.uint8))
    outputs = {"segmentation": np.zeros((1, 128, 128), np.float32), "classification": np.zeros(4, np.float32)}
    test = io.BytesIO()
    np.savez_compressed(test, image=np.zeros((128, 128), np.uint8), **outputs)
    seeds = [b"\0" + stream.getvalue(), b"\0" + plain.getvalue(), b"\1" + test.getvalue(), b"\2" + hashes.getvalue()]

    def run(content: bytes) -> Hashable:
        name, reader = readers[content[0] % len(readers) if content else 0]
        return name, bool(reader(Bundle(packaged().manifest, {name: _checked(content[1:])}, _HERE)))

    return Target("arrays", seeds, run)


def _checked(content: bytes) -> bytes:
    """Correct the checksums of a zip's first entries, so that what is in them is read."""
    fixed, place = bytearray(content), 0
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except Exception:  # whatever is wrong with it is for the reader to find
        return content
    place = content.find(b"PK\1\2")
    for entry in entries[:4]:
        local = entry.header_offset
        head = content[local : local + _LOCAL.size]
        if entry.compress_type == zipfile.ZIP_STORED and len(head) == _LOCAL.size and 0 <= place <= len(content) - 20:
            start = local + _LOCAL.size + sum(_LOCAL.unpack(head))
            checksum = zlib.crc32(content[start : start + entry.compress_size]).to_bytes(4, "little")
            fixed[place + 16 : place + 20] = fixed[local + 14 : local + 18] = checksum
        place = content.find(b"PK\1\2", place + 1)
    return bytes(fixed)
