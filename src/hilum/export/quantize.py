"""Quantize networks to int8 with NNCF, and accept them by their agreement with float32 on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from hilum._version import __version__
from hilum.backends.base import ENGINE_TITLES, Backend, FloatPrecision, Floats
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.openvino import OpenVinoBackend, import_openvino, is_available
from hilum.bundle.bundle import ONNX_INT8_MODEL, ONNX_MODEL, SELF_TEST, Agreement, Manifest, load_bundle, write_bundle
from hilum.config import SplitConfig
from hilum.data.cache import open_cache
from hilum.data.index import Index, build_index
from hilum.data.split import Split, check_split, load_split, make_split, records_of
from hilum.errors import MissingExtraError, ParityError, SplitError, extra_hint
from hilum.export.agreement import Answers, agreement_of, answers_of, failures_of
from hilum.export.graph import fold_graph, head_nodes, quantized_nodes, with_quantized
from hilum.export.quiet import quiet
from hilum.export.self_test import make_self_test
from hilum.imaging.preprocess import to_input
from hilum.metrics.scores import labels_of
from hilum.progress import Step
from hilum.storage import cache_folder
from hilum.types import Record

_LOGGERS = ("nncf", "torch.utils.cpp_extension")  # the latter says that there is no CUDA
_CALIBRATION_IMAGES = 300
_COST_IMAGES = 96
_FLOAT_LAYERS = (0, 4, 8, 16, 32)
"""Numbers of layers left in floating point, tried in this order, up to half of all."""
_BATCH = 8


class Cost(NamedTuple):
    """Mean absolute change of the logits if one layer alone is quantized."""

    layer: str
    logits: float


class Try(NamedTuple):
    """One quantization of a network.

    Attributes:
        graph: Content of the ONNX file.
        float_layers: Layers beyond the heads that were left in floating point, the costliest first.
        agreement: Its agreement with float32.
    """

    graph: bytes
    float_layers: tuple[str, ...]
    agreement: Agreement


class Quantized(NamedTuple):
    """Reduced precisions of a network.

    Attributes:
        tries: The quantizations tried; the last one is accepted.
        costs: Costs of the layers, the largest first.
        bf16: Agreement of bfloat16 in OpenVINO; None if the processor has no instructions for it.
    """

    tries: tuple[Try, ...]
    costs: tuple[Cost, ...]
    bf16: Agreement | None

    @property
    def graph(self) -> bytes:
        """Content of the accepted ONNX file."""
        return self.tries[-1].graph

    @property
    def agreement(self) -> dict[str, Agreement]:
        """Agreement by precision, for the manifest."""
        return {"int8": self.tries[-1].agreement} | ({} if self.bf16 is None else {"bf16": self.bf16})


def quantize_bundle(
    path: Path,
    data: Path,
    out: Path,
    *,
    classes: Sequence[str] | None = None,
    split_file: Path | None = None,
    seed: int = 0,
    step: Step | None = None,
) -> tuple[Manifest, Quantized]:
    """Add an int8 network and the agreement of reduced precisions to a bundle, and write the result.

    Args:
        path: The bundle.
        data: The dataset that it was trained on: a folder of class folders or a CSV.
        out: The bundle to write, which may be ``path``.
        classes: Keep only these labels.
        split_file: The split used in training, for data without a ``split`` column.
        seed: Random seed of the choice of calibration images.
        step: Progress callbacks.

    Returns:
        The new manifest and the quantization.

    Raises:
        MissingExtraError: NNCF or OpenVINO is not installed.
        ParityError: No quantization is accepted; nothing is written.
        SplitError: The data have no split, or it leaks.
        DataError: A label is not a class of the bundle.
        OutputError: ``out`` cannot be written.
    """
    import_nncf()
    step = step or Step()
    bundle = load_bundle(path)
    manifest = bundle.manifest
    index = build_index(data, classes=classes, progress=step.begin("Checking files"))
    step.found(index.findings)
    labels_of(index.records, manifest.class_names)
    split = _split_of(index, split_file)
    files = {name: bundle.read(name) for name in manifest.files}
    found = quantize_network(files[ONNX_MODEL], manifest, index, split, seed=seed, step=step)
    files[ONNX_INT8_MODEL] = found.graph
    if SELF_TEST not in files:
        test = make_self_test(OnnxRuntimeBackend(files[ONNX_MODEL]), manifest.preprocess)
        files[SELF_TEST] = test.content()
    described = manifest.model_copy(update={"agreement": found.agreement})
    return write_bundle(out, described, files), found


def quantize_network(
    content: bytes, manifest: Manifest, index: Index, split: Split, *, seed: int = 0, step: Step | None = None
) -> Quantized:
    """Quantize a network, leaving more of its costliest layers in floating point until it agrees with float32.

    Weights are int8 per channel, activations 8 bits per tensor (NNCF's post-training quantization with bias
    correction). Each head stays in floating point: from its last convolution or linear layer to the output. These
    layers are computed in bfloat16 if the processor has instructions for it, else in float32. Layers are ranked
    by the change of the logits if they alone are quantized, measured on calibration images, as in NNCF's quantization
    with accuracy control, which knows one figure where agreement has five.

    Args:
        content: ONNX file of the float32 network.
        manifest: Its manifest.
        index: The dataset.
        split: Its split: calibration images are of the training split, agreement is measured on the validation split.
        seed: Random seed of the choice of calibration images.
        step: Progress callbacks.

    Raises:
        MissingExtraError: NNCF or OpenVINO is not installed.
        ParityError: No quantization is accepted.
    """
    import_nncf()
    step = step or Step()
    validation = _Validation(content, manifest, index, split, step)
    images = _calibration_images(manifest, index, split, seed)
    step.begin("Quantizing")
    base = fold_graph(content)
    heads = head_nodes(base.graph, ("segmentation", "classification", "evidence"))
    whole = quantize_graph(base, images, heads)
    costs = layer_costs(base, whole, images[:: max(1, len(images) // _COST_IMAGES)], step)
    tries: list[Try] = []
    in_float: FloatPrecision = "bf16" if is_available("cpu", "bf16") else "fp32"
    for number in _FLOAT_LAYERS:
        if number > len(costs) // 2:
            break
        kept = tuple(cost.layer for cost in costs[:number])
        graph = (quantize_graph(base, images, (*heads, *kept)) if kept else whole).SerializeToString()
        backend = OpenVinoBackend(graph, precision="int8", float_layers=in_float)
        measured = validation.agreement(backend, f"Measuring int8, {number} layers in {in_float}")
        tries.append(Try(graph, kept, measured))
        if measured.accepted:
            bf16 = None
            if in_float == "bf16":
                bf16 = validation.agreement(OpenVinoBackend(content, precision="bf16"), "Measuring bf16")
            return Quantized(tuple(tries), costs, bf16)
    raise _refusal(tries, costs)


def import_nncf() -> Any:
    """Import NNCF, without telemetry, and return it.

    Raises:
        MissingExtraError: NNCF or OpenVINO is not installed.
    """
    try:
        import_openvino()  # first: it turns the telemetry of both off
        with quiet(*_LOGGERS):
            import nncf
    except (ModuleNotFoundError, MissingExtraError) as error:
        name = error.name if isinstance(error, ModuleNotFoundError) else "openvino"
        raise MissingExtraError(
            f"Quantization needs {name}, which is not installed.", hint=extra_hint("quantize")
        ) from error
    return nncf


def quantize_graph(base: Any, images: Floats, float_nodes: Sequence[str]) -> Any:
    """Return an ONNX model with int8 weights, and QuantizeLinear and DequantizeLinear nodes.

    Args:
        base: The float model, see hilum.export.graph.fold_graph.
        images: (N, C, S, S) float32 in [0, 1], for the ranges of activations.
        float_nodes: Names of nodes that stay in float32.
    """
    nncf = import_nncf()
    with quiet(*_LOGGERS):
        quantized = nncf.quantize(
            onnx.ModelProto.FromString(base.SerializeToString()),
            nncf.Dataset([{"input": image[None]} for image in images]),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=[*float_nodes], validate=False),
        )
    del quantized.metadata_props[:]
    quantized.producer_name, quantized.producer_version = "hilum", __version__
    onnx.checker.check_model(quantized)
    return quantized


def layer_costs(base: Any, quantized: Any, images: Floats, step: Step | None = None) -> tuple[Cost, ...]:
    """Return the cost of each quantized layer in OpenVINO, the largest first.

    Args:
        base: The float model.
        quantized: The quantized model.
        images: (N, C, S, S) float32 in [0, 1].
        step: Progress callbacks.
    """
    progress = None if step is None else step.begin("Measuring layers")
    reference = _logits(base.SerializeToString(), images)
    names = quantized_nodes(quantized.graph)
    costs = []
    for done, name in enumerate(names, 1):
        moved = _logits(with_quantized(base, quantized, {name}), images)
        costs.append(Cost(name, float(np.abs(moved - reference).mean())))
        if progress:
            progress(done, len(names))
    return tuple(sorted(costs, key=lambda cost: -cost.logits))


def _split_of(index: Index, split_file: Path | None) -> Split:
    if split_file is None and any(record.split is None for record in index.records):
        raise SplitError(
            "The dataset has no complete `split` column, and quantization needs the split used in training.",
            hint="Use --split-file RUN/split.json.",
        )
    split = make_split(index, SplitConfig()) if split_file is None else load_split(split_file)
    check_split(index, split)
    return split


class _Validation:
    """The validation split with the answers of the float32 network."""

    def __init__(self, content: bytes, manifest: Manifest, index: Index, split: Split, step: Step) -> None:
        records = records_of(index, split, "val")
        spec = manifest.preprocess
        self._cache = open_cache(records, spec, cache_folder(), progress=step.begin("Decoding val"))
        self._labels = labels_of(records, manifest.class_names)
        self._manifest, self._step = manifest, step
        self._reference = self._answers(OnnxRuntimeBackend(content), "Measuring fp32")

    def agreement(self, backend: OpenVinoBackend, title: str) -> Agreement:
        """Measure the agreement of a network in reduced precision."""
        answers = self._answers(backend, title)
        return agreement_of(
            self._reference, answers, self._labels, backend=f"{ENGINE_TITLES['openvino']} {version('openvino')}",
            split="val", float_layers=backend.float_layers,
        )  # fmt: skip

    def _answers(self, backend: Backend, title: str) -> Answers:
        return answers_of(backend, self._cache, self._manifest, self._step.begin(title))


def _calibration_images(manifest: Manifest, index: Index, split: Split, seed: int) -> Floats:
    """Choose training images with equal numbers of each class, as far as there are enough."""
    records = [replace(record, mask_path=None) for record in records_of(index, split, "train")]
    labels = labels_of(records, manifest.class_names)
    random = np.random.default_rng(seed)
    present = np.unique(labels)
    each = -(-_CALIBRATION_IMAGES // len(present))
    chosen: list[Record] = []
    for label in present:
        rows = np.flatnonzero(labels == label)
        chosen += [records[row] for row in np.sort(random.choice(rows, min(each, len(rows)), replace=False))]
    return to_input(open_cache(chosen, manifest.preprocess, cache_folder()).images, manifest.preprocess)


def _logits(content: bytes, images: Floats) -> Floats:
    backend = OpenVinoBackend(content, precision="int8")
    parts = [backend.run(images[start : start + _BATCH]).classification for start in range(0, len(images), _BATCH)]
    return np.concatenate(parts)


def _refusal(tries: Sequence[Try], costs: Sequence[Cost]) -> ParityError:
    last = tries[-1]
    worst = costs[0]
    return ParityError(
        f"int8 is not accepted on {last.agreement.n:,} images, with {len(last.float_layers)} of {len(costs)} layers in "
        f"{last.agreement.float_layers}: {'; '.join(failures_of(last.agreement))}. The costliest layer is "
        f"{worst.layer}, which alone changes logits by {worst.logits:.3f} on average.",
        hint="No bundle was written. Use the network in fp32.",
    )
