"""Predict with ONNX Runtime and the original project's options, from an .onnx file and its .meta.json.

    python scripts/run_onnx_inference.py --data_dir DATA --onnx_path covid_multitask.onnx

This is the only script that accepts an .onnx file without a bundle; `hilum predict` needs a bundle.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from _shim import answer, choose_samples, parse_inference, run
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from pydantic import ValidationError

from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.bundle.bundle import ONNX_MODEL, Bundle, Manifest
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError, DeviceError
from hilum.inference.predictor import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(description="Predict on radiographs with ONNX Runtime.")
    parser.add_argument("--onnx_path", type=Path, default=Path("output_results", "covid_multitask.onnx"))
    parser.add_argument("--meta_path", type=Path, default=Path("output_results", "covid_multitask.onnx.meta.json"))
    parser.add_argument("--use_cuda", action="store_true", help="use the GPU if ONNX Runtime supports it")
    arguments = parse_inference(parser, save_dir="onnxoutputs")

    manifest, dynamic = read_meta(arguments.meta_path)
    try:
        graph = arguments.onnx_path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"Cannot read the ONNX graph '{arguments.onnx_path}': {error.strerror}.", hint="Check --onnx_path."
        ) from error
    backend = open_graph(graph, use_cuda=arguments.use_cuda)
    require_fit(backend, manifest, arguments.onnx_path)
    bundle = Bundle(manifest.sealed({ONNX_MODEL: graph}), {ONNX_MODEL: graph}, arguments.onnx_path)
    predictor = Predictor(bundle, backend=backend, batch_size=8 if dynamic else 1)
    answer(predictor, choose_samples(arguments, manifest.class_names), arguments.save_dir, "onnx")


def read_meta(path: Path) -> tuple[Manifest, bool]:
    """Return the manifest from the metadata written by export_to_onnx.py, and whether the batch size is dynamic."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        spec = PreprocessSpec(size=meta.get("img_size", 256), channels=3, fit="stretch")
        model = ModelConfig(name="unet", pretrained=False)
        manifest = Manifest(name=path.stem, class_names=meta["class_names"], preprocess=spec, model=model)
        return manifest, bool(meta.get("dynamic_batch", False))
    except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
        raise BundleError(
            f"'{path}' is not a metadata file with class_names and img_size: {error}.",
            hint="Write it with export_to_onnx.py.",
        ) from error


def open_graph(graph: bytes, *, use_cuda: bool) -> OnnxRuntimeBackend:
    """Open the graph on the GPU if requested and available, as the original does; else on the CPU."""
    if use_cuda:
        try:
            return OnnxRuntimeBackend(graph, "cuda")
        except DeviceError as error:
            print(f"{error.message} Using the CPU.", file=sys.stderr)
    return OnnxRuntimeBackend(graph)


def require_fit(backend: OnnxRuntimeBackend, manifest: Manifest, path: Path) -> None:
    """Check that the graph fits its metadata by running it on a black image."""
    size, classes = manifest.preprocess.size, len(manifest.class_names)
    try:
        output = backend.run(np.zeros((1, 3, size, size), np.float32))
        found = (output.segmentation.shape, output.classification.shape)
    except (Fail, InvalidArgument, RuntimeException) as error:
        raise BundleError(
            f"The graph '{path}' does not accept images (1, 3, {size}, {size}) float32: {error}.",
            hint="Use the metadata that were written with the graph.",
        ) from error
    if found != ((1, 1, size, size), (1, classes)):
        raise BundleError(
            f"Expected a mask of {size} x {size} pixels and {classes} logits from '{path}', got {found}.",
            hint="Use the metadata that were written with the graph.",
        )


if __name__ == "__main__":
    run(main)
