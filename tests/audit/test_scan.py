"""Images read once: what cannot be read is said, and what is read stays with its record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.audit.features import IMAGE_PROBES, file_facts, image_features
from hilum.audit.scan import Scan, lung_finder, scan
from hilum.backends.base import BackendOutput, Floats
from hilum.config import PreprocessSpec
from hilum.errors import DataError
from hilum.imaging.read import read_radiograph
from hilum.phantoms.chest import draw_phantom
from hilum.types import Radiograph, Record

SIDE = 48


def _record(folder: Path, seed: int, mask_side: int = SIDE) -> Record:
    phantom = draw_phantom(seed, "COVID", size=SIDE)
    image, mask = folder / f"{seed}.png", folder / f"mask-{seed}.png"
    cv2.imwrite(str(image), phantom.image)
    lung = cv2.resize(phantom.lung_mask * np.uint8(255), (mask_side, mask_side), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(mask), lung)
    return Record(image, mask, "COVID")


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """40 records, more than one chunk; the fourth is not an image."""
    made = [_record(tmp_path, seed) for seed in range(40)]
    made[3].image_path.write_text("a text renamed")
    return made


def _scan(records: Sequence[Record], **how: object) -> Scan:
    return scan(records, [record.image_path.name for record in records], **how)  # type: ignore[arg-type]


def test_an_unreadable_image_is_a_finding_and_the_others_keep_their_rows(records: list[Record]) -> None:
    seen: list[tuple[int, int]] = []
    found = _scan(records, progress=lambda done, total: seen.append((done, total)))
    (finding,) = found.findings
    assert (finding.check, finding.severity, finding.records) == ("unreadable", "error", ("3.png",))
    assert found.rows.tolist() == [row for row in range(40) if row != 3]
    assert found.records == tuple(records[row] for row in found.rows)
    assert seen == [(32, 40), (40, 40)]
    assert len(found.prints) == 39
    assert set(found.features) == set(IMAGE_PROBES)
    for place, record in enumerate(found.records):
        content = record.image_path.read_bytes()
        assert found.sha256[place] == hashlib.sha256(content).hexdigest()
        assert record.mask_path is not None
        lung = cv2.imread(str(record.mask_path), cv2.IMREAD_GRAYSCALE) > 127
        expected = image_features(read_radiograph(record.image_path), file_facts(content), lung)
        for name, vector in expected.items():
            np.testing.assert_array_equal(found.features[name][place], vector, err_msg=name)


def test_without_a_mask_nothing_is_known_outside_the_lung(tmp_path: Path) -> None:
    whole = _record(tmp_path, 0)
    found = _scan([whole, Record(whole.image_path)])
    outside = np.isnan(found.features["outside_lung"])
    assert outside.all(axis=1).tolist() == [False, True]
    assert not outside[0].any()
    assert found.findings == ()


def test_a_smaller_mask_of_the_same_aspect_is_used(tmp_path: Path) -> None:
    """As in the COVID-19 Radiography Database, whose masks have 256 pixels and whose images 299."""
    found = _scan([_record(tmp_path, 0, mask_side=SIDE // 2)])
    assert np.isfinite(found.features["outside_lung"]).all()
    assert found.findings == ()


def _squeezed(path: Path) -> None:
    cv2.imwrite(str(path), np.full((SIDE, SIDE // 2), 255, np.uint8))


def _empty(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((SIDE, SIDE), np.uint8))


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("no mask"), Path.unlink, _squeezed, _empty])
def test_a_bad_mask_costs_the_mask_and_not_the_image(tmp_path: Path, spoil: object) -> None:
    good, bad = _record(tmp_path, 0), _record(tmp_path, 1)
    spoil(bad.mask_path)  # type: ignore[operator]
    found = _scan([good, bad])
    (finding,) = found.findings
    assert (finding.check, finding.severity, finding.records) == ("unusable_mask", "warning", ("1.png",))
    assert found.records == (good, Record(bad.image_path, None, "COVID"))
    assert np.isnan(found.features["outside_lung"]).all(axis=1).tolist() == [False, True]


def test_found_lungs_stand_for_every_image_or_for_none(tmp_path: Path) -> None:
    """Were the reference used for some, the kind of mask would tell the classes that have one."""
    half = np.zeros((SIDE, SIDE), np.bool_)
    half[:, : SIDE // 2] = True
    asked: list[int] = []

    def find(images: Sequence[Radiograph]) -> list[NDArray[np.bool_]]:
        asked.append(len(images))
        return [half] * len(images)

    with_mask = _record(tmp_path, 0)
    without = Record(_record(tmp_path, 1).image_path)
    found = _scan([with_mask, without], find_lungs=find)
    assert asked == [2]
    for place, record in enumerate((with_mask, without)):
        expected = image_features(read_radiograph(record.image_path), file_facts(b""), half)["outside_lung"]
        np.testing.assert_array_equal(found.features["outside_lung"][place], expected)


def test_the_networks_lungs_have_the_images_own_size() -> None:
    class Left:
        def run(self, images: Floats) -> BackendOutput:
            maps = np.zeros((len(images), 1, *images.shape[2:]), np.float32)
            maps[..., : images.shape[3] // 2] = 0.9
            return BackendOutput(maps, np.zeros((len(images), 2), np.float32), None)

    radiographs = [Radiograph(np.zeros(shape, np.uint8)) for shape in ((40, 40), (30, 60))]
    lungs = lung_finder(Left(), PreprocessSpec(size=32), 0.5)(radiographs)
    assert [lung.shape for lung in lungs] == [(40, 40), (30, 60)]
    for lung in lungs:
        left = lung[:, : lung.shape[1] // 2]
        assert left.mean() > 0.95
        assert lung.sum() == left.sum()


def test_no_readable_image_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("a text renamed")
    records = [Record(tmp_path / "a.png"), Record(tmp_path / "gone.png")]
    with pytest.raises(DataError) as caught:
        _scan(records)
    assert "a.png" in (caught.value.hint or "")
