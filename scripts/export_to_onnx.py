"""Export a checkpoint to ONNX with the original project's options, if PyTorch and ONNX Runtime agree.

    python scripts/export_to_onnx.py --checkpoint model_checkpoints/best_covid_model.safetensors

The checkpoint is a .pth file of the original project or a .safetensors file of model_arch.py. To create a bundle with
preprocessing and thresholds, use `hilum export RUN` or `hilum import-checkpoint FILE`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _shim import CHECKPOINT, find_checkpoint, run


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a checkpoint to ONNX.")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--onnx_path", type=Path, default=Path("output_results", "covid_multitask.onnx"))
    parser.add_argument("--img_size", type=int, help="side of the input, pixels (default: that of the checkpoint)")
    parser.add_argument("--opset", type=int, default=17)
    parser.add_argument("--no_dynamic_batch", action="store_true", help="fix the batch size to 1")
    parser.add_argument("--device", help="ignored: the export runs on the CPU")
    arguments = parser.parse_args()

    from hilum.backends.onnxruntime import OnnxRuntimeBackend
    from hilum.export.import_original import export_checkpoint, read_checkpoint
    from hilum.export.onnx import OUTPUTS
    from hilum.storage import write_bytes, write_json

    original = read_checkpoint(find_checkpoint(arguments.checkpoint), size=arguments.img_size)
    dynamic = not arguments.no_dynamic_batch
    graph, parity = export_checkpoint(original, opset=arguments.opset, dynamic_batch=dynamic)
    meta = {
        "class_names": list(original.manifest.class_names),
        "img_size": original.manifest.preprocess.size,
        "normalization": "RGB (gray, three times), scaled to [0, 1]",
        "outputs": {name: OUTPUTS[name] for name in OnnxRuntimeBackend(graph).output_names},
        "opset": arguments.opset,
        "dynamic_batch": dynamic,
    }
    write_bytes(arguments.onnx_path, graph)
    meta_path = arguments.onnx_path.with_name(f"{arguments.onnx_path.name}.meta.json")
    write_json(meta_path, meta)
    print(f"PyTorch and ONNX Runtime: probabilities within {parity.probabilities:.1e} on {parity.images} inputs.")
    print(f"Wrote {arguments.onnx_path} and {meta_path}.")


if __name__ == "__main__":
    run(main)
