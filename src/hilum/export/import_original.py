"""Convert checkpoints of the original project (``best_covid_model.pth``) to bundles.

The wrappers of the original's scripts in ``scripts/`` write safetensors with class names and size in the metadata;
both formats are read here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from hilum._version import __version__
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.pytorch import PyTorchBackend
from hilum.bundle.bundle import MODEL_CARD, ONNX_MODEL, SELF_TEST, WEIGHTS, Manifest, write_bundle
from hilum.bundle.card import model_card
from hilum.bundle.self_test import TOLERANCE
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import CheckpointError
from hilum.export.onnx import OUTPUTS, export_onnx
from hilum.export.parity import BATCH_SIZES, Parity, compare, random_batches, require_parity
from hilum.export.self_test import make_self_test
from hilum.models.build import build_model
from hilum.models.weights import fit_state, read_weights, save_weights
from hilum.training.checkpoint import read_torch_file

ORIGINAL_CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
ORIGINAL_SIZE = 256
SAFETENSORS = ".safetensors"
_LAST_LAYER = "classifier.9.weight"


class _NumberType:
    """Replacement of ``numpy.dtype`` when a checkpoint is read, for plain numbers only.

    NumPy's own class is not safe for untrusted files, which could change its flags so that it misreads memory.
    """

    def __init__(self, code: str, *_: object) -> None:
        self.dtype = np.dtype(code).newbyteorder("<")
        if self.dtype.kind not in "biuf":
            raise ValueError(f"{code} is not the type of a number")

    def __setstate__(self, state: Sequence[Any]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def _number(kind: _NumberType, content: bytes) -> Any:
    """Return a Python number, as a replacement of ``numpy.core.multiarray.scalar``."""
    return np.frombuffer(content, kind.dtype, count=1)[0].item()


_NUMPY = (
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_number, "numpy._core.multiarray.scalar"),  # NumPy 2
)
"""Replacements of the NumPy types in the original's checkpoints."""


@dataclass(frozen=True)
class OriginalModel:
    """A checkpoint of the original project.

    Attributes:
        model: MultiTaskUNet with the checkpoint's weights, in evaluation mode.
        manifest: Manifest with name, class names, preprocessing and network, not yet sealed.
        epoch: Epoch of the checkpoint, counted from 1; None if unknown.
    """

    model: nn.Module
    manifest: Manifest
    epoch: int | None


def read_checkpoint(file: Path, *, class_names: Sequence[str] | None = None, size: int | None = None) -> OriginalModel:
    """Read a checkpoint of the original project, or one written by ``convert_weights``, without executing code.

    A .pth file is a dict with ``model_state_dict`` (or the state_dict itself), and optionally ``class_names`` and
    ``model_config.img_size``. Without them, the original's four classes and 256 pixels are used.

    Args:
        file: The .pth or .safetensors file.
        class_names: Class names, instead of those in the file.
        size: Side of the square network input in pixels, instead of that in the file.

    Raises:
        CheckpointError: The file is not such a checkpoint, or its tensors do not fit the network.
    """
    content = _read_safetensors(file) if file.suffix == SAFETENSORS else read_torch_file(file, _NUMPY)
    state = _state_of(content, file)
    num_classes = len(state[_LAST_LAYER])
    names = _names_of(content, class_names, num_classes, file)
    spec = _spec_of(content, size, file)
    config = ModelConfig(name="unet", pretrained=False)
    model = build_model(config, spec, num_classes).eval()
    fit_state(model, state, str(file))
    manifest = Manifest(
        name=file.stem,
        class_names=names,
        preprocess=spec,
        model=config,
        hilum_version=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    epoch = content.get("epoch")
    return OriginalModel(model, manifest, epoch if isinstance(epoch, int) else None)


def convert_weights(weights: Path, out: Path, *, class_names: Sequence[str], size: int) -> None:
    """Copy a run's weights to ``out`` with class names and size in the metadata."""
    state, metadata = read_weights(weights)
    own = {"class_names": json.dumps(list(class_names)), "img_size": json.dumps([size, size])}
    save_weights(out, state, metadata | own)


def export_checkpoint(original: OriginalModel, *, opset: int = 17, dynamic_batch: bool = True) -> tuple[bytes, Parity]:
    """Return the ONNX graph of a checkpoint, and its parity with PyTorch on random batches.

    Args:
        original: The checkpoint.
        opset: ONNX operator set version.
        dynamic_batch: Let the batch size vary; otherwise it is 1.

    Raises:
        ParityError: The outputs differ by more than the tolerance.
        BundleError: As for export_onnx.
    """
    spec = original.manifest.preprocess
    graph = export_onnx(original.model, spec, opset=opset, dynamic_batch=dynamic_batch)
    batches = random_batches(spec, BATCH_SIZES if dynamic_batch else (1, 1, 1))
    parity = compare(
        PyTorchBackend(original.model), OnnxRuntimeBackend(graph), batches, original.manifest.mask_threshold
    )
    require_parity(parity)
    return graph, parity


def import_checkpoint(file: Path, out: Path, *, class_names: Sequence[str] | None = None, opset: int = 17) -> Manifest:
    """Convert a checkpoint of the original project to a bundle, check parity, and return the manifest.

    Args:
        file: The checkpoint.
        out: Path of the bundle to write.
        class_names: Class names in the order of the logits, instead of those in the file.
        opset: ONNX operator set version.

    Raises:
        CheckpointError: As for read_checkpoint.
        ParityError: As for export_checkpoint; nothing is written.
        OutputError: As for write_bundle.
    """
    original = read_checkpoint(file, class_names=class_names)
    graph, parity = export_checkpoint(original, opset=opset)
    backend = OnnxRuntimeBackend(graph)
    manifest = original.manifest.model_copy(
        update={
            "outputs": {name: OUTPUTS[name] for name in backend.output_names},
            "opset": opset,
            "parity": {"tolerance": TOLERANCE, "random_batches": parity.as_dict()},
        }
    )
    epoch = "unknown" if original.epoch is None else original.epoch
    facts: dict[str, Any] = {"images": None, "masks": None, "sources": {}, "epoch": epoch, "pretrained": "unknown"}
    card = model_card(manifest, facts)
    files = {
        ONNX_MODEL: graph,
        WEIGHTS: save(original.model.state_dict()),
        MODEL_CARD: card.encode(),
        SELF_TEST: make_self_test(backend, manifest.preprocess).content(),
    }
    return write_bundle(out, manifest, files)


def _read_safetensors(file: Path) -> dict[str, Any]:
    """Return the content of a .safetensors file in the structure of a .pth file."""
    state, metadata = read_weights(file)
    try:
        facts = {name: json.loads(metadata.get(name, "null")) for name in ("class_names", "img_size", "epoch")}
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"The metadata of '{file}' are not JSON: {error}.", hint="Convert the file again."
        ) from error
    return {"model_state_dict": state, **facts, "model_config": {"img_size": facts["img_size"]}}


def _state_of(content: dict[str, Any], file: Path) -> dict[str, torch.Tensor]:
    state = content.get("model_state_dict", content)
    last = state.get(_LAST_LAYER) if isinstance(state, dict) else None
    if not isinstance(last, torch.Tensor) or last.ndim != 2:
        raise CheckpointError(
            f"'{file}' is not a checkpoint of the original project: it has no {_LAST_LAYER}.",
            hint="Use a checkpoint of the network in the original's model_arch.py.",
        )
    tensors = {str(name): tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout is not torch.strided or not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"Tensor {name} in '{file}' has values that are not finite.",
                hint="The training diverged or the file is damaged. Use an earlier checkpoint.",
            )
    return tensors


def _names_of(
    content: dict[str, Any], class_names: Sequence[str] | None, num_classes: int, file: Path
) -> tuple[str, ...]:
    names = class_names or content.get("class_names", ORIGINAL_CLASSES)
    if (
        not isinstance(names, list | tuple)
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) != len(names)
        or len(names) != num_classes
    ):
        raise CheckpointError(
            f"Expected {num_classes} different class names for '{file}', got {names!r:.200}.",
            hint="Name all classes in the order of the logits: hilum import-checkpoint --class NAME --class NAME ...",
        )
    return tuple(names)


def _spec_of(content: dict[str, Any], size: int | None, file: Path) -> PreprocessSpec:
    settings = content.get("model_config")
    found = size or (settings.get("img_size") if isinstance(settings, dict) else None)
    if found is None:
        found = ORIGINAL_SIZE
    try:
        sides = set(found) if isinstance(found, list | tuple) else {found}
        return PreprocessSpec(size=sides.pop() if len(sides) == 1 else found, channels=3, fit="stretch")
    except (TypeError, ValidationError) as error:  # an unhashable or otherwise odd entry
        raise CheckpointError(
            f"Expected a square image size of 32 to 2048 pixels, a multiple of 32, in '{file}', got {found!r:.100}.",
        ) from error
