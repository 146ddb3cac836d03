"""``hilum bench``: what it measures, what it stores, and that its time is bounded. No speed is asserted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hilum.backends import onnxruntime, openvino, pytorch
from hilum.backends.choice import Speed, stored_speeds
from hilum.backends.memory import memory_of
from hilum.bundle.bundle import Bundle, load_bundle
from hilum.cpus import available_cpus, processor_name
from hilum.errors import BundleError, DataError
from hilum.inference import bench as benches
from hilum.inference.bench import BenchReport, bench
from hilum.phantoms.chest import draw_phantom
from hilum.progress import Step
from hilum.run_folder import RunFolder


@pytest.fixture(scope="module")
def bundle(trained_run: RunFolder) -> Bundle:
    return load_bundle(trained_run.bundle)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def report(bundle: Bundle, folder: Path) -> BenchReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILUM_CACHE", str(folder))
        patch.setattr(benches, "memory_of", lambda *engine: 12.5)
        return bench(bundle, seconds=3)


def _names(report: BenchReport) -> set[tuple[str, str]]:
    return {(own.backend, own.precision) for own in report.engines}


def test_every_engine_is_measured_and_compared(report: BenchReport) -> None:
    assert {("onnxruntime", "fp32"), ("openvino", "fp32"), ("pytorch", "fp32")} <= _names(report)
    assert (("openvino", "bf16") in _names(report)) == openvino.is_available("cpu", "bf16")
    for own in report.engines:
        bound = 1e-4 if own.precision == "fp32" else 1.0
        assert (own.logit_difference == 0) == ((own.backend, own.precision) == ("onnxruntime", "fp32"))
        assert own.logit_difference <= bound
        assert own.accepted == (own.precision == "fp32")
        assert own.memory_mib == 12.5
        assert 0 < own.images_per_second_range[0] <= own.images_per_second <= own.images_per_second_range[1]
        assert 0 < own.image_ms_p50 <= own.image_ms_p95
    speeds = [own.network_images_per_second for own in report.engines]
    assert speeds == sorted(speeds, reverse=True)
    assert report.phantoms
    assert report.images == 64
    assert 0 < report.compared <= 64


def test_the_network_is_measured_as_predict_runs_it(report: BenchReport) -> None:
    cpus = available_cpus()
    cells = {(own.backend, own.precision, own.threads, own.at_once, own.batch): own for own in report.network}
    assert len(cells) == len(report.network)
    for own in report.engines:
        way = (cpus, 1, 8) if own.backend == "pytorch" else (1, cpus, 4)
        cell = cells[(own.backend, own.precision, *way)]
        assert cell.images_per_second == own.network_images_per_second
        assert cell.calls >= cell.at_once
        assert 0 < cell.p50_ms <= cell.p95_ms


def test_the_choice_is_stored_with_the_processor(report: BenchReport, bundle: Bundle, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILUM_CACHE", str(folder))
        stored = stored_speeds(bundle)
    assert {speed[:2] for speed in stored} == _names(report)
    assert {speed.images_per_second for speed in stored} == {own.network_images_per_second for own in report.engines}
    assert report.stored == folder / "engines.json"
    assert report.chosen in {speed[:2] for speed in stored if speed.precision == "fp32"}
    assert processor_name() in report.machine
    assert report.bundle_id == bundle.manifest.bundle_id


@pytest.fixture
def one_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino, "is_available", lambda device, precision: False)
    monkeypatch.setattr(pytorch, "is_available", lambda device, precision: False)
    monkeypatch.setattr(benches, "memory_of", lambda *engine: None)


@pytest.mark.usefixtures("one_engine")
def test_files_are_predicted_and_steps_are_told(bundle: Bundle, tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(draw_phantom(number, "Normal", size=288).image).save(tmp_path / f"{number}.png")
    told: dict[str, list[tuple[int, int]]] = {}

    def begin(title: str) -> Callable[[int, int], None]:
        steps = told.setdefault(title, [])
        return lambda done, total: steps.append((done, total))

    start = time.monotonic()
    report = bench(bundle, sorted(tmp_path.glob("*.png")), seconds=1, step=Step(begin=begin))
    assert time.monotonic() - start < 30
    assert (report.images, report.phantoms) == (3, False)
    assert _names(report) == {("onnxruntime", "fp32")}
    assert [len(steps) > 0 for steps in told.values()] == [True] * 3
    assert all(0 <= done <= total for steps in told.values() for done, total in steps)


@pytest.mark.usefixtures("one_engine")
def test_images_that_nothing_accepts_are_a_data_error(bundle: Bundle, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (288, 288), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    with pytest.raises(DataError):
        bench(bundle, [tmp_path / "noise.png"], seconds=1)


@pytest.mark.usefixtures("one_engine")
def test_the_reference_must_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise BundleError("no")

    monkeypatch.setattr(onnxruntime, "open", broken)
    with pytest.raises(BundleError):
        bench(bundle, seconds=1)


@pytest.mark.usefixtures("one_engine")
def test_the_command_prints_a_table_or_json(
    hilum: Callable[..., str], bundle: Bundle, trained_run: RunFolder, tmp_path: Path
) -> None:
    printed = hilum("bench", trained_run.bundle, "--seconds", "1")
    assert processor_name() in printed
    assert "ONNX Runtime fp32" in printed
    found = json.loads(hilum("bench", trained_run.bundle, "--seconds", "1", "--json"))
    assert found["chosen"] == ["onnxruntime", "fp32"]
    assert found["bundle_id"] == bundle.manifest.bundle_id
    assert stored_speeds(bundle) == (Speed("onnxruntime", "fp32", found["engines"][0]["network_images_per_second"]),)
    (tmp_path / "empty").mkdir()
    hilum("bench", trained_run.bundle, "--images", tmp_path / "empty", code=2)


def test_memory_is_that_of_a_process_of_its_own(bundle: Bundle) -> None:
    found = memory_of(bundle.path, "onnxruntime", "fp32")
    assert found is not None
    assert 1 < found < 2000
    assert memory_of(bundle.path, "onnxruntime", "int8") is None
