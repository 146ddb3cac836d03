"""Evidence as 16-bit PNG: what is read is what was written, to half a gray level."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.errors import OutputError, ReadError
from hilum.inference.evidence_file import ZERO, read_evidence, save_evidence, step_of
from hilum.inference.result import Prediction
from hilum.types import Radiograph


def prediction(label: str = "COVID") -> Prediction:
    return Prediction(
        origin="image.png",
        radiograph=Radiograph(np.zeros((5, 7), np.uint8)),
        class_names=(label, "Normal"),
        probabilities={label: 0.7, "Normal": 0.3},
        label=label,
        prediction_set=(label,),
        mask=np.zeros((5, 7), np.bool_),
        evidence=np.zeros((2, 3, 4), np.float32),
        lung_fraction=0.0,
        abstained=False,
        bundle_id="0123456789abcdef",
    )


def noise(scale: float) -> NDArray[np.float32]:
    return (np.random.default_rng(0).normal(size=(5, 7)) * scale).astype(np.float32)


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1.0, 37.0, 1e6])
def test_values_come_back_within_half_a_step(tmp_path: Path, scale: float) -> None:
    values = noise(scale)
    step = save_evidence(tmp_path / "a.png", values, prediction())
    found, facts = read_evidence(tmp_path / "a.png")
    assert found.dtype == np.float32
    assert np.abs(found - values).max() <= step / 2 * 1.0001
    assert step == step_of(values) == facts["logits_per_gray_level"]
    assert np.log2(step) == round(np.log2(step))
    assert np.abs(values).max() / step > 32767 / 2 - 1  # no step twice as fine would hold it


@pytest.mark.parametrize("value", [32767.0, -32767.0, 1.0, 0.0])
def test_the_ends_of_the_scale_are_held(tmp_path: Path, value: float) -> None:
    values = np.array([[value, 0.0]], np.float32)
    save_evidence(tmp_path / "a.png", values, prediction())
    assert read_evidence(tmp_path / "a.png")[0].tolist() == values.tolist()


def test_any_reader_of_png_sees_gray_with_nothing_in_the_middle(tmp_path: Path) -> None:
    save_evidence(tmp_path / "a.png", np.array([[-1, 0, 1]], np.float32), prediction())
    seen = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert seen is not None
    assert seen.dtype == np.uint16
    dark, middle, light = seen[0].tolist()
    assert dark < middle == ZERO < light


def test_the_file_says_whose_evidence_it_is(tmp_path: Path) -> None:
    save_evidence(tmp_path / "a.png", noise(1.0), prediction("肺炎"))
    facts = read_evidence(tmp_path / "a.png")[1]
    assert (facts["class"], facts["cells"], facts["bundle_id"]) == ("肺炎", [3, 4], "0123456789abcdef")


@pytest.mark.parametrize("kind", ["absent", "text", "torn", "another png"])
def test_another_file_is_a_read_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "text":
        path.write_text("no image")
    elif kind == "torn":
        save_evidence(path, np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32), prediction())
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "another png":
        assert cv2.imwrite(str(path), np.zeros((4, 4), np.uint16))
    with pytest.raises(ReadError, match="evidence"):
        read_evidence(path)


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        save_evidence(tmp_path / "file" / "a.png", noise(1.0), prediction())
