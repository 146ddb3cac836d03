"""Add the self-test to bundles of earlier versions: ``python scripts/add_self_test.py BUNDLE...``."""

from __future__ import annotations

import sys
from pathlib import Path

from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.bundle.bundle import ONNX_MODEL, SELF_TEST, load_bundle, write_bundle
from hilum.export.self_test import make_self_test


def main() -> None:
    """Write each bundle again with the answers of its float32 graph in ONNX Runtime."""
    for path in map(Path, sys.argv[1:]):
        bundle = load_bundle(path)
        test = make_self_test(OnnxRuntimeBackend(bundle.read(ONNX_MODEL)), bundle.manifest.preprocess)
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        write_bundle(path, bundle.manifest, {**files, SELF_TEST: test.content()})


if __name__ == "__main__":
    main()
