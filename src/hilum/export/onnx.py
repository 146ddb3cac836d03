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

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
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
    "features": "the encoder's (N, F) float32, pooled, from which the gate tells an image unlike those of training",
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
        values = (segmentation, output.class_logits, output.evidence, output.features)
        return tuple(value for value in values if value is not None)

    def output_names(self, spec: PreprocessSpec) -> list[str]:
        """Those of OUTPUTS that this network gives."""
        with torch.inference_mode():
            output: ModelOutput = self.model(_example(spec, 1))
        return [name for name, value in zip(OUTPUTS, output, strict=True) if value is not None]


def round_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Round the weights of convolutions and linear layers to float16 values, in place; the state dict to store.

    In the state dict these tensors (parameters of 2 or more dimensions) are float16, all others as they are. The
    network's own stay float32: what is rounded is the value, not the arithmetic.

    Raises:
        BundleError: A weight is beyond float16, whose greatest value is 65504.
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
    """The network as a checked ONNX model with embedded weights.

    With ``half_weights`` batch norms stay nodes of their own, since a weight with one folded into it is no float16
    value; ONNX Runtime folds them when it loads the graph.

    Args:
        model: Returns a ModelOutput; exported in evaluation mode, on the CPU.
        spec: Gives the input's shape (N, C, S, S).
        opset: Of the default operator set, 11 to 23.
        dynamic_batch: Let N vary; else N is 1.
        half_weights: Store as float16, before a Cast to float32, every weight that loses nothing by it; those of a
            network after round_weights do not.

    Raises:
        ConfigError: The opset is out of range, or 18 and above with ``half_weights``: the exporter of those folds batch
            norms, or leaves a graph that takes twice the time.
        BundleError: The graph cannot be made at this opset, or fails ONNX's own checker.
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
    """Any network from (N, C, S, S) to a tuple of tensors, of these names, as a checked ONNX model.

    ``subject`` is what messages call it; for the rest see export_onnx.
    """
    _check_opset(opset, half_weights)
    example = _example(spec, 2 if dynamic_batch else 1)  # torch.export takes a batch of one for a constant
    with torch.inference_mode():
        shapes = [output.shape[1:] for output in network(example)]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
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
            raise BundleError(f"Expected {subject} to export at opset {opset}, got: {error}.") from error
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
        raise BundleError(
            f"Expected the graph at opset {opset}, the exporter could only give {found}.", hint=f"Use --opset {found}."
        )


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


def _store_half(graph: Any) -> None:
    """Turn float32 initializers of 2 or more dimensions into float16 and a Cast, where every value stays the same."""
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
    graph.node.extend([*casts, *nodes])  # in the order of computation, which ONNX asks for


def _exporter(opset: int, names: list[str], dynamic_batch: bool, keep_batch_norms: bool) -> dict[str, Any]:
    """Which of PyTorch's exporters, the moving batch axis in its terms, and what keeps it from folding batch norms.

    The newer one writes opset 18 and above; ONNX's converter has no way down for Pad, so below that the older one.
    """
    if opset >= _FIRST_DYNAMO_OPSET:
        shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
        return {"dynamo": True, "dynamic_shapes": shapes}
    axes = {name: {0: "batch"} for name in names} if dynamic_batch else None
    modes = torch.onnx.TrainingMode
    training = modes.PRESERVE if keep_batch_norms else modes.EVAL  # the network is in evaluation mode either way
    return {"dynamo": False, "dynamic_axes": axes, "training": training}


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
