"""The OpenVINO backend: parity, precision, threads and what is refused."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hilum.backends import onnxruntime, openvino
from hilum.backends.base import FloatPrecision, Floats
from hilum.backends.measure import phantom_batch
from hilum.backends.openvino import OpenVinoBackend
from hilum.bundle.bundle import ONNX_INT8_MODEL, ONNX_MODEL, Agreement, Bundle, load_bundle
from hilum.errors import BundleError, ConfigError, DeviceError, MissingExtraError
from hilum.run_folder import RunFolder

needs_bf16 = pytest.mark.skipif(not openvino.is_available("cpu", "bf16"), reason="this processor has no bf16")


@pytest.fixture(scope="module")
def bundle(trained_run: RunFolder) -> Bundle:
    return load_bundle(trained_run.bundle)


@pytest.fixture(scope="module")
def images(bundle: Bundle) -> Floats:
    return phantom_batch(bundle.manifest.preprocess, 6)


def test_float32_agrees_with_onnx_runtime(bundle: Bundle, images: Floats) -> None:
    expected = onnxruntime.open(bundle).run(images)
    found = openvino.open(bundle).run(images)
    for own, other in zip(found, expected, strict=True):
        assert own is not None
        assert own.dtype == np.float32
        np.testing.assert_allclose(own, other, atol=1e-4)


def test_a_compiled_network_is_kept(
    bundle: Bundle, images: Floats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path))
    expected = openvino.open(bundle).run(images)
    (kept,) = (tmp_path / "openvino").iterdir()
    content = kept.read_bytes()
    assert openvino.open(bundle)._compiled.get_property("LOADED_FROM_CACHE")
    for damaged in (content, content[:1000], content[: len(content) // 2], b""):
        kept.unlink()
        kept.write_bytes(damaged)
        np.testing.assert_array_equal(openvino.open(bundle).run(images).segmentation, expected.segmentation)
        assert kept.stat().st_size > 0.9 * len(content)  # its bytes differ from one compilation to the next
    os.utime(kept, (0, 0))
    openvino.open(bundle)
    assert kept.stat().st_mtime > 0


def test_without_a_cache_the_network_is_compiled(
    bundle: Bundle, images: Floats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "file"))
    assert np.isfinite(openvino.open(bundle).run(images).segmentation).all()


@needs_bf16
def test_bfloat16_differs_from_float32_by_its_rounding(bundle: Bundle, images: Floats) -> None:
    """fp32 would not differ by so much, and a wrong network by more."""
    expected = onnxruntime.open(bundle).run(images)
    found = openvino.open(bundle, "cpu", "bf16").run(images)
    difference = np.abs(found.segmentation - expected.segmentation).max()
    assert 1e-4 < difference < 0.2


def test_threads_share_the_network_and_each_gets_its_own_answer(bundle: Bundle, images: Floats) -> None:
    alone = openvino.open(bundle).on_one_thread()
    assert alone.on_one_thread() is alone
    expected = [alone.run(images[row : row + 1]).classification for row in range(6)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: alone.run(images[row % 6 : row % 6 + 1]).classification, range(24)))
    for row, own in enumerate(found):
        np.testing.assert_allclose(own, expected[row % 6], atol=1e-6)


def test_an_answer_stays_when_the_next_one_is_computed(bundle: Bundle, images: Floats) -> None:
    backend = openvino.open(bundle)
    first = backend.run(images[:2])
    kept = first.segmentation.copy()
    backend.run(images[2:4])
    np.testing.assert_array_equal(first.segmentation, kept)


@pytest.mark.parametrize(
    ("device", "error"), [("cuda", DeviceError), ("cuda:1", DeviceError), ("toaster", ConfigError), ("", ConfigError)]
)
def test_only_the_cpu_is_a_device(bundle: Bundle, device: str, error: type[Exception]) -> None:
    assert not openvino.is_available(device)
    with pytest.raises(error):
        openvino.open(bundle, device)


def test_bf16_without_instructions_is_a_device_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    assert not openvino.is_available("cpu", "bf16")
    assert openvino.is_available("cpu", "fp32")
    with pytest.raises(DeviceError, match="bf16"):
        openvino.open(bundle, "cpu", "bf16")


def test_a_precision_that_is_none_is_refused(bundle: Bundle) -> None:
    assert not openvino.is_available("cpu", "fp16")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fp16"):
        openvino.open(bundle, "cpu", "fp16")  # type: ignore[arg-type]


def test_int8_of_a_bundle_without_it_is_a_bundle_error(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="int8"):
        openvino.open(bundle, "cpu", "int8")


@pytest.mark.parametrize("measured", ["fp32", "bf16"])
def test_the_float_layers_of_int8_have_the_precision_of_its_agreement(
    bundle: Bundle, images: Floats, measured: FloatPrecision
) -> None:
    agreement = Agreement(
        n=1, labels_agree=1, macro_f1_change=0, dice_change=0, evidence_sum_error=0, evidence_same_cell=1,
        accepted=True, backend="OpenVINO", split="val", float_layers=measured,
    )  # fmt: skip
    manifest = bundle.manifest.model_copy(update={"agreement": {"int8": agreement}})
    graph = bundle.read(ONNX_MODEL)  # nothing of it is quantized, so that all layers are float layers
    known = Bundle(manifest, {ONNX_INT8_MODEL: graph}, bundle.path)
    expected = measured if openvino.is_available("cpu", "bf16") else "fp32"
    backend = openvino.open(known, "cpu", "int8")
    assert backend.float_layers == backend.on_one_thread().float_layers == expected
    moved = np.abs(backend.run(images).segmentation - openvino.open(bundle).run(images).segmentation).max()
    assert (moved > 1e-4) == (expected == "bf16")


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07"])
def test_bytes_that_are_no_graph_are_a_bundle_error(content: bytes) -> None:
    with pytest.raises(BundleError):
        OpenVinoBackend(content)


def test_missing_openvino_is_a_missing_extra(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'", name="openvino")
        return usual(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="openvino") as caught:
        openvino.open(bundle)
    assert ".[openvino]" in caught.value.hint
    assert "onnxruntime" in caught.value.hint


def test_a_batch_that_does_not_fit_the_memory_is_a_device_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OpenVinoBackend(bundle.read(ONNX_MODEL))

    def full(*arguments: object, **options: object) -> None:
        raise RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp: std::bad_alloc")

    monkeypatch.setattr(backend, "_own", SimpleNamespace(request=SimpleNamespace(infer=full)))
    with pytest.raises(DeviceError, match="3 images of 64x64"):
        backend.run(np.zeros((3, 1, 64, 64), np.float32))


def test_a_graph_that_does_not_fit_its_manifest_is_a_bundle_error(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"class_names": ("one", "two", "three", "four", "five")})
    with pytest.raises(BundleError, match="5 class names"):
        openvino.open(Bundle(manifest, {ONNX_MODEL: bundle.read(ONNX_MODEL)}, bundle.path))


def test_images_that_do_not_fit_the_graph_are_a_bundle_error(bundle: Bundle) -> None:
    with pytest.raises(BundleError):
        OpenVinoBackend(bundle.read(ONNX_MODEL)).run(np.zeros((1, 2, 64, 64), np.float32))


_RUN = (
    "import sys; from hilum.backends import openvino; from hilum.bundle.bundle import load_bundle;"
    "bundle = load_bundle(sys.argv[1]); print(openvino.is_available('cpu', 'bf16')); openvino.open(bundle)"
)


def test_openvino_sends_no_telemetry(trained_run: RunFolder, tmp_path: Path) -> None:
    """Its import alone would write an identifier into the user's home and send an event."""
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", _RUN, str(trained_run.bundle)], env=environment, check=True, timeout=120)
    assert [*tmp_path.iterdir()] == []
