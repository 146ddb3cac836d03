"""Export networks as ONNX graphs, with the input and output names of the original project."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from hilum._version import __version__
from hilum.config import PreprocessSpec
from hilum.errors import BundleError, ConfigError
from hilum.export.quiet import quiet
from hilum.storage import temporary_folder
from hilum.types import ModelOutput

INPUT = "input"
_FIRST_DYNAMO_OPSET = 18
_OPSETS = range(11, 24)
OUTPUTS = {
    "segmentation": "lung probability (N, 1, S, S) float32 in [0, 1]",
    "classification": "class logits (N, K) float32, before temperature and softmax",
    "evidence": "per class (N, K, h, w) float32, summing over h, w to the logit less its bias",
    "features": "the encoder's (N, F) float32, pooled, from which the gate tells an image unlike those of training",
}


class ExportedNetwork(nn.Module):
    """Wrapper of a network that returns mask probabilities, class logits, and evidence and features if it has them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:  # the graph's input name
        """Return the outputs of OUTPUTS, in order, for images (N, C, S, S) float32 in [0, 1]."""
        output: ModelOutput = self.model(input)
        segmentation = torch.sigmoid(output.mask_logits)
        values = (segmentation, output.class_logits, output.evidence, output.features)
        return tuple(value for value in values if value is not None)

    def output_names(self, spec: PreprocessSpec) -> list[str]:
        """Return the names of the outputs that this network has."""
        with torch.inference_mode():
            output: ModelOutput = self.model(_example(spec, 1))
        return [name for name, value in zip(OUTPUTS, output, strict=True) if value is not None]


def round_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Round the weights of convolutions and linear layers to float16 values in place, and return the state dict.

    In the returned state dict, these tensors (parameters of 2 or more dimensions) are float16. The network's parameters
    stay float32 with rounded values.

    Raises:
        BundleError: A weight exceeds 65504, the maximum of float16.
    """
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim > 1}
    with torch.no_grad():
        for name, parameter in weights.items():
            half = parameter.half()
            if not half.isfinite().all():
                raise BundleError(
                    f"Expected weights of at most 65504 for float16, got {parameter.abs().max():.3g} in {name}.",
                    hint="Export without --half-weights.",
                )
            parameter.copy_(half)
    return {name: tensor.half() if name in weights else tensor for name, tensor in model.state_dict().items()}


def export_onnx(
    model: nn.Module,
    spec: PreprocessSpec,
    *,
    opset: int = 17,
    dynamic_batch: bool = True,
    half_weights: bool = False,
) -> bytes:
    """Return a network as the content of an ONNX file with embedded weights, checked by ONNX.

    With ``half_weights``, batch normalizations stay separate nodes, since weights with a folded normalization are not
    float16 values; ONNX Runtime folds them when it loads the graph.

    Args:
        model: Network that returns a ModelOutput; exported in evaluation mode on the CPU.
        spec: Preprocessing, which determines the input shape (N, C, S, S).
        opset: ONNX operator set version, 11 to 23.
        dynamic_batch: Let N vary; otherwise N is 1.
        half_weights: Store weights as float16 with a Cast to float32, if this does not change their values; use it
            after round_weights.

    Raises:
        ConfigError: The opset is out of range, or above 17 with ``half_weights``: the exporter for those folds batch
            normalizations, or writes a graph that takes twice the time.
        BundleError: The network cannot be exported at this opset, or ONNX's checker fails.
    """
    _check_opset(opset, half_weights)
    network = ExportedNetwork(model).cpu().eval()
    return export_graph(
        network,
        spec,
        INPUT,
        network.output_names(spec),
        subject=type(model).__name__,
        opset=opset,
        dynamic_batch=dynamic_batch,
        half_weights=half_weights,
    )


def export_graph(
    network: nn.Module,
    spec: PreprocessSpec,
    input_name: str,
    names: Sequence[str],
    *,
    subject: str,
    opset: int = 17,
    dynamic_batch: bool = True,
    half_weights: bool = False,
) -> bytes:
    """Return any network from (N, C, S, S) to a tuple of tensors as the content of a checked ONNX file.

    Args:
        network: The network.
        spec: Preprocessing, which determines the input shape.
        input_name: Name of the input.
        names: Names of the outputs.
        subject: Name of the network in messages.
        opset: As for export_onnx.
        dynamic_batch: As for export_onnx.
        half_weights: As for export_onnx.

    Raises:
        ConfigError: As for export_onnx.
        BundleError: As for export_onnx.
    """
    _check_opset(opset, half_weights)
    example = _example(spec, 2 if dynamic_batch else 1)  # torch.export treats a batch size of 1 as constant
    with torch.inference_mode():
        shapes = [output.shape[1:] for output in network(example)]
    with temporary_folder(Path(tempfile.gettempdir())) as folder, quiet("torch.onnx"):
        path = folder / "model.onnx"
        try:
            torch.onnx.export(
                network,
                (example,),
                path,
                input_names=[input_name],
                output_names=list(names),
                opset_version=opset,
                external_data=False,
                **_exporter(opset, [input_name, *names], dynamic_batch, half_weights),
            )
            graph = onnx.load(path)
            if half_weights:
                _store_half(graph.graph)
            onnx.checker.check_model(graph, full_check=True)
        except (RuntimeError, ValueError, onnx.checker.ValidationError, torch.onnx.OnnxExporterError) as error:
            hint = "" if opset == 17 else "Use --opset 17."
            raise BundleError(f"Cannot export {subject} at opset {opset}: {error}.", hint=hint) from error
    _check_version(graph, opset)
    graph.producer_name, graph.producer_version = "hilum", __version__
    _strip_origin(graph)
    for output, shape in zip(graph.graph.output, shapes, strict=True):
        _declare(output, shape)
    content: bytes = graph.SerializeToString()
    return content


def _example(spec: PreprocessSpec, count: int) -> torch.Tensor:
    return torch.zeros(count, spec.channels, spec.size, spec.size)


def _check_opset(opset: int, half_weights: bool) -> None:
    if opset not in _OPSETS:
        raise ConfigError(f"Expected an opset of {_OPSETS[0]} to {_OPSETS[-1]}, got {opset}.", hint="Use --opset 17.")
    if half_weights and opset >= _FIRST_DYNAMO_OPSET:
        raise ConfigError(
            f"Expected an opset below {_FIRST_DYNAMO_OPSET} with half weights, got {opset}.", hint="Use --opset 17."
        )


def _check_version(graph: Any, opset: int) -> None:
    found = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if found != opset:
        raise BundleError(f"Expected a graph at opset {opset}, got {found}.", hint=f"Use --opset {found}.")


def _declare(output: Any, shape: Sequence[int]) -> None:
    """Set the sizes of an output after the batch axis, which the older exporter does not set completely."""
    for axis, size in zip(output.type.tensor_type.shape.dim[1:], shape, strict=True):
        axis.dim_value = size


def _strip_origin(message: Any) -> None:
    """Clear ``doc_string`` and ``metadata_props``, in which the exporter stores stack traces with paths."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None and field.name != "initializer":
            for child in value if isinstance(value, Sequence) else [value]:
                _strip_origin(child)


def _store_half(graph: Any) -> None:
    """Replace float32 initializers of 2 or more dimensions by float16 and a Cast, if no value changes."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values: NDArray[np.float32] = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half, values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])  # ONNX requires topological order


def _exporter(opset: int, names: list[str], dynamic_batch: bool, keep_batch_norms: bool) -> dict[str, Any]:
    """Return the arguments of torch.onnx.export for the exporter, the dynamic batch axis and batch normalizations.

    The newer exporter writes opset 18 and above, and ONNX cannot convert its Pad to lower ones, so the older exporter
    is used below.
    """
    if opset >= _FIRST_DYNAMO_OPSET:
        shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
        return {"dynamo": True, "dynamic_shapes": shapes}
    axes = {name: {0: "batch"} for name in names} if dynamic_batch else None
    modes = torch.onnx.TrainingMode
    training = modes.PRESERVE if keep_batch_norms else modes.EVAL  # the network is in evaluation mode in both cases
    return {"dynamo": False, "dynamic_axes": axes, "training": training}
