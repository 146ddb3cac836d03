"""What the gate learns from: drawn images, views of images and a table of others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.data.cache import Cache, open_cache
from hilum.errors import DataError
from hilum.gate.verdict import COLLAGE, FRONTAL, KIND_REASONS, KINDS, LATERAL, PICTURE
from hilum.gate_training.body_parts import BODY_PARTS, lateral_chest
from hilum.gate_training.negatives import NEGATIVES, SLICES
from hilum.gate_training.samples import Samples, counts, draw_phantoms, load_others, read_others
from hilum.gate_training.views import UNKNOWN, image_view, letterboxed, other_view
from hilum.imaging.preprocess import content_of, placement
from hilum.phantoms.chest import draw_phantom
from hilum.types import Record

SIZE = 64


@pytest.mark.parametrize("name", [*NEGATIVES, *SLICES, *BODY_PARTS, "lateral"])
def test_drawn_negatives_are_of_their_draw(name: str) -> None:
    draw = {**NEGATIVES, **SLICES, **BODY_PARTS, "lateral": lateral_chest}[name]
    one, again = draw(np.random.default_rng(1), 80), draw(np.random.default_rng(1), 80)
    assert one.shape == (80, 80)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    several = [draw(np.random.default_rng(seed), 80) for seed in range(6)]
    assert len({image.tobytes() for image in several}) == 6
    assert max(image.std() for image in several) > 10


@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (64, 64), (31, 200), (10, 12)])
def test_the_content_of_a_square_is_what_was_put_into_it(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(1, 256, shape).astype(np.uint8)
    rows, columns = content_of(letterboxed(image, SIZE))
    place = placement(shape, PreprocessSpec(size=SIZE))
    assert (rows.start, columns.start) == (place.top, place.left)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (place.height, place.width)


def _views(count: int, lungs: bool) -> list[tuple[int, int, int, int, int, int]]:
    phantom = draw_phantom(0, "Normal", size=96)
    mask = phantom.lung_mask if lungs else None
    return [  # type: ignore[return-value]
        image_view(np.random.default_rng(seed), phantom.image, mask, SIZE, FRONTAL).properties for seed in range(count)
    ]


def test_a_view_says_what_was_done() -> None:
    properties = np.array(_views(600, lungs=True))
    kind, turn, inverted, mirrored, cropped, annotated = properties.T
    assert set(kind) == {FRONTAL}
    assert set(turn) == {0, 1, 2, 3}
    for flag, share in ((inverted, 0.25), (mirrored, 0.3), (cropped, 0.4), (annotated, 0.15)):
        assert set(flag) == {0, 1}
        assert flag.mean() == pytest.approx(share, abs=0.08)
    assert (turn == 0).mean() == pytest.approx(0.55, abs=0.08)


def test_whether_lungs_are_cut_off_is_unknown_without_lungs() -> None:
    cropped = np.array(_views(50, lungs=False))[:, 4]
    assert set(cropped) == {UNKNOWN}


def test_turns_and_inversion_are_as_said() -> None:
    """An image that is bright in its upper left corner alone shows where that went."""
    corner = np.full((96, 96), 60, np.uint8)
    corner[:40, :40] = 220
    hits = 0
    for seed in range(200):
        view = image_view(np.random.default_rng(seed), corner, None, 96, FRONTAL)
        if view.annotated or view.mirrored:
            continue
        upright = np.rot90(255 - view.image if view.inverted else view.image, view.turn).astype(float)
        quarters = [upright[:48, :48], upright[:48, 48:], upright[48:, 48:], upright[48:, :48]]
        hits += int(np.argmax([quarter.mean() for quarter in quarters]) == 0)
        assert hits or seed < 5
    assert hits >= 95  # of about 110; bars of padding and grain spoil few


def test_nothing_is_known_of_another_image_but_its_kind() -> None:
    view = other_view(np.random.default_rng(0), np.full((50, 90), 100, np.uint8), SIZE, LATERAL)
    assert view.properties == (LATERAL, *(UNKNOWN,) * 5)
    assert view.image.shape == (SIZE, SIZE)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("images")
    records = []
    for seed in range(4):
        phantom = draw_phantom(seed, "Normal", size=96)
        image, mask = folder / f"{seed}.png", folder / f"{seed}_mask.png"
        cv2.imwrite(str(image), phantom.image)
        cv2.imwrite(str(mask), phantom.lung_mask.astype(np.uint8) * 255)
        records.append(Record(image, mask if seed % 2 else None))
    return open_cache(records, PreprocessSpec(size=96), folder / "cache")


@pytest.fixture(scope="module")
def samples(images: Cache) -> Samples:
    gray = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
    return Samples(images, {PICTURE: [gray]}, draw_phantoms(0, 2, 96), SIZE)


def test_a_batch_is_a_function_of_seed_and_step(samples: Samples) -> None:
    def same(one: tuple[NDArray[np.uint8], object], two: tuple[NDArray[np.uint8], object]) -> bool:
        return one[0].tobytes() == two[0].tobytes()

    batch = samples.batch(1, 2, 8)
    assert batch[0].shape == (8, SIZE, SIZE)
    assert batch[1].shape == (8, 6)
    assert same(batch, samples.batch(1, 2, 8))
    assert not same(batch, samples.batch(1, 3, 8))
    assert not same(batch, samples.batch(2, 2, 8))


def test_every_kind_is_drawn_even_where_the_table_has_none(samples: Samples) -> None:
    kinds = np.concatenate([samples.batch(0, step, 32)[1][:, 0] for step in range(12)])
    assert set(kinds.tolist()) == set(range(len(KINDS)))
    assert np.mean(kinds == FRONTAL) == pytest.approx(0.5, abs=0.08)
    assert np.mean(kinds == COLLAGE) == pytest.approx(0.06, abs=0.05)


def test_every_kind_but_the_frontal_has_a_reason() -> None:
    assert set(KIND_REASONS) == set(KINDS[1:])


def _table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_table_names_images_of_each_kind(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((300, 600), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "small.png"), np.full((20, 10), 90, np.uint8))
    table = _table(
        tmp_path / "table.csv",
        "image,kind,collection,split\nwide.png,slice,ct,train\nsmall.png,picture,,test\nsmall.png,slice,,\n",
    )
    others = read_others(table)
    assert [other.collection for other in others] == ["ct", "picture", "slice"]
    assert [other.split for other in others] == ["train", "test", "train"]
    assert counts(others) == {"slice": 2, "picture": 1}
    loaded = load_others(others)
    assert [image.shape for image in loaded[KINDS.index("slice")]] == [(128, 256), (20, 10)]
    assert read_others(table, tmp_path / "elsewhere")[0].path == tmp_path / "elsewhere" / "wide.png"


@pytest.mark.parametrize(
    "text",
    [
        "image\na.png\n",
        "image,kind\na.png,cat\n",
        "image,kind\na.png,frontal\n",
        "image,kind,split\na.png,slice,all\n",
        "image,kind\n",
    ],
)
def test_a_wrong_table_is_a_data_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError):
        read_others(_table(tmp_path / "table.csv", text))
