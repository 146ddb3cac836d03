"""Weights stored as float16: half the bytes, the same function in both engines, and float32 arithmetic."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from safetensors.torch import load, save
from torch import nn
from typer.testing import CliRunner

from hilum.backends import pytorch
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.pytorch import PyTorchBackend
from hilum.bundle.bundle import ONNX_MODEL, WEIGHTS, Manifest, load_bundle, write_bundle
from hilum.cli import app
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError, ConfigError, ParityError
from hilum.export.onnx import export_onnx, round_weights
from hilum.export.parity import Parity, compare, random_batches, require_parity, require_small_rounding
from hilum.models.build import build_model
from hilum.run_folder import RunFolder
from hilum.types import ModelOutput

SPEC = PreprocessSpec(size=64)


class Halved(NamedTuple):
    """A network before and after rounding, and what is stored of it."""

    config: ModelConfig
    unrounded: nn.Module
    model: nn.Module
    state: dict[str, torch.Tensor]
    graph: bytes


def network(config: ModelConfig) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(config, SPEC, 3)
    with torch.no_grad():  # batch norms that are not the identity
        model.train()(torch.rand(4, 1, 64, 64))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module", params=["encoder-unet", "evidence"])
def halved(request: pytest.FixtureRequest) -> Halved:
    config = ModelConfig(name=request.param, pretrained=False, decoder_channels=(16, 8, 8, 8, 8))
    model = network(config)
    unrounded = copy.deepcopy(model)
    state = round_weights(model)
    return Halved(config, unrounded, model, state, export_onnx(model, SPEC, half_weights=True))


def test_weights_are_rounded_and_all_else_is_as_it_was(halved: Halved) -> None:
    before, after = halved.unrounded.state_dict(), halved.model.state_dict()
    parameters = dict(halved.model.named_parameters())
    for name, tensor in after.items():
        if name in parameters and tensor.ndim > 1:
            torch.testing.assert_close(tensor, before[name].half().float(), rtol=0, atol=0)
            assert halved.state[name].dtype == torch.float16
        else:  # norms, biases, and the mean and deviation that an image is normalized with
            assert torch.equal(tensor, before[name])
            assert halved.state[name].dtype == tensor.dtype
        assert torch.equal(halved.state[name].to(tensor.dtype), tensor)
    assert not torch.equal(after["encoder.model.conv_stem.weight"], before["encoder.model.conv_stem.weight"])
    assert all(parameter.dtype == torch.float32 for parameter in parameters.values())


def test_both_engines_agree(halved: Halved) -> None:
    batches = random_batches(SPEC)
    parity = compare(PyTorchBackend(halved.model), OnnxRuntimeBackend(halved.graph), batches, 0.5)
    require_parity(parity)
    moved = compare(PyTorchBackend(halved.unrounded), OnnxRuntimeBackend(halved.graph), batches, 0.5)
    assert moved.segmentation > 3 * parity.segmentation  # it is the rounded network that the graph holds


def test_every_weight_of_the_graph_is_float16_before_a_cast(halved: Halved) -> None:
    graph = onnx.load_from_string(halved.graph)
    onnx.checker.check_model(graph, full_check=True)
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    casts = {node.output[0]: node for node in graph.graph.node if node.op_type == "Cast" and node.input[0] in tensors}
    weights = {node.input[1] for node in graph.graph.node if node.op_type == "Conv"}
    assert len(weights) > 50
    for name in weights:
        assert casts[name].attribute[0].i == TensorProto.FLOAT
        assert tensors[casts[name].input[0]].data_type == TensorProto.FLOAT16
    assert "BatchNormalization" in {node.op_type for node in graph.graph.node}  # not folded
    for tensor in graph.graph.initializer:
        assert np.isfinite(numpy_helper.to_array(tensor)).all()


def test_the_torch_engine_computes_in_float32(halved: Halved, tmp_path: Path) -> None:
    manifest = Manifest(name="h", class_names=("A", "B", "C"), preprocess=SPEC, model=halved.config)
    write_bundle(tmp_path / "b", manifest, {ONNX_MODEL: halved.graph, WEIGHTS: save(halved.state)})
    engine = pytorch.open(load_bundle(tmp_path / "b"))
    own = halved.model.state_dict()
    for name, tensor in engine.model.state_dict().items():
        assert tensor.dtype == own[name].dtype
        assert torch.equal(tensor, own[name])
    assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.float32}
    (batch,) = random_batches(SPEC, (2,))
    assert np.array_equal(engine.run(batch).classification, PyTorchBackend(halved.model).run(batch).classification)


class Linear(nn.Module):
    """One weight, which may be no float16."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        nn.init.constant_(self.layer.weight, value)

    def forward(self, image: torch.Tensor) -> ModelOutput:
        return ModelOutput(image, self.layer(image.mean((2, 3))))


def test_what_would_lose_by_it_stays_float32() -> None:
    def types(value: float) -> set[int]:
        graph = onnx.load_from_string(export_onnx(Linear(value), PreprocessSpec(size=32), half_weights=True)).graph
        return {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}

    assert types(0.5) == {TensorProto.FLOAT16}
    assert types(0.1) == {TensorProto.FLOAT}
    assert types(1e6) == {TensorProto.FLOAT}


def test_an_opset_of_the_newer_exporter_is_refused() -> None:
    with pytest.raises(ConfigError):
        export_onnx(Linear(0.5), PreprocessSpec(size=32), opset=18, half_weights=True)


def test_a_weight_beyond_float16_is_refused() -> None:
    model = Linear(1e6)
    with pytest.raises(BundleError):
        round_weights(model)
    assert model.layer.weight.max() == 1e6


@pytest.mark.parametrize("moved", [0.06, float("nan")])
def test_rounding_that_moves_a_probability_too_far_is_refused(moved: float) -> None:
    parity = Parity(200, 0.5, 0.5, 0.04, 0.5, 0.9, 0.9)
    require_small_rounding(parity)
    with pytest.raises(ParityError) as caught:
        require_small_rounding(dataclasses.replace(parity, probabilities=moved))
    assert "--half-weights" in caught.value.hint


def test_a_run_exports_with_half_weights(trained_run: RunFolder, tmp_path: Path) -> None:
    words = ["export", str(trained_run.root), "--half-weights", "--output", str(tmp_path / "half")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    half, plain = load_bundle(tmp_path / "half"), load_bundle(trained_run.bundle)
    assert half.manifest.weights_dtype == "float16 storage"
    assert plain.manifest.weights_dtype == "float32"
    rounding = half.manifest.parity["rounding"]
    assert 0 < rounding["probabilities"] < 0.05
    assert "rounding" not in plain.manifest.parity
    assert half.manifest.temperature == plain.manifest.temperature
    assert half.manifest.calibration["weights"] == "float32, before they were rounded"
    assert "weights" not in plain.manifest.calibration
    stored, own = load(half.read(WEIGHTS)), load(plain.read(WEIGHTS))
    assert {*stored} == {*own}
    assert torch.equal(stored["encoder.model.conv_stem.weight"], own["encoder.model.conv_stem.weight"].half())
