"""The conformance table of README.md: every file is read as the phantom that it stores, and answered as its PNG is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from matrix_cases import CASES, LOSSY, README, SYNTAXES, VALUES, Case, content, reference, write_readme
from numpy.typing import NDArray

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.imaging.read import read_radiograph
from hilum.inference.predictor import Predictor, Upload
from hilum.inference.result import Prediction
from hilum.phantoms.chest import draw_phantom

# Of the network's own size, so that the same gray levels reach it, whatever the depth: the answer must be the same. And
# one that is shrunk, where levels are rounded once more.
SAME_SIZE, SHRUNK = (2, "COVID", 128), (0, "Viral Pneumonia", 320)
SAME, CLOSE = 1e-6, 0.01


@cache
def drawn(seed: int, label: str, size: int) -> NDArray[np.uint8]:
    return draw_phantom(seed, label, size=size).image


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(load_bundle(resolve_bundle(DEFAULT)))


@pytest.fixture(scope="module")
def answer_to_png(predictor: Predictor) -> Callable[[NDArray[np.uint8]], Prediction]:
    """The answer to the PNG of an image."""
    known: dict[bytes, Prediction] = {}

    def predict(image: NDArray[np.uint8]) -> Prediction:
        key = image.tobytes()
        if key not in known:
            done, png = cv2.imencode(".png", image)
            assert done
            answer = predictor.predict(Upload(png.tobytes(), "phantom.png"))
            assert isinstance(answer, Prediction)
            assert 0.3 < answer.probability < 0.9
            known[key] = answer
        return known[key]

    return predict


def test_the_table_is_the_one_that_is_tested() -> None:
    assert README.read_text(encoding="utf-8") == write_readme()
    assert len(set(CASES)) == len(CASES) >= 60
    assert {case.syntax for case in CASES} == {*SYNTAXES}
    assert {case.values for case in CASES} == {*VALUES}


@pytest.mark.parametrize(
    ("case", "phantom", "bound"),
    [(case, SAME_SIZE, SAME) for case in CASES if case.syntax != LOSSY] + [(case, SHRUNK, CLOSE) for case in CASES],
    ids=lambda value: str(value) if isinstance(value, Case) else "",
)
def test_a_file_is_read_and_answered_as_the_png(
    case: Case,
    phantom: tuple[int, str, int],
    bound: float,
    predictor: Predictor,
    answer_to_png: Callable[[NDArray[np.uint8]], Prediction],
) -> None:
    image = drawn(*phantom)
    file = content(case, image)
    if file is None:
        pytest.skip("no dcmcjpeg on the path")
    radiograph = read_radiograph(file, origin=str(case))
    assert radiograph.photometric_interpretation == case.photometric
    expected_image = reference(case, image)
    assert np.abs(expected_image / 255 - image / 255).max() < 0.06
    assert np.abs(radiograph.pixels / 65535 - expected_image / 255).max() <= case.tolerance
    answer, expected = predictor.predict(radiograph), answer_to_png(expected_image)
    assert isinstance(answer, Prediction), answer
    np.testing.assert_allclose(
        list(answer.probabilities.values()), list(expected.probabilities.values()), rtol=0, atol=bound
    )
    overlap = 2 * (answer.mask & expected.mask).sum() / (answer.mask.sum() + expected.mask.sum())
    assert overlap >= 0.99
