"""Shared fixtures, and the one place that decides which tests this machine can run."""

from __future__ import annotations

import importlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# Before NumPy or torch are imported. Images this small gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as hilum.cli does; beside other processes several times faster

from hilum.phantoms.chest import write_phantoms

if TYPE_CHECKING:
    from hilum.run_folder import RunFolder
    from hilum.training.prepare import PreparedData

# Every run of a property test tries the same examples, and none depends on the clock.
settings.register_profile(
    "hilum", derandomize=True, deadline=None, database=None, max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
settings.load_profile("hilum")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _has_data() -> bool:
    return (SHARED / "data" / "metadata.csv").is_file()


def _has_cuda() -> bool:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a driver too old for torch warns: no device, not a failure
        return torch.cuda.is_available()


def _has_chromium() -> bool:
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


NEEDS = {
    "data": (_has_data, "no radiographs in ../shared/data"),
    "gpu": (_has_cuda, "torch finds no CUDA device"),
    "browser": (_has_chromium, "no Chromium on the path"),
}


@pytest.hookimpl(trylast=True)  # after -m and -k, so that torch is not imported for tests that will not run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, (is_met, reason) in NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        missing = bool(marked) and not is_met()
        for item in marked:
            item.add_marker(pytest.mark.skipif(missing, reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or leaves anything in the user's cache, and no time that a test takes chooses its engine."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("HILUM_CACHE", str(folder))
        patch.setattr("hilum.backends.measure.measure_speeds", lambda bundle, engines, seconds: [])
        yield folder


@pytest.fixture(autouse=True)
def _own_engine(_own_cache: Path) -> Iterator[None]:
    """No test leaves the engine that a process of it measured to be the fastest: results would depend on the order."""
    yield
    (_own_cache / "engines.json").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the real radiographs and samples; for tests marked `data`."""
    return SHARED


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 phantoms of 64 pixels, 12 of each class, with metadata.csv. Read it, never write into it."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(folder, 48, size=64)
    return folder


@pytest.fixture(scope="session")
def trained_run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run on `phantoms`: tf_efficientnet_lite0 at 64 pixels, one epoch. Read it, never write into it."""
    from hilum.config import load_config
    from hilum.pipeline import train
    from hilum.run_folder import RunFolder

    settings = {
        "data": phantoms,
        "preprocess": {"size": 64},
        "model": {"encoder": "tf_efficientnet_lite0"},
        "training": {"epochs": 1, "batch_size": 8, "device": "cpu"},
    }
    run = RunFolder(tmp_path_factory.mktemp("trained") / "run")
    return train(load_config(overrides=settings), run).run


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Callable[[str], ModuleType]]:
    """Opens a file of ``benchmarks/`` by its name; they import each other as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="session")
def hilum() -> Callable[..., str]:
    """`hilum(*arguments, code=0)`: what a command prints; it must end with `code` and without a traceback."""

    from typer.testing import CliRunner

    from hilum.cli import app

    def call(*arguments: str | Path, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.output

    return call


@pytest.fixture(scope="session")
def prepared(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """`phantoms` indexed, split and decoded for the settings of training_setup."""
    from training_setup import make_config

    from hilum.run_folder import RunFolder
    from hilum.training.prepare import prepare

    return prepare(make_config(phantoms), RunFolder(tmp_path_factory.mktemp("prepared")))
