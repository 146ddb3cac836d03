"""Transform ONNX graphs for quantization: fold what is constant, find heads, and quantize single nodes."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Iterable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from hilum.storage import temporary_folder

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with weights."""


def fold_graph(content: bytes) -> Any:
    """Return an ONNX model in which batch normalizations, casts and the arithmetic of shapes are folded.

    ONNX Runtime folds the graph for a batch of 1, where all shapes are constant. The sizes of Resize nodes, which then
    hold that batch size, become scales; then the batch axis varies again. All nodes have a name.

    Args:
        content: An ONNX file whose input and outputs have a constant shape after the batch axis.
    """
    model = onnx.load_from_string(content)
    _set_batch(model.graph.input, 1)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        path = folder / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        folded = onnx.load(path)
    graph = folded.graph
    _scale_by_ratio(graph, onnx.shape_inference.infer_shapes(folded).graph)
    del graph.value_info[:]
    _set_batch((*graph.input, *graph.output), "batch")
    _drop_unused(graph)
    standard = [entry for entry in folded.opset_import if entry.domain in ("", "ai.onnx")]
    del folded.opset_import[:]
    folded.opset_import.extend(standard)
    for number, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    onnx.checker.check_model(folded, full_check=True)
    return folded


def head_nodes(graph: Any, outputs: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the nodes from the last operator with weights to each output, that operator included.

    Args:
        graph: An ONNX graph.
        outputs: Names of outputs; those that the graph does not have are ignored.
    """
    producer = {output: node for node in graph.node for output in node.output}
    waiting, found = [*outputs], dict[str, None]()
    while waiting:
        node = producer.get(waiting.pop())
        if node is None or node.name in found:
            continue
        found[node.name] = None
        if node.op_type not in WEIGHTED:
            waiting.extend(node.input)
    return tuple(found)


def quantized_nodes(graph: Any) -> tuple[str, ...]:
    """Return the names of the nodes that read dequantized values."""
    restored = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    marks = ("QuantizeLinear", "DequantizeLinear")
    return tuple(n.name for n in graph.node if n.op_type not in marks and restored.intersection(n.input))


def with_quantized(base: Any, quantized: Any, names: Collection[str]) -> bytes:
    """Return an ONNX file of the float network in which the named nodes are quantized as in another model.

    Args:
        base: The float model, whose nodes have the names of those in ``quantized``.
        quantized: The model with QuantizeLinear and DequantizeLinear nodes.
        names: Names of nodes.
    """
    model = copy.deepcopy(base)
    graph, source = model.graph, quantized.graph
    values = {tensor.name: tensor for tensor in source.initializer}
    producer = {output: node for node in source.node for output in node.output}
    twins = {node.name: node for node in source.node}
    taken: dict[str, Any] = {}
    added = []
    for node in graph.node:
        if node.name not in names:
            continue
        for place, name in enumerate(twins[node.name].input):
            origin = producer.get(name)
            if origin is None and name in values:  # a bias, which NNCF corrects
                taken[f"{node.name}.{place}"] = values[name]
                node.input[place] = f"{node.name}.{place}"
            elif origin is not None and origin.op_type == "DequantizeLinear":
                chain = _chain(origin, producer, node.input[place], f"{node.name}.{place}")
                added.extend(chain)
                taken.update({key: values[key] for link in chain for key in link.input if key in values})
                node.input[place] = chain[0].output[0]
    present = {tensor.name for tensor in graph.initializer}
    for name, tensor in taken.items():
        if name not in present:
            own = copy.deepcopy(tensor)
            own.name = name
            graph.initializer.append(own)
    _sort(graph, [*graph.node, *added])
    return bytes(model.SerializeToString())


def _chain(restore: Any, producer: dict[str, Any], value: str, name: str) -> list[Any]:
    """Copy a DequantizeLinear and, for activations, the QuantizeLinear before it, which then reads ``value``."""
    restore = copy.deepcopy(restore)
    restore.name, restore.output[0] = f"{name}.restore", f"{name}.restore"
    origin = producer.get(restore.input[0])
    if origin is None:  # weights are stored as integers
        return [restore]
    rounded = copy.deepcopy(origin)
    rounded.name, rounded.output[0], rounded.input[0] = f"{name}.round", f"{name}.round", value
    restore.input[0] = rounded.output[0]
    return [restore, rounded]


def _sort(graph: Any, nodes: list[Any]) -> None:
    """Put the nodes into topological order, which ONNX requires."""
    producer = {output: number for number, node in enumerate(nodes) for output in node.output}
    before = {number: {producer[i] for i in node.input if i in producer} for number, node in enumerate(nodes)}
    order = [*TopologicalSorter(before).static_order()]
    del graph.node[:]
    graph.node.extend([nodes[number] for number in order])


def _set_batch(values: Iterable[Any], batch: int | str) -> None:
    for value in values:
        axis = value.type.tensor_type.shape.dim[0]
        axis.Clear()
        setattr(axis, "dim_value" if isinstance(batch, int) else "dim_param", batch)


def _scale_by_ratio(graph: Any, inferred: Any) -> None:
    """Give Resize nodes with constant sizes scales instead, with 1 for the batch."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input)
    }
    for node in graph.node:
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3] in constants:
            sizes = numpy_helper.to_array(constants[node.input[3]])
            scales = (sizes / np.array(shapes[node.input[0]])).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(scales, f"{node.name}.scales"))
            inputs = [*node.input[:2], f"{node.name}.scales"]
            del node.input[:]
            node.input.extend(inputs)


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
