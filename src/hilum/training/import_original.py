"""Bring a checkpoint of the original project (``best_covid_model.pth``) into a bundle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from hilum._version import __version__
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import CheckpointError
from hilum.export.bundle import MODEL_CARD, ONNX_MODEL, WEIGHTS, Manifest, write_bundle
from hilum.export.card import model_card
from hilum.export.onnx import OUTPUTS, export_onnx
from hilum.export.parity import TOLERANCE, compare, random_batches, require_parity
from hilum.inference.backends import OnnxBackend, TorchBackend
from hilum.models.build import build_model
from hilum.training.checkpoint import fit_state, read_torch_file

ORIGINAL_CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
_LAST_LAYER = "classifier.9.weight"


def import_checkpoint(file: Path, out: Path, *, class_names: Sequence[str] | None = None, opset: int = 17) -> Manifest:
    """Read the original project's checkpoint and write it as a bundle, with parity proved.

    The file is a dict with ``model_state_dict`` (or the state_dict itself); ``class_names`` and
    ``model_config.img_size`` are taken from it where they are there. The periodic checkpoints, which carry
    neither, get the original's four classes and 256 pixels.

    Args:
        file: a .pth file; read with ``weights_only=True``, so that nothing in it can execute.
        out: the bundle to write.
        class_names: overrides those of the file.
        opset: of the ONNX graph.

    Raises:
        CheckpointError: the file is not such a checkpoint, or its tensors are not those of the network.
    """
    content = read_torch_file(file)
    state = _state_of(content, file)
    names = tuple(class_names or content.get("class_names") or ORIGINAL_CLASSES)
    num_classes = state[_LAST_LAYER].shape[0]
    if len(names) != num_classes:
        raise CheckpointError(
            f"Expected {num_classes} class names for {file}, got {list(names)}.", cure="Name them all with --class."
        )
    spec = PreprocessSpec(size=_size_of(content), channels=3, fit="stretch")
    config = ModelConfig(name="unet", pretrained=False)
    model = build_model(config, spec, num_classes).eval()
    fit_state(model, state, str(file))
    graph = export_onnx(model, spec, opset=opset)
    backend = OnnxBackend(graph)
    parity = compare(
        TorchBackend(model), backend, random_batches(spec), Manifest.model_fields["mask_threshold"].default
    )
    require_parity(parity)
    manifest = Manifest(
        name=file.stem,
        class_names=names,
        preprocess=spec,
        model=config,
        outputs={output: OUTPUTS[output] for output in backend.output_names},
        opset=opset,
        parity={"tolerance": TOLERANCE, "random_batches": parity.as_dict()},
        hilum_version=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    unknown = dict.fromkeys(("train", "val", "test"), 0)
    facts = {
        "images": unknown,
        "masks": unknown,
        "sources": {},
        "epochs": content.get("epoch", "unknown"),
        "pretrained": None,
    }
    card = model_card(manifest, facts)
    return write_bundle(
        out, manifest, {ONNX_MODEL: graph, WEIGHTS: save(model.state_dict()), MODEL_CARD: card.encode()}
    )


def _state_of(content: dict[str, Any], file: Path) -> dict[str, torch.Tensor]:
    state = content.get("model_state_dict", content)
    if not isinstance(state, dict) or not isinstance(state.get(_LAST_LAYER), torch.Tensor):
        raise CheckpointError(
            f"Expected a checkpoint of the original project in {file}, found no {_LAST_LAYER}.",
            cure="It must come from the original model_arch.py, with a UNet backbone and two heads.",
        )
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}


def _size_of(content: dict[str, Any]) -> int:
    settings = content.get("model_config")
    sizes = settings.get("img_size") if isinstance(settings, dict) else None
    return int(sizes[0]) if sizes else 256
