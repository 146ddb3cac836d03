"""A bundle's self-test passes in every engine, and names the place and both values where it does not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from hilum.backends.base import BackendOutput, Floats
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.open import Engine
from hilum.bundle.bundle import ONNX_MODEL, SELF_TEST, Bundle, Manifest, load_bundle, write_bundle
from hilum.bundle.self_test import SelfTest, self_test_of
from hilum.cli import app
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError, SelfTestError
from hilum.export.onnx import export_onnx
from hilum.export.self_test import make_self_test
from hilum.inference.self_test import replay, require_self_test
from hilum.types import ModelOutput

SPEC = PreprocessSpec(size=32)


class Linear(nn.Module):
    """A mask and evidence that are linear in the image's pixels."""

    def forward(self, image: torch.Tensor) -> ModelOutput:
        evidence = torch.cat((image, 1 - image), dim=1)[:, :, ::8, ::8]  # (N, 2, 4, 4)
        return ModelOutput(image - 0.5, evidence.sum((2, 3)), evidence, image.mean((2, 3)))


class Changed:
    """An engine with one value of its evidence changed."""

    def __init__(self, content: bytes, by: float, precision: str = "fp32") -> None:
        self._inner, self._by, self.precision = OnnxRuntimeBackend(content), by, precision

    def run(self, images: Floats) -> BackendOutput:
        output = self._inner.run(images)
        assert output.evidence is not None
        output.evidence[0, 1, 2, 3] += self._by
        return output


@pytest.fixture(scope="module")
def graph() -> bytes:
    return export_onnx(Linear(), SPEC)


def write(path: Path, graph: bytes, test: bytes | None) -> Bundle:
    manifest = Manifest(name="linear", class_names=("COVID", "Normal"), preprocess=SPEC, model=ModelConfig())
    write_bundle(path, manifest, {ONNX_MODEL: graph} | ({} if test is None else {SELF_TEST: test}))
    return load_bundle(path)


@pytest.fixture
def bundle(tmp_path: Path, graph: bytes) -> Bundle:
    return write(tmp_path / "bundle", graph, make_self_test(OnnxRuntimeBackend(graph), SPEC).content())


def test_comes_back_as_it_was_written(bundle: Bundle, graph: bytes) -> None:
    made, read = make_self_test(OnnxRuntimeBackend(graph), SPEC), self_test_of(bundle)
    assert read is not None
    assert np.array_equal(read.image, made.image)
    assert {name: (values.shape, values.dtype) for name, values in read.expected.items()} == {
        "segmentation": ((1, 32, 32), np.float32),
        "classification": ((2,), np.float32),
        "evidence": ((2, 4, 4), np.float32),
        "features": ((1,), np.float32),
    }
    assert all(np.array_equal(values, made.expected[name]) for name, values in read.expected.items())
    assert made.content() == make_self_test(OnnxRuntimeBackend(graph), SPEC).content()


def test_passes_in_the_engine_that_made_it(bundle: Bundle, graph: bytes) -> None:
    result = replay(bundle, OnnxRuntimeBackend(graph))
    assert result is not None
    assert result.passed
    assert result.label
    assert [(own.output, own.difference) for own in result.mismatches] == [
        ("segmentation", 0), ("classification", 0), ("evidence", 0), ("features", 0),
    ]  # fmt: skip
    assert require_self_test(bundle, OnnxRuntimeBackend(graph)) == result


def test_names_place_and_values_of_the_worst_mismatch(bundle: Bundle, graph: bytes) -> None:
    result = replay(bundle, Changed(graph, 0.25))
    test = self_test_of(bundle)
    assert result is not None
    assert test is not None
    assert not result.passed
    worst = result.worst
    assert (worst.output, worst.place) == ("evidence", (1, 2, 3))
    assert worst.expected == pytest.approx(test.expected["evidence"][1, 2, 3])
    assert worst.found - worst.expected == pytest.approx(0.25)
    with pytest.raises(SelfTestError, match=r"evidence\[1, 2, 3\]"):
        require_self_test(bundle, Changed(graph, 0.25))


@pytest.mark.parametrize(("by", "passed"), [(0.25, True), (0.75, False), (float("nan"), False)])
def test_reduced_precisions_have_a_wider_tolerance(bundle: Bundle, graph: bytes, by: float, passed: bool) -> None:
    result = replay(bundle, Changed(graph, by, "int8"))
    assert result is not None
    assert result.passed is passed
    assert result.worst.place == (1, 2, 3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_class_fails(tmp_path: Path, graph: bytes, precision: str) -> None:
    made = make_self_test(OnnxRuntimeBackend(graph), SPEC)
    logits = made.expected["classification"].copy()
    low, high = np.argsort(logits)
    logits[low] = logits[high] + 1e-6 + abs(logits[high]) * 1e-6
    other = SelfTest(made.image, {"segmentation": made.expected["segmentation"], "classification": logits})
    result = replay(write(tmp_path / "b", graph, other.content()), Changed(graph, 0, precision))
    assert result is not None
    assert (result.label, result.passed) == (False, False)


def test_an_output_that_is_missing_fails(bundle: Bundle) -> None:
    class NoEvidence(nn.Module):
        def forward(self, image: torch.Tensor) -> ModelOutput:
            return Linear()(image)._replace(evidence=None)

    result = replay(bundle, OnnxRuntimeBackend(export_onnx(NoEvidence(), SPEC)))
    assert result is not None
    assert (result.worst.output, result.worst.difference, result.passed) == ("evidence", float("inf"), False)


def test_a_bundle_without_one_says_so(tmp_path: Path, graph: bytes) -> None:
    bundle = write(tmp_path / "bundle", graph, None)
    assert replay(bundle, OnnxRuntimeBackend(graph)) is None
    assert require_self_test(bundle, OnnxRuntimeBackend(graph)) is None
    result = CliRunner().invoke(app, ["info", str(tmp_path / "bundle"), "--test"])
    assert result.exit_code == 2
    assert "no self-test" in result.output


def damaged() -> list[bytes]:
    stream = io.BytesIO()
    np.savez(stream, image=np.zeros((32, 32), np.uint8), segmentation=np.zeros((1, 32, 32), np.float32))
    pickled = io.BytesIO()
    np.savez(pickled, image=np.array([{}], object))
    return [b"no archive", stream.getvalue(), pickled.getvalue()]


@pytest.mark.parametrize("content", damaged(), ids=["text", "no-logits", "pickle"])
def test_a_damaged_file_is_a_bundle_error(tmp_path: Path, graph: bytes, content: bytes) -> None:
    with pytest.raises(BundleError, match="self_test"):
        self_test_of(write(tmp_path / "bundle", graph, content))


@pytest.mark.parametrize(("wrong", "code"), [("none", 0), ("openvino", 2)])
def test_info_runs_it_in_every_engine_and_fails_with_code_2(
    bundle: Bundle, graph: bytes, monkeypatch: pytest.MonkeyPatch, wrong: str, code: int
) -> None:
    engines = [Engine("onnxruntime", "fp32"), Engine("openvino", "fp32")]
    opened: list[Engine] = []

    def open_engine(_: Bundle, engine: Engine) -> Changed:
        opened.append(engine)
        return Changed(graph, 0.25 if engine.backend == wrong else 0)

    monkeypatch.setattr("hilum.backends.open.installed_engines", lambda _: engines)
    monkeypatch.setattr("hilum.backends.open.open_engine", open_engine)
    result = CliRunner().invoke(app, ["info", str(bundle.path), "--test"])
    assert (result.exit_code, opened) == (code, engines)
    assert ("openvino fp32: evidence[1, 2, 3]" in result.output) == (code == 2)
