"""int8 networks: accepted with the costliest layers in float, or refused with the figures and the costliest layer."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn
from typer.testing import CliRunner

from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.bundle.bundle import ONNX_INT8_MODEL, ONNX_MODEL, SELF_TEST, WEIGHTS, Manifest, load_bundle, write_bundle
from hilum.cli import app
from hilum.config import ModelConfig, PreprocessSpec, SplitConfig
from hilum.data.index import build_index
from hilum.data.split import load_split, make_split, records_of, save_split
from hilum.errors import MissingExtraError, ParityError, SplitError
from hilum.export.graph import fold_graph, head_nodes, quantized_nodes, with_quantized
from hilum.export.onnx import export_onnx
from hilum.export.parity import random_batches
from hilum.export.quantize import Quantized, import_nncf, quantize_bundle, quantize_graph
from hilum.models.build import build_model
from hilum.phantoms.chest import PHANTOM_CLASSES, write_phantoms
from hilum.types import ModelOutput

SPEC = PreprocessSpec(size=32)
NAMES = tuple(sorted(PHANTOM_CLASSES))


class Chain(nn.Module):
    """Convolutions that pass two channels on; the first is ten thousand times as large before ``wide`` of them.

    Eight bits for both channels then leave nothing of the second, which decides the class.
    """

    def __init__(self, layers: int, wide: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for number in range(layers):
            layer = nn.Conv2d(1 if number == 0 else 2, 2, 3, padding=1)
            with torch.no_grad():
                layer.weight.zero_()
                layer.bias.zero_()
                for channel in range(2):
                    layer.weight[channel, min(channel, layer.in_channels - 1), 1, 1] = (
                        1 + number / 100
                    )  # else equal layers share weights
                layer.weight[0] *= {wide - 1: 1e4, wide: 1e-4}.get(number, 1)
            self.layers.append(layer)

    def forward(self, image: torch.Tensor) -> ModelOutput:
        values = image
        for layer in self.layers:
            values = torch.relu(layer(values))
        mean = values[:, 1].mean((1, 2))[:, None]  # (N, 1), about 0.4
        return ModelOutput(image - 0.5, torch.cat((mean, 0.1 - mean, mean - 1, mean - 1), 1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 phantoms of 32 pixels, with a split beside them."""
    folder = tmp_path_factory.mktemp("local") / "data"
    write_phantoms(folder, 48, size=32)
    save_split(make_split(build_index(folder, check=False), SplitConfig()), folder.parent / "split.json")
    return folder


def write(path: Path, layers: int, wide: int) -> Path:
    manifest = Manifest(name="chain", class_names=NAMES, preprocess=SPEC, model=ModelConfig())
    write_bundle(path, manifest, {ONNX_MODEL: export_onnx(Chain(layers, wide), SPEC), WEIGHTS: b"weights"})
    return path


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Quantized, Path]:
    """Twelve layers, of which one cannot be quantized."""
    folder = tmp_path_factory.mktemp("chain")
    out = folder / "new.hilum"
    split = data.parent / "split.json"
    return quantize_bundle(write(folder / "old", 12, 5), data, out, split_file=split)[1], out


def test_the_costliest_layers_stay_in_float(done: tuple[Quantized, Path]) -> None:
    found, _ = done
    assert [(len(own.float_layers), own.agreement.accepted) for own in found.tries] == [(0, False), (4, True)]
    assert found.tries[0].agreement.labels_agree == 0
    assert "layers.5/" in found.costs[0].layer
    assert found.costs[0].logits > 3 * found.costs[1].logits
    assert found.tries[1].float_layers == tuple(cost.layer for cost in found.costs[:4])
    quantized = quantized_nodes(onnx.load_from_string(found.graph).graph)
    assert not {*found.tries[1].float_layers} & {*quantized}
    assert len(quantized) == len(found.costs) - 4


def test_the_bundle_has_the_network_and_its_agreement(done: tuple[Quantized, Path], data: Path) -> None:
    found, path = done
    validation = len(records_of(build_index(data, check=False), load_split(data.parent / "split.json"), "val"))
    bundle = load_bundle(path)
    own = bundle.manifest.agreement["int8"]
    assert own == found.tries[-1].agreement
    assert (own.n, own.split, own.accepted, own.evidence_same_cell) == (validation, "val", True, None)
    assert own.backend.startswith("OpenVINO ")
    assert bundle.read(ONNX_INT8_MODEL) == found.graph
    assert bundle.read(WEIGHTS) == b"weights"
    assert SELF_TEST in bundle
    result = CliRunner().invoke(app, ["info", str(path), "--test"])
    assert "onnxruntime int8: passed" in result.output


def test_weights_are_embedded_integers_and_both_engines_read_them(done: tuple[Quantized, Path]) -> None:
    found, _ = done
    graph = onnx.load_from_string(found.graph).graph
    kinds = Counter(tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4)
    assert kinds[TensorProto.INT8] >= 6
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in graph.initializer)
    batch = random_batches(SPEC, [3])[0]
    assert OnnxRuntimeBackend(found.graph).run(batch).classification.shape == (3, 4)


def test_a_refusal_names_the_figures_and_the_layer_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    words = ["quantize", str(write(tmp_path / "old", 4, 2)), str(data), "--split-file", str(data.parent / "split.json")]
    result = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "labels agree on 0.00%, minimum 99.50%" in result.output
    assert "/layers.2/" in result.output
    assert not (tmp_path / "new").exists()
    with pytest.raises(ParityError):
        quantize_bundle(tmp_path / "old", data, tmp_path / "new", split_file=data.parent / "split.json")


def test_data_without_a_split_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="split"):
        quantize_bundle(write(tmp_path / "old", 4, 2), data, tmp_path / "new")


@pytest.mark.parametrize("missing", ["nncf", "openvino"])
def test_a_missing_library_is_named_with_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=missing) as caught:
        import_nncf()
    assert "quantize" in caught.value.hint


# Graphs


@pytest.fixture(scope="module", params=["evidence", "encoder-unet", "unet"])
def content(request: pytest.FixtureRequest) -> bytes:
    torch.manual_seed(0)
    model = build_model(ModelConfig(name=request.param, pretrained=False), PreprocessSpec(size=64), 4)
    with torch.no_grad():
        model.train()(torch.rand(4, 1, 64, 64))
    return export_onnx(model, PreprocessSpec(size=64))


def test_a_folded_graph_is_the_same_function_for_every_batch(content: bytes) -> None:
    folded = fold_graph(content)
    kinds = {node.op_type for node in folded.graph.node}
    assert not kinds & {"Shape", "Gather", "Cast", "ConstantOfShape"}
    one, two = OnnxRuntimeBackend(content), OnnxRuntimeBackend(folded.SerializeToString())
    for batch in random_batches(PreprocessSpec(size=64), [1, 3]):
        for first, second in zip(one.run(batch), two.run(batch), strict=True):
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                np.testing.assert_allclose(first, second, atol=1e-5)


def test_heads_end_at_the_last_layers_with_weights() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(pretrained=False), PreprocessSpec(size=64), 4)
    graph = fold_graph(export_onnx(model, PreprocessSpec(size=64))).graph
    kinds = {node.name: node.op_type for node in graph.node}
    heads = head_nodes(graph, ("segmentation", "classification", "evidence"))
    assert {name for name in heads if kinds[name] == "Conv"} == {
        "/model/scores/Conv", "/model/attention/Conv", "/model/segmentation_head/segmentation_head.0/Conv",
    }  # fmt: skip
    assert {"Softplus", "Sigmoid", "ReduceSum", "Exp"} <= {kinds[name] for name in heads}
    assert not any("encoder" in name or "decoder" in name for name in heads)


def test_all_layers_quantized_one_by_one_are_the_quantized_network() -> None:
    base = fold_graph(export_onnx(Chain(4, 0), SPEC))
    images = random_batches(SPEC, [8])[0]
    quantized = quantize_graph(base, images, head_nodes(base.graph, ("classification",)))
    names = quantized_nodes(quantized.graph)
    whole, grafted, none = (
        OnnxRuntimeBackend(own).run(images).classification
        for own in (
            quantized.SerializeToString(), with_quantized(base, quantized, names), with_quantized(base, quantized, ()),
        )
    )  # fmt: skip
    assert np.array_equal(whole, grafted)
    assert not np.array_equal(whole, none)
    assert np.array_equal(none, OnnxRuntimeBackend(base.SerializeToString()).run(images).classification)
