"""The choice of the engine: what was measured, where it is stored, and what ``auto`` may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.backends import choice, measure, openvino
from hilum.backends.base import BackendOutput, Floats
from hilum.backends.choice import Speed, fastest, is_accepted, store_speeds, stored_speeds
from hilum.backends.measure import as_predict_runs, choose_backend, measure_speeds, phantom_batch, run_burst
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.open import Engine, find_engine, installed_engines, open_backend
from hilum.backends.openvino import OpenVinoBackend
from hilum.bundle.bundle import ONNX_INT8_MODEL, ONNX_MODEL, Agreement, Bundle, load_bundle
from hilum.errors import BundleError
from hilum.run_folder import RunFolder

USUAL = Speed("onnxruntime", "fp32", 100.0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def bundle(trained_run: RunFolder) -> Bundle:
    return load_bundle(trained_run.bundle)


def _agreement(backend: str = "OpenVINO 2026.4.1", *, accepted: bool = True) -> Agreement:
    return Agreement(
        n=200, labels_agree=0.995, macro_f1_change=0.0, dice_change=0.0, evidence_sum_error=1e-4,
        evidence_same_cell=0.99, accepted=accepted, backend=backend, split="val",
    )  # fmt: skip


def _with(bundle: Bundle, **agreement: Agreement) -> Bundle:
    """The bundle with measured agreements, and an int8 graph that is the float32 one."""
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    manifest = bundle.manifest.model_copy(update={"agreement": agreement})
    return Bundle(manifest, {**files, ONNX_INT8_MODEL: files[ONNX_MODEL]}, bundle.path)


def test_speeds_are_stored_by_bundle_machine_and_version(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored_speeds(bundle) == ()
    speeds = (USUAL, Speed("openvino", "fp32", 120.5))
    assert store_speeds(bundle, speeds) == folder / "engines.json"
    assert stored_speeds(bundle) == speeds
    other = Bundle(bundle.manifest.model_copy(update={"bundle_id": "0" * 64}), {}, bundle.path)
    assert stored_speeds(other) == ()
    for name, value in (("__version__", "9.9"), ("machine_name", lambda: "8 x Another")):
        with monkeypatch.context() as patch:
            patch.setattr(choice, name, value)
            assert stored_speeds(bundle) == ()
            store_speeds(bundle, [USUAL])
    assert stored_speeds(bundle) == speeds


@pytest.mark.parametrize("content", ["", "[]", "{", '{"KEY": 3}', '{"KEY": [{"backend": "tensorflow"}]}'])
def test_a_damaged_file_counts_as_none_and_is_replaced(bundle: Bundle, folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / "engines.json").write_text(content.replace("KEY", choice._key(bundle)))
    assert stored_speeds(bundle) == ()
    store_speeds(bundle, [USUAL])
    assert stored_speeds(bundle) == (USUAL,)


def test_a_folder_that_cannot_be_written_is_no_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert store_speeds(bundle, [USUAL]) is None


def test_the_oldest_choices_go(bundle: Bundle) -> None:
    for number in range(choice._KEPT + 5):
        own = Bundle(bundle.manifest.model_copy(update={"bundle_id": str(number)}), {}, bundle.path)
        store_speeds(own, [USUAL])
    assert len(choice._read()) == choice._KEPT
    assert stored_speeds(own) == (USUAL,)


@pytest.mark.parametrize(("speed", "expected"), [(104.0, "onnxruntime"), (106.0, "openvino"), (50.0, "onnxruntime")])
def test_another_engine_must_be_faster_by_a_margin(speed: float, expected: str) -> None:
    found = fastest([Speed("openvino", "fp32", speed), USUAL])
    assert found is not None
    assert found.backend == expected


def test_without_onnx_runtime_the_fastest_counts() -> None:
    assert fastest([]) is None
    assert fastest([Speed("openvino", "fp32", 1), Speed("pytorch", "fp32", 1.01)]) == ("pytorch", "fp32", 1.01)


def test_a_reduced_precision_needs_accepted_agreement_in_its_engine(bundle: Bundle) -> None:
    manifest = _with(bundle, bf16=_agreement(accepted=False), int8=_agreement("ONNX Runtime 1.20")).manifest
    assert is_accepted(manifest, "openvino", "fp32")
    assert not is_accepted(bundle.manifest, "openvino", "bf16")
    assert not is_accepted(manifest, "openvino", "bf16")
    assert not is_accepted(manifest, "openvino", "int8")
    assert is_accepted(manifest, "onnxruntime", "int8")


def test_auto_uses_the_stored_choice_and_names_are_obeyed(bundle: Bundle) -> None:
    accepted = _with(bundle, int8=_agreement())
    speeds = [USUAL, Speed("openvino", "fp32", 150), Speed("openvino", "int8", 400), Speed("onnxruntime", "int8", 300)]
    assert find_engine(accepted) == ("onnxruntime", "fp32")  # nothing is stored
    store_speeds(bundle, speeds)
    assert find_engine(bundle) == ("openvino", "fp32")  # int8 has no agreement
    assert find_engine(accepted) == ("openvino", "int8")
    assert find_engine(accepted, precision="fp32") == ("openvino", "fp32")
    assert find_engine(accepted, "onnxruntime") == ("onnxruntime", "fp32")
    assert find_engine(accepted, "openvino", precision="fp32") == ("openvino", "fp32")
    assert find_engine(bundle, precision="int8") == ("openvino", "int8")  # asked for
    assert find_engine(accepted, "pytorch") == ("pytorch", "fp32")
    assert find_engine(accepted, device="cuda") == ("onnxruntime", "fp32")
    backend = open_backend(accepted)
    assert isinstance(backend, OpenVinoBackend)
    assert backend.precision == "int8"


def test_a_stored_engine_that_is_gone_is_not_used(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    store_speeds(bundle, [USUAL, Speed("openvino", "fp32", 150)])
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    assert isinstance(open_backend(bundle), OnnxRuntimeBackend)


def test_a_precision_that_was_not_measured_opens_where_its_agreement_was(bundle: Bundle) -> None:
    assert find_engine(_with(bundle, int8=_agreement()), precision="int8") == ("openvino", "int8")
    assert find_engine(_with(bundle), precision="int8") == ("onnxruntime", "int8")


def test_the_engines_of_a_bundle(bundle: Bundle) -> None:
    assert installed_engines(bundle)[0] == ("onnxruntime", "fp32")
    assert ("openvino", "int8") not in installed_engines(bundle)
    assert {("openvino", "int8"), ("onnxruntime", "int8")} <= set(installed_engines(_with(bundle)))


class _Counting:
    """A backend that counts the images that it is given."""

    def __init__(self) -> None:
        self.images = 0

    def run(self, images: Floats) -> BackendOutput:
        self.images += len(images)
        return BackendOutput(images, images, None)


def test_a_burst_counts_what_ran() -> None:
    backend = _Counting()
    burst = run_burst(backend, np.zeros((3, 1, 8, 8), np.float32), 1, 0.02)
    assert backend.images == 3 * len(burst.seconds) > 3
    assert burst.images_per_second <= backend.images / 0.02
    assert len(run_burst(backend, np.zeros((1, 1, 8, 8), np.float32), 3, 0).seconds) == 3


def test_engines_run_as_predict_runs_them(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "available_cpus", lambda: 5)
    network, workers, batch = as_predict_runs(open_backend(bundle, "onnxruntime"))
    assert (network.threads, workers, batch) == (1, 5, 4)  # type: ignore[attr-defined]
    assert as_predict_runs(_Counting())[1] == 1


def test_an_engine_that_fails_is_left_out(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = [Engine("onnxruntime", "fp32"), Engine("onnxruntime", "int8")]  # the bundle has no int8
    monkeypatch.setattr(measure, "_BURST", 0.01)
    bursts: list[object] = []
    usual = measure.run_burst

    def counted(*arguments: Any) -> Any:
        bursts.append(arguments)
        return usual(*arguments)

    monkeypatch.setattr(measure, "run_burst", counted)
    (only,) = measure_speeds(bundle, engines, 0.0)
    assert len(bursts) == 1 + measure._ROUNDS  # the first one is not counted
    assert only[:2] == engines[0]
    assert only.images_per_second > 0


def test_a_graph_that_onnx_runtime_cannot_load_is_not_given_to_others(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(openvino, "open", lambda *arguments: opened.append(arguments))
    broken = Bundle(bundle.manifest, {ONNX_MODEL: b"not a graph"}, bundle.path)
    with pytest.raises(BundleError):
        measure_speeds(broken, installed_engines(broken), 0.01)
    assert opened == []


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The engines that were measured, one list for each time; OpenVINO is said to be twice as fast, int8 five times."""
    asked: list[Any] = []

    def speeds(bundle: Bundle, engines: list[Engine], seconds: float) -> list[Speed]:
        asked.append(engines)
        return [
            Speed(*own, 100 * {"onnxruntime": 1, "openvino": 2}[own[0]] * (5 if own[1] == "int8" else 1))
            for own in engines
        ]

    monkeypatch.setattr(measure, "measure_speeds", speeds)
    return asked


def test_a_choice_is_measured_once_and_said(bundle: Bundle, measured: list[Any]) -> None:
    said: list[str] = []
    assert isinstance(choose_backend(bundle, say=said.append), OpenVinoBackend)
    assert isinstance(choose_backend(bundle, say=said.append), OpenVinoBackend)
    assert measured == [[("onnxruntime", "fp32"), ("openvino", "fp32")]]  # bf16 has no agreement, PyTorch takes long
    assert len(said) == 1
    assert "OpenVINO, fp32" in said[0]


def test_an_accepted_precision_is_measured_and_always_said(bundle: Bundle, measured: list[Any]) -> None:
    accepted = _with(bundle, int8=_agreement())
    said: list[str] = []
    for _ in range(2):
        backend = choose_backend(accepted, say=said.append)
        assert isinstance(backend, OpenVinoBackend)
        assert backend.precision == "int8"
    assert len(measured) == 1
    assert set(measured[0]) == {("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "int8")}
    assert len(said) == 2
    assert all("99.5%" in line for line in said)


@pytest.mark.parametrize(
    "options", [{"seconds": 0}, {"name": "onnxruntime"}, {"precision": "fp32"}], ids=["no time", "a name", "fp32"]
)
def test_what_is_named_is_not_measured(bundle: Bundle, measured: list[Any], options: dict[str, Any]) -> None:
    assert isinstance(choose_backend(bundle, **options), OnnxRuntimeBackend)
    assert measured == []
    assert stored_speeds(bundle) == ()


def test_one_engine_is_no_choice(bundle: Bundle, measured: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    said: list[str] = []
    choose_backend(bundle, say=said.append)
    assert measured == said == []


def test_phantoms_are_inputs_of_the_network(bundle: Bundle) -> None:
    spec = bundle.manifest.preprocess
    images = phantom_batch(spec, 3)
    assert images.shape == (3, spec.channels, spec.size, spec.size)
    assert images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1
