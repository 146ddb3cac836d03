"""Image files that someone could send get their answer within the bounds, and leave the predictor as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_bundles import packaged
from hostile_case import Case, bounded, parametrize
from hostile_images import IMAGES, encoded, file

from hilum.inference.predictor import Predictor
from hilum.inference.result import Prediction


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    found = Predictor(packaged())
    found.predict(
        file("a.png", encoded("PNG"))(tmp_path_factory.mktemp("first"))
    )  # what is loaded once is not measured
    return found


@parametrize(IMAGES)
def test_image(case: Case, tmp_path: Path, predictor: Predictor) -> None:
    path = case.make(tmp_path)
    with bounded():
        result = predictor.predict(path)
    assert result.status == case.answer, result.reason
    if isinstance(result, Prediction):
        assert result.label == "Normal" or result.abstained
