"""From a network to an ONNX graph whose inputs and outputs keep the original project's names."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from hilum._version import __version__
from hilum.config import PreprocessSpec
from hilum.errors import BundleError, ConfigError
from hilum.types import ModelOutput

INPUT = "input"
_FIRST_DYNAMO_OPSET = 18
_OPSETS = range(11, 24)
OUTPUTS = {
    "segmentation": "lung probability (N, 1, S, S) float32 in [0, 1]",
    "classification": "class logits (N, K) float32, before temperature and softmax",
    "evidence": "per class (N, K, h, w) float32, summing over h, w to the logit less its bias",
}


class ExportedNetwork(nn.Module):
    """The network as clients see it: the mask as a probability, the classes as logits, evidence where it has it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:  # the graph's input name
        """(N, C, S, S) float32 in [0, 1] to the outputs of OUTPUTS, in their order."""
        output: ModelOutput = self.model(input)
        segmentation = torch.sigmoid(output.mask_logits)
        if output.evidence is None:
            return segmentation, output.class_logits
        return segmentation, output.class_logits, output.evidence


def export_onnx(model: nn.Module, spec: PreprocessSpec, *, opset: int = 17, dynamic_batch: bool = True) -> bytes:
    """The network as a checked ONNX model with embedded weights.

    Args:
        model: returns a ModelOutput; exported in evaluation mode, on the CPU.
        spec: gives the input's shape (N, C, S, S).
        opset: of the default operator set, 11 to 23.
        dynamic_batch: let N vary; else N is 1.

    Raises:
        ConfigError: the opset is out of range.
        BundleError: the graph cannot be made at this opset, or fails ONNX's own checker.
    """
    if opset not in _OPSETS:
        raise ConfigError(f"Expected an opset of {_OPSETS[0]} to {_OPSETS[-1]}, got {opset}.", cure="Use --opset 17.")
    network = ExportedNetwork(model).cpu().eval()
    n = 2 if dynamic_batch else 1  # torch.export takes a batch of one for a constant
    example = torch.zeros(n, spec.channels, spec.size, spec.size)
    with torch.inference_mode():
        shapes = [output.shape[1:] for output in network(example)]
    names = list(OUTPUTS)[: len(shapes)]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                network,
                (example,),
                path,
                input_names=[INPUT],
                output_names=names,
                opset_version=opset,
                external_data=False,
                **_exporter(opset, names, dynamic_batch),
            )
            graph = onnx.load(path)
            onnx.checker.check_model(graph, full_check=True)
        except (RuntimeError, ValueError, onnx.checker.ValidationError, torch.onnx.OnnxExporterError) as error:
            raise BundleError(f"Expected {type(model).__name__} to export at opset {opset}, got: {error}.") from error
    found = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if found != opset:
        raise BundleError(
            f"Expected the graph at opset {opset}, the exporter could only give {found}.", cure=f"Use --opset {found}."
        )
    graph.producer_name, graph.producer_version = "hilum", __version__
    _strip_origin(graph)
    for output, shape in zip(graph.graph.output, shapes, strict=True):
        _declare(output, shape)
    content: bytes = graph.SerializeToString()
    return content


def _declare(output: Any, shape: Sequence[int]) -> None:
    """Give an output's sizes after the batch, of which the older exporter does not know all."""
    for axis, size in zip(output.type.tensor_type.shape.dim[1:], shape, strict=True):
        axis.dim_value = size


def _strip_origin(message: Any) -> None:
    """Clear every ``doc_string`` and ``metadata_props``: the exporter writes its stack traces, with paths, there."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None and field.name != "initializer":
            for child in value if isinstance(value, Sequence) else [value]:
                _strip_origin(child)


def _exporter(opset: int, names: list[str], dynamic_batch: bool) -> dict[str, Any]:
    """Which of PyTorch's exporters, and the moving batch axis in its terms.

    The newer one writes opset 18 and above; ONNX's converter has no way down for Pad, so below that the older one.
    """
    if opset >= _FIRST_DYNAMO_OPSET:
        shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
        return {"dynamo": True, "dynamic_shapes": shapes}
    axes = {name: {0: "batch"} for name in (INPUT, *names)} if dynamic_batch else None
    return {"dynamo": False, "dynamic_axes": axes}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which prints each of its steps and warns of its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
