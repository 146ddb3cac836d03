"""Bundles whose seals are right and whose content is hostile are refused, before the first image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_bundles import (
    BUNDLES,
    SHAPE,
    WEIGHT_FILES,
    archive_of,
    graph,
    npy,
    packaged,
    sealed,
    with_file,
)
from hostile_case import Case, bounded, parametrize

from hilum import onnx_session
from hilum.backends.open import BackendName, open_backend
from hilum.bundle.bundle import ONNX_MODEL, load_bundle
from hilum.bundle.self_test import self_test_of
from hilum.bundle.training_hashes import known_images
from hilum.errors import BundleError, HilumError
from hilum.inference.predictor import Predictor


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is removed at once: each bundle has 16 MB."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def answer(path: Path, backend: BackendName) -> str:
    try:
        Predictor(load_bundle(path), backend=backend)
    except HilumError as error:
        return type(error).__name__
    return "ok"


@parametrize(BUNDLES)
def test_bundle(case: Case, folder: Path) -> None:
    path = case.make(folder)
    with bounded():
        assert answer(path, "onnxruntime") == case.answer


@parametrize(WEIGHT_FILES)
def test_weights(case: Case, folder: Path) -> None:
    path = case.make(folder)
    open_backend(packaged(), "pytorch")  # imports PyTorch, which is not to be measured
    with bounded():
        assert answer(path, "pytorch") == case.answer


@pytest.mark.parametrize("content", [npy(b"(", 0), npy(SHAPE % (1 << 62), 8), npy(SHAPE % -4, 8), b"", b"PK\3\4"])
def test_arrays_that_are_read_later(content: bytes, folder: Path) -> None:
    """The self-test and the training hashes; what is read of them is bounded too."""
    bundle = load_bundle(sealed(folder, self_test__npz=archive_of(content), training_hashes__npy=content))
    with bounded(), pytest.raises(BundleError):
        self_test_of(bundle)
    with bounded(), pytest.raises(BundleError):
        known_images(bundle)


def test_the_same_bundle_without_the_hostile_part_is_opened(folder: Path) -> None:
    assert answer(sealed(folder), "onnxruntime") == "ok"


def test_a_graph_without_end_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "RUN_SECONDS", 0.2)
    endless = with_file(ONNX_MODEL, lambda: graph(loops=1 << 62))(folder)
    with bounded(), pytest.raises(BundleError, match="terminate"):
        Predictor(load_bundle(endless), backend="onnxruntime")
