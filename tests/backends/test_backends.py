"""The backends: which one a name opens, on which device, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hilum.backends import onnxruntime, openvino, pytorch
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.open import open_backend
from hilum.backends.openvino import OpenVinoBackend
from hilum.backends.pytorch import PyTorchBackend
from hilum.bundle.bundle import Bundle, load_bundle
from hilum.errors import BundleError, ConfigError, DeviceError
from hilum.run_folder import RunFolder

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def bundle(trained_run: RunFolder) -> Bundle:
    return load_bundle(trained_run.bundle)


def _tell_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this build of ONNX Runtime say that it has CUDA, which this machine may lack."""
    names = [CUDA, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime.onnxruntime, "get_available_providers", lambda: names)


def _sessions(monkeypatch: pytest.MonkeyPatch, active: list[str]) -> list[Any]:
    """Create sessions on the CPU that claim to have ``active`` providers; collects what was asked for."""
    asked: list[Any] = []
    create = onnxruntime.onnxruntime.InferenceSession

    def session(model: bytes, options: Any, providers: Any) -> Any:
        asked.append(providers)
        made = create(model, options, providers=["CPUExecutionProvider"])
        made.get_providers = lambda: active
        return made

    monkeypatch.setattr(onnxruntime.onnxruntime, "InferenceSession", session)
    return asked


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("auto", OnnxRuntimeBackend), ("onnxruntime", OnnxRuntimeBackend), ("openvino", OpenVinoBackend),
        ("pytorch", PyTorchBackend),
    ],
)  # fmt: skip
def test_a_name_opens_its_backend(bundle: Bundle, name: Any, kind: type) -> None:
    backend = open_backend(bundle, name)
    assert isinstance(backend, kind)
    spec = bundle.manifest.preprocess
    images = np.full((2, spec.channels, spec.size, spec.size), 0.5, np.float32)
    assert backend.run(images).classification.shape == (2, len(bundle.manifest.class_names))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_backend_is_shown_without_its_weights(bundle: Bundle, name: Any) -> None:
    assert len(repr(open_backend(bundle, name))) < 200


def test_an_unknown_backend_is_refused_with_the_names_there_are(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="onnx") as caught:
        open_backend(bundle, "onnx")  # type: ignore[arg-type]
    assert all(name in caught.value.hint for name in ("auto", "onnxruntime", "openvino", "pytorch"))


def test_an_unknown_precision_is_refused_with_those_there_are(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="fp16") as caught:
        open_backend(bundle, precision="fp16")  # type: ignore[arg-type]
    assert all(name in caught.value.hint for name in ("auto", "fp32", "bf16", "int8"))


@pytest.mark.parametrize(("name", "precision"), [("onnxruntime", "bf16"), ("pytorch", "bf16"), ("pytorch", "int8")])
def test_a_precision_that_a_backend_lacks_is_a_config_error(bundle: Bundle, name: Any, precision: Any) -> None:
    with pytest.raises(ConfigError, match=precision) as caught:
        open_backend(bundle, name, precision=precision)
    assert "--precision fp32" in caught.value.hint


@pytest.mark.parametrize("name", ["auto", "onnxruntime", "openvino"])
def test_int8_of_a_bundle_without_it_is_a_bundle_error(bundle: Bundle, name: Any) -> None:
    with pytest.raises(BundleError, match="int8"):
        open_backend(bundle, name, precision="int8")


@pytest.mark.parametrize("module", [onnxruntime, openvino, pytorch])
def test_every_backend_has_the_cpu_and_no_toaster(module: Any) -> None:
    assert module.is_available()
    assert module.is_available("cpu")
    assert not module.is_available("toaster")
    assert not module.is_available("cuda:99")


def test_auto_takes_the_first_backend_that_has_the_device(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    for name, module in (("onnxruntime", onnxruntime), ("pytorch", pytorch)):
        monkeypatch.setattr(module, "open", lambda bundle, device, _, name=name: opened.append(f"{name} {device}"))
    monkeypatch.setattr(onnxruntime, "is_available", lambda device, precision: device == "cpu")
    monkeypatch.setattr(pytorch, "is_available", lambda device, precision: device.startswith("cuda"))
    for device in ("cpu", "cuda:1", "npu"):
        open_backend(bundle, "auto", device)
    assert opened == ["onnxruntime cpu", "pytorch cuda:1", "onnxruntime npu"]  # the last says what is wrong


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["auto", "onnxruntime", "openvino", "pytorch"])
def test_cuda_where_there_is_none_is_a_device_error(bundle: Bundle, name: Any) -> None:
    with pytest.raises(DeviceError, match="cuda") as caught:
        open_backend(bundle, name, "cuda")
    assert "--device cpu" in caught.value.hint


def test_cuda_is_the_cuda_provider_of_the_gpu_that_was_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    _tell_of_cuda(monkeypatch)
    asked = _sessions(monkeypatch, [CUDA])
    for device in ("cuda", "cuda:3"):
        assert onnxruntime.is_available(device)
        open_backend(bundle, "onnxruntime", device)
    assert [providers[0] for providers in asked] == [(CUDA, {"device_id": 0}), (CUDA, {"device_id": 3})]
    assert all(providers[1] == ("CPUExecutionProvider", {}) for providers in asked)


def test_a_provider_that_the_runtime_drops_is_a_device_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime goes on with the CPU when CUDA finds no device; a user who asked for CUDA is told."""
    _tell_of_cuda(monkeypatch)
    _sessions(monkeypatch, ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="cuda:1"):
        open_backend(bundle, "onnxruntime", "cuda:1")


@pytest.mark.parametrize("device", ["rocm", "", "cuda:", "cuda:x", "cpu:1", "CUDA"])
def test_a_device_that_onnx_runtime_does_not_know_is_a_config_error(device: str) -> None:
    with pytest.raises(ConfigError):
        OnnxRuntimeBackend(b"", device)


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_pytorch_lacks_is_a_device_error(device: str) -> None:
    with pytest.raises(DeviceError, match=device) as caught:
        PyTorchBackend(nn.Linear(1, 1), device)
    assert "--device cpu" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07"])
def test_bytes_that_are_no_graph_are_a_bundle_error(content: bytes) -> None:
    with pytest.raises(BundleError):
        OnnxRuntimeBackend(content)


def test_a_graph_of_another_shape_is_a_bundle_error() -> None:
    shape = [1, 1, 32, 32]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("input", "mask")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["input"], ["mask"])], "g", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(BundleError, match="mask"):
        OnnxRuntimeBackend(model.SerializeToString())


@pytest.mark.gpu
def test_both_backends_agree_on_the_gpu(bundle: Bundle) -> None:
    spec = bundle.manifest.preprocess
    images = np.random.default_rng(0).random((4, spec.channels, spec.size, spec.size), np.float32)
    reference = open_backend(bundle, "pytorch", "cpu").run(images)
    for name in ("pytorch", "onnxruntime"):
        if name == "onnxruntime" and not onnxruntime.is_available("cuda"):
            continue
        found = open_backend(bundle, name, "cuda").run(images)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.classification, reference.classification, atol=1e-2)


def test_a_batch_that_does_not_fit_the_memory_is_a_device_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(nn.Module):
        def forward(self, images: torch.Tensor) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    batch = np.zeros((3, 3, 64, 64), np.float32)
    with pytest.raises(DeviceError, match="3 images of 64x64"):
        PyTorchBackend(Full()).run(batch)
    engine = open_backend(bundle, "onnxruntime")
    assert isinstance(engine, OnnxRuntimeBackend)
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    def full(*arguments: object) -> None:
        raise RuntimeException("Failed to allocate memory for requested buffer of size 123")

    monkeypatch.setattr(engine._session, "_session", SimpleNamespace(run=full))
    with pytest.raises(DeviceError, match="3 images of 64x64"):
        engine.run(batch)


def test_a_device_of_torch_is_taken(bundle: Bundle) -> None:
    assert open_backend(bundle, device=torch.device("cpu"))  # type: ignore[arg-type]
