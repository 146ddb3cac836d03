"""The drawings of failures: those of hilum's own renderer, at the size of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from score_making import scores_of

from hilum.backends.base import BackendOutput
from hilum.config import PreprocessSpec
from hilum.evaluation.failure_images import failure_images
from hilum.evaluation.measure import Subject
from hilum.evaluation.report import ModelRef
from hilum.evaluation.results import failures_of
from hilum.imaging.preprocess import fit_image
from hilum.imaging.read import read_radiograph
from hilum.inference.legend import OUTLINE
from hilum.phantoms.chest import draw_phantom
from hilum.types import Record

SPEC = PreprocessSpec(size=64)


class Engine:
    """A lung in the middle; evidence for the second class in the upper left, of ``strength`` logits."""

    def __init__(self, strength: float | None) -> None:
        self._strength = strength

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        lung = np.zeros((len(images), 1, 64, 64), np.float32)
        lung[:, :, 16:48, 16:48] = 1
        evidence = None
        if self._strength is not None:
            evidence = np.zeros((len(images), 2, 4, 4), np.float32)
            evidence[:, 1, 0, 0] = self._strength
        return BackendOutput(
            segmentation=lung, classification=np.zeros((len(images), 2), np.float32), evidence=evidence
        )


def _drawn(folder: Path, strength: float | None, shape: tuple[int, int] = (64, 64)) -> Any:
    path = folder / "one.png"
    cv2.imwrite(str(path), cv2.resize(draw_phantom(0, "Normal", size=64).image, shape[::-1]))
    scores = scores_of([0], np.array([[0.1, 0.9]]), files=("one.png",))
    subject = Subject(ModelRef(kind="run", name="r"), Engine(strength), ("a", "b"), SPEC)  # type: ignore[arg-type]
    fitted = fit_image(read_radiograph(path), SPEC)
    return failure_images(subject, [Record(path)], scores, fitted[None], failures_of(scores))["one.png"]


def _decoded(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _near(image: NDArray[np.uint8], rgb: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.abs(image[:, :, ::-1].astype(int) - rgb).max(axis=2) < 60


@pytest.mark.parametrize("shape", [(64, 64), (1200, 900), (90, 180)])
def test_images_keep_their_shape_and_fit_a_page(tmp_path: Path, shape: tuple[int, int]) -> None:
    drawn = _drawn(tmp_path, 3.0, shape)
    plain, overlay = _decoded(drawn.plain), _decoded(drawn.overlay)
    assert plain.shape == overlay.shape
    assert max(plain.shape) == 440
    assert plain.shape[1] / plain.shape[0] == pytest.approx(shape[1] / shape[0], rel=0.01)


def test_lung_outline_and_evidence_are_drawn_where_they_are(tmp_path: Path) -> None:
    drawn = _drawn(tmp_path, 3.0)
    overlay, plain = _decoded(drawn.overlay), _decoded(drawn.plain)
    assert drawn.has_evidence is True
    rows, columns = np.nonzero(_near(overlay, OUTLINE))
    for places in (rows, columns):
        assert places.min() == pytest.approx(110, abs=6)  # 16 of 64 pixels, of 440
        assert places.max() == pytest.approx(330, abs=6)
    colored = np.ptp(overlay.astype(int), axis=2) > 40
    assert colored[:60, :60].mean() > 0.5
    assert not colored[380:, 380:].any()
    assert np.ptp(plain.astype(int), axis=2).max() < 20


@pytest.mark.parametrize(("strength", "known"), [(0.01, False), (None, None)])
def test_weak_or_absent_evidence_is_not_drawn(tmp_path: Path, strength: float | None, known: bool | None) -> None:
    drawn = _drawn(tmp_path, strength)
    assert drawn.has_evidence is known
    assert not (np.ptp(_decoded(drawn.overlay)[:60, :60].astype(int), axis=2) > 40).any()


def test_an_image_that_is_gone_is_left_out(tmp_path: Path) -> None:
    scores = scores_of([0], np.array([[0.1, 0.9]]), files=("one.png",))
    subject = Subject(ModelRef(kind="run", name="r"), Engine(None), ("a", "b"), SPEC)  # type: ignore[arg-type]
    records = [Record(tmp_path / "gone.png")]
    assert failure_images(subject, records, scores, np.zeros((1, 64, 64), np.uint8), failures_of(scores)) == {}
