"""Write the network of a bundle as a model repository of the Triton Inference Server.

    DIR/NAME/config.pbtxt    types and shapes of the tensors, and how to prepare images and read the outputs
    DIR/NAME/labels.txt      the classes, one per line
    DIR/NAME/1/model.onnx    the network

The server runs the network alone: it neither decodes files nor checks the input, and its logits are not calibrated. The
parameters of config.pbtxt state what a client has to do.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hilum.bundle.bundle import ONNX_MODEL, Bundle, Manifest
from hilum.errors import ConfigError, OutputError
from hilum.storage import write_bytes, write_text

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_STATED = {
    "pad": "scale the longer side to {size} with the aspect ratio kept, center, and fill with 0",
    "stretch": "scale to {size} x {size}",
}
_MAX_BATCH = 32


def write_triton_repository(bundle: Bundle, out: Path, name: str = "hilum") -> Path:
    """Write the model repository and return the folder of the model.

    Args:
        bundle: The bundle.
        out: The repository; created if it does not exist. Other models in it are left alone.
        name: Name of the model.

    Raises:
        ConfigError: The name is not valid as the name of a folder.
        OutputError: The model exists already, or the folder cannot be written.
    """
    if not _NAME.fullmatch(name) or set(name) <= {"."}:
        raise ConfigError(f"{name!r} is not a valid model name.", hint="Use letters, digits, '_', '.' and '-'.")
    folder = out / name
    if folder.exists():
        raise OutputError(f"'{folder}' exists.", hint="Choose another folder, or remove it.")
    manifest = bundle.manifest
    write_text(folder / "labels.txt", "".join(f"{label}\n" for label in manifest.class_names))
    write_bytes(folder / "1" / "model.onnx", bundle.read(ONNX_MODEL))
    write_text(folder / "config.pbtxt", model_config(manifest, name))  # last: without it the server sees no model
    return folder


def model_config(manifest: Manifest, name: str) -> str:
    """Return the content of config.pbtxt, in the text format of Triton's ModelConfig."""
    size, channels = manifest.preprocess.size, manifest.preprocess.channels
    shapes = {
        "segmentation": (1, size, size),
        "classification": (len(manifest.class_names),),
        "evidence": manifest.evidence_shape or (),
        "features": (-1,),
    }
    outputs = [_tensor(tensor, shapes[tensor], labels=tensor == "classification") for tensor in manifest.outputs]
    parts = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {_MAX_BATCH}",
        f"input [ {_tensor('input', (channels, size, size))} ]",
        f"output [\n  {', '.join(outputs)}\n]".replace("}, {", "},\n  {"),
        "dynamic_batching { }",
        *(_parameter(key, value) for key, value in stated(manifest).items()),
    ]
    return "\n".join(parts) + "\n"


def stated(manifest: Manifest) -> dict[str, str]:
    """Return what a client has to do before and after the network, by key."""
    spec = manifest.preprocess
    return {
        "bundle_id": manifest.bundle_id,
        "preprocess": (
            f"gray values of the image, {_STATED[spec.fit].format(size=spec.size)}, as float32 in [0, 1], in "
            f"{spec.channels} equal channel(s); hilum.imaging.preprocess"
        ),
        "preprocess_spec": json.dumps(spec.model_dump(mode="json")),
        "classification": "logits; divide by `temperature`, then softmax",
        "temperature": json.dumps(manifest.applied_temperature),
        "mask_threshold": json.dumps(manifest.mask_threshold),
        **{f"output_{key}": text for key, text in manifest.outputs.items()},
    }


def _tensor(name: str, shape: tuple[int, ...], *, labels: bool = False) -> str:
    """Return a tensor; Triton adds the dimension of the batch."""
    more = ' label_filename: "labels.txt"' if labels else ""
    return f'{{ name: "{name}" data_type: TYPE_FP32 dims: [ {", ".join(map(str, shape))} ]{more} }}'


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(value)} }} }}"
