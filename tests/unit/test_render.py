from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.errors import DataError, OutputError
from hilum.inference.legend import BACKGROUND, HEAT, OUTLINE
from hilum.inference.render import class_evidence, mask_png, overlay, save_png
from hilum.types import Finding, Prediction, Radiograph

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
SPEC = PreprocessSpec(size=64)


def prediction(
    shape: tuple[int, int],
    names: Sequence[str] = CLASSES,
    probabilities: Sequence[float] | None = None,
    *,
    mask: NDArray[np.bool_] | None = None,
    evidence: NDArray[np.float32] | None = None,
    findings: tuple[Finding, ...] = (),
) -> Prediction:
    if probabilities is None:
        probabilities = [1 / len(names)] * len(names)
    best = names[int(np.argmax(probabilities))]
    lung = np.zeros(shape, np.bool_) if mask is None else mask
    return Prediction(
        origin="film.png",
        class_names=tuple(names),
        probabilities=np.asarray(probabilities, np.float64),
        label=best,
        label_set=tuple(names),
        mask=lung,
        evidence=evidence,
        lung_fraction=float(lung.mean()),
        bundle_id="0123456789abcdef",
        findings=findings,
    )


def film(height: int, width: int) -> Radiograph:
    return Radiograph(np.random.default_rng(0).integers(30, 220, (height, width), dtype=np.uint8))


def is_colour(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.all(picture == np.asarray(colour, np.uint8), axis=-1)


def legend_of(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The part of the picture that is not the film (drawn height x width at the top left)."""
    if picture.shape[0] == height or picture.shape[1] > width + 300:
        return picture[:, width:]
    return picture[height:]


LONG = ["Opacity_of_the_left_lower_zone_with_effusion_and_" * 4 + str(i) for i in range(15)]
NAMES = {
    "three": ["A", "B", "C"],
    "four": list(CLASSES),
    "fifteen long": LONG,
    "no place to break": ["W" * 5000, "i" * 5000, "l"],
    "controls": ["a\nb\tc", "\ud800", "", " "],
    "other scripts": ["肺炎", "Größe", "плеврит", "é" * 300],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("shape", [(16, 16), (64, 2000), (2000, 64), (1, 1), (128, 100)], ids=str)
def test_the_legend_never_runs_off_the_picture_nor_over_the_film(shape: tuple[int, int], names: list[str]) -> None:
    radiograph = film(*shape)
    warning = Finding("view", "warning", "view position: LL, expected PA or AP " * 9)
    answer = prediction(shape, names, findings=(warning,))
    picture = overlay(radiograph, answer, evidence=np.ones(shape, np.float32))
    bare = overlay(radiograph, prediction(shape, ["A", "B"]), evidence=np.ones(shape, np.float32))
    factor = min(max(1, 512 / min(shape)), 2048 / max(shape))
    height, width = max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))
    assert np.array_equal(picture[:height, :width], bare[:height, :width])
    legend = legend_of(picture, height, width)
    ink = ~is_colour(legend, BACKGROUND)
    assert ink.sum() > 2000
    for edge in (ink[:8], ink[-8:], ink[:, :8], ink[:, -8:]):
        assert not edge.any()


def test_the_film_keeps_its_size_and_its_greys() -> None:
    radiograph = film(600, 530)
    picture = overlay(radiograph, prediction((600, 530)))
    assert picture.dtype == np.uint8
    assert picture.shape[0] == 600
    assert picture.shape[1] > 530
    assert np.array_equal(picture[:600, :530], np.repeat(radiograph.pixels[:, :, None], 3, axis=2))


@pytest.mark.parametrize(("shape", "shown"), [((64, 80), (512, 640)), ((2560, 2048), (2048, 1638))])
def test_small_films_are_enlarged_and_large_ones_reduced(shape: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = overlay(Radiograph(np.full(shape, 255, np.uint8)), prediction(shape))
    white = is_colour(picture, (255, 255, 255))
    assert white[: shown[0], : shown[1]].all()
    assert not white[:, shown[1] :].any()


def test_deep_films_are_shown_on_their_declared_scale() -> None:
    deep = Radiograph(np.full((512, 512), 2048, np.uint16), bits_stored=12)
    assert overlay(deep, prediction((512, 512)))[0, 0].tolist() == [128, 128, 128]


def test_the_outline_follows_the_mask_and_leaves_its_inside_free() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[16:48, 16:48] = True
    grey = Radiograph(np.full((64, 64), 120, np.uint8))
    picture = overlay(grey, prediction(mask.shape, mask=mask))[:512, :512]
    drawn = is_colour(picture, OUTLINE)
    rows, cols = np.nonzero(drawn)
    for low, high in ((rows.min(), rows.max()), (cols.min(), cols.max())):
        assert low == pytest.approx(128, abs=3)
        assert high == pytest.approx(383, abs=3)
    assert (picture[150:360, 150:360] == 120).all()
    assert (picture[:112] == 120).all()
    assert is_colour(picture, (0, 0, 0)).sum() > 4 * 200  # the halo, along all four sides


def test_a_mask_of_one_pixel_and_a_full_mask_are_drawn() -> None:
    for mask in (np.eye(1, 64 * 64, 99).reshape(64, 64) > 0, np.ones((64, 64), np.bool_)):
        picture = overlay(film(64, 64), prediction((64, 64), mask=mask))
        assert is_colour(picture[:, :512], OUTLINE).any()


def test_only_positive_evidence_is_drawn_and_most_at_its_peak() -> None:
    evidence = np.zeros((512, 512), np.float32)
    evidence[:, :128], evidence[:, 128:256], evidence[:, 256:384] = -5, 2, 1
    grey = Radiograph(np.full((512, 512), 100, np.uint8))
    row = overlay(grey, prediction((512, 512)), evidence=evidence)[256].astype(int)
    saturation = row[:, 0] - row[:, 2]
    assert saturation[64] == saturation[448] == 0
    assert saturation[192] > 1.8 * saturation[320] > 0


def test_evidence_without_a_positive_part_leaves_the_film_as_it_is() -> None:
    radiograph, answer = film(512, 512), prediction((512, 512))
    against = overlay(radiograph, answer, evidence=np.full((512, 512), -1, np.float32))
    assert np.array_equal(against[:, :512], overlay(radiograph, answer)[:, :512])


def test_bars_are_as_long_as_the_probabilities() -> None:
    def filled(share: float) -> int:
        answer = prediction((512, 512), ["A", "B"], [share, 1 - share])
        return int(is_colour(overlay(film(512, 512), answer)[:, 512:], HEAT).sum(axis=1).max())

    assert filled(1.0) > 300
    assert filled(0.6) / filled(1.0) == pytest.approx(0.6, abs=0.01)


def test_a_near_certainty_is_not_shown_as_one() -> None:
    def legend(share: float) -> NDArray[np.uint8]:
        return overlay(film(512, 512), prediction((512, 512), ["A", "B"], [share, 1 - share]))[:60, 512:]

    assert not np.array_equal(legend(0.99999), legend(1.0))


def test_names_that_differ_in_another_script_look_different() -> None:
    pictures = [overlay(film(512, 512), prediction((512, 512), [name, "b"])) for name in ("肺炎", "正常")]
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize("what", ["mask", "evidence"])
def test_maps_of_another_size_are_refused(what: str) -> None:
    answer = prediction((32, 32) if what == "mask" else (64, 64))
    evidence = np.ones((64, 32), np.float32) if what == "evidence" else None
    with pytest.raises(DataError, match=f"{what} of the film's shape"):
        overlay(film(64, 64), answer, evidence=evidence)


def test_class_evidence_is_that_of_the_label_on_the_film() -> None:
    cells = np.zeros((4, 8, 8), np.float32)
    cells[2, 1, 7] = 3.0  # the square's upper right
    answer = prediction((64, 32), probabilities=[0.1, 0.1, 0.7, 0.1], evidence=cells)
    restored = class_evidence(answer, (64, 32), SPEC)
    assert restored is not None
    assert restored.shape == (64, 32)
    assert restored.max() == 0  # the film covers columns 2 to 5 of the padded square
    stretched = class_evidence(answer, (64, 32), SPEC.model_copy(update={"fit": "stretch"}))
    assert stretched is not None
    row, column = np.unravel_index(int(stretched.argmax()), stretched.shape)
    assert (row // 8, column // 4) == (1, 7)


def test_class_evidence_is_none_where_the_network_gives_none() -> None:
    assert class_evidence(prediction((64, 64)), (64, 64), SPEC) is None


def test_mask_png_is_black_and_white() -> None:
    image = mask_png(np.array([[True, False]]))
    assert image.dtype == np.uint8
    assert image.tolist() == [[255, 0]]


def test_saved_pictures_read_back_equal(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    save_png(rgb, tmp_path / "deep" / "rgb.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "deep" / "rgb.png"))[:, :, ::-1], rgb)
    save_png(rgb[:, :, 0], tmp_path / "grey.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "grey.png"), cv2.IMREAD_UNCHANGED), rgb[:, :, 0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "grey.png"]


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="writable folder"):
        save_png(np.zeros((4, 4), np.uint8), tmp_path / "file" / "a.png")
