"""The ONNX graph: the names clients know, nothing of this machine in it, and the same function as PyTorch's."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.backends.base import BackendOutput
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.pytorch import PyTorchBackend
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError, ConfigError, ParityError
from hilum.export.onnx import OUTPUTS, export_onnx
from hilum.export.parity import Parity, compare, random_batches, require_parity
from hilum.models.build import build_model
from hilum.types import ModelOutput

SPECS = {
    "evidence": PreprocessSpec(size=64, channels=1),
    "encoder-unet": PreprocessSpec(size=64, channels=1),
    "unet": PreprocessSpec(size=32, channels=3, fit="stretch"),
}
HERE = (str(Path.home()), str(Path(__file__).resolve().parents[2]), "site-packages", "stack_trace")

Exported = tuple[str, int, nn.Module, bytes]


@pytest.fixture(
    scope="module",
    params=[
        ("evidence", 17),
        ("evidence", 18),
        ("encoder-unet", 17),
        ("unet", 17),
        pytest.param(("unet", 18), marks=pytest.mark.slow),
    ],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def exported(request: pytest.FixtureRequest) -> Exported:
    """(name, opset, network with random weights and statistics, its graph)."""
    name, opset = request.param
    torch.manual_seed(0)
    model = build_model(ModelConfig(name=name, pretrained=False), SPECS[name], 4)
    with torch.no_grad():  # batch norm with statistics of its own, so that evaluation mode matters
        model.train()(torch.rand(4, SPECS[name].channels, SPECS[name].size, SPECS[name].size))
    return name, opset, model, export_onnx(model, SPECS[name], opset=opset)


def shape_of(value: onnx.ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


# The graph


def test_names_shapes_and_opset(exported: Exported) -> None:
    name, opset, _, content = exported
    graph = onnx.load_from_string(content)
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", opset)]
    size, channels = SPECS[name].size, SPECS[name].channels
    (image,) = graph.graph.input
    assert image.name == "input"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    batch, *rest = shape_of(image)
    assert isinstance(batch, str)
    assert rest == [channels, size, size]
    names = [output.name for output in graph.graph.output]
    assert names == ["segmentation", "classification", *(["evidence", "features"] if name != "unet" else [])]
    assert set(names) <= set(OUTPUTS)
    assert shape_of(graph.graph.output[0]) == [batch, 1, size, size]
    assert shape_of(graph.graph.output[1]) == [batch, 4]


def test_weights_are_embedded(exported: Exported) -> None:
    graph = onnx.load_from_string(exported[3])
    assert not [tensor.name for tensor in graph.graph.initializer if tensor.external_data]
    assert not [tensor.name for tensor in graph.graph.initializer if tensor.data_location]


def test_nothing_of_this_machine_is_in_it(exported: Exported) -> None:
    content = exported[3]
    assert not [text for text in HERE if len(text) > 4 and text.encode() in content]
    graph = onnx.load_from_string(content)
    assert graph.producer_name == "hilum"
    for node in graph.graph.node:
        assert not node.doc_string
        assert not node.metadata_props


def test_default_opset_is_17() -> None:
    class Small(nn.Module):
        def forward(self, image: torch.Tensor) -> ModelOutput:
            return ModelOutput(image[:, :1] - 0.5, image.mean((2, 3)).repeat(1, 2))

    graph = onnx.load_from_string(export_onnx(Small(), PreprocessSpec(size=32)))
    assert graph.opset_import[0].version == 17
    assert [output.name for output in graph.graph.output] == ["segmentation", "classification"]
    fixed = onnx.load_from_string(export_onnx(Small(), PreprocessSpec(size=32), dynamic_batch=False))
    assert shape_of(fixed.graph.input[0]) == [1, 1, 32, 32]


@pytest.mark.parametrize("opset", [0, 10, 24, 99])
def test_an_opset_out_of_range_is_a_config_error(opset: int) -> None:
    with pytest.raises(ConfigError):
        export_onnx(nn.Identity(), PreprocessSpec(size=32), opset=opset)


@pytest.mark.parametrize("opset", [17, 18])
def test_a_network_that_cannot_be_exported_is_a_bundle_error(opset: int) -> None:
    class Odd(nn.Module):
        def forward(self, image: torch.Tensor) -> ModelOutput:
            cells = torch.linalg.eigvals(image[:, 0]).real
            return ModelOutput(image[:, :1] + cells.mean(), cells)

    with pytest.raises(BundleError):
        export_onnx(Odd(), PreprocessSpec(size=32), opset=opset)


# Parity


def test_agrees_with_pytorch_on_every_batch_size(exported: Exported) -> None:
    name, _, model, content = exported
    reference, candidate = PyTorchBackend(model), OnnxRuntimeBackend(content)
    for n in (1, 2, 5):
        (batch,) = random_batches(SPECS[name], (n,), seed=n)
        one, two = reference.run(batch), candidate.run(batch)
        assert two.segmentation.shape == (n, 1, SPECS[name].size, SPECS[name].size)
        assert two.segmentation.dtype == np.float32
        assert two.classification.shape == (n, 4)
        assert 0 <= two.segmentation.min() <= two.segmentation.max() <= 1
        np.testing.assert_allclose(one.segmentation, two.segmentation, atol=1e-4, rtol=0)
        np.testing.assert_allclose(one.classification, two.classification, atol=1e-4, rtol=0)
        assert (two.evidence is None) == (two.features is None) == (name == "unet")
        if one.features is not None:
            np.testing.assert_allclose(one.features, two.features, atol=1e-4, rtol=0)
    parity = compare(reference, candidate, random_batches(SPECS[name]), 0.5)
    assert parity.images == 8
    require_parity(parity)


def test_evidence_adds_up_to_the_logits(exported: Exported) -> None:
    name, _, _, content = exported
    (batch,) = random_batches(SPECS[name], (3,))
    output = OnnxRuntimeBackend(content).run(batch)
    if name == "unet":  # its classifier does not decompose over the image
        assert output.evidence is None
        return
    assert output.evidence is not None
    bias = output.classification - output.evidence.sum((2, 3))
    np.testing.assert_allclose(bias, np.repeat(bias[:1], 3, axis=0), atol=1e-5)


class Fixed:
    """A backend that answers with what it was given."""

    def __init__(
        self, segmentation: NDArray[np.float32], logits: NDArray[np.float32], evidence: NDArray[np.float32] | None
    ) -> None:
        self.output = BackendOutput(segmentation, logits, evidence)

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        return self.output


def fixed(segmentation: float = 0.4, logits: tuple[float, float] = (1.0, 0.0), evidence: float | None = 0.0) -> Fixed:
    cells = None if evidence is None else np.full((1, 2, 1, 1), evidence, np.float32)
    return Fixed(np.full((1, 1, 100, 100), segmentation, np.float32), np.array([logits], np.float32), cells)


BATCH = [np.zeros((1, 1, 100, 100), np.float32)]


@pytest.mark.parametrize(
    ("candidate", "named"),
    [
        (fixed(segmentation=math.nan), "segmentation"),
        (fixed(logits=(math.nan, 0)), "probabilities"),
        (fixed(evidence=math.nan), "evidence"),
        (fixed(segmentation=0.4002), "segmentation"),
        (fixed(logits=(1.001, 0)), "classification"),
        (fixed(evidence=0.01), "evidence"),
        (fixed(evidence=None), "evidence"),
        (fixed(segmentation=0.6), "masks"),
        (fixed(logits=(0, 1)), "labels"),
    ],
)
def test_a_difference_raises_and_is_named(candidate: Fixed, named: str) -> None:
    with pytest.raises(ParityError, match=named):
        require_parity(compare(fixed(), candidate, BATCH, 0.5))


def test_a_large_logit_may_differ_by_its_share() -> None:
    large = fixed(logits=(100, 0), evidence=100)
    require_parity(compare(large, fixed(logits=(100.005, 0), evidence=99.995), BATCH, 0.5))
    with pytest.raises(ParityError):
        require_parity(compare(large, fixed(logits=(100.02, 0), evidence=99.98), BATCH, 0.5))


def test_equal_backends_pass_and_a_difference_in_the_second_batch_is_seen() -> None:
    require_parity(compare(fixed(), fixed(), BATCH * 2, 0.5))

    class Drifts(Fixed):
        def run(self, images: NDArray[np.float32]) -> BackendOutput:
            answer = self.output
            self.output = answer._replace(classification=answer.classification + np.float32(0.01))
            return answer

    start = fixed().output
    assert start.evidence is not None
    with pytest.raises(ParityError):
        require_parity(compare(fixed(), Drifts(*start[:3]), BATCH * 2, 0.5))  # type: ignore[arg-type]


def test_one_pixel_in_ten_thousand_is_the_bound_of_the_masks() -> None:
    same = Parity(1, 0.0, 0.0, 0.0, 0.0, 0.9999, 1.0)
    require_parity(same)
    with pytest.raises(ParityError):
        require_parity(dataclasses.replace(same, mask_agreement=0.9998))
