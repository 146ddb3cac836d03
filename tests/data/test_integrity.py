"""Each way in which a file can be wrong: found, named, and never more lost than need be."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.data.integrity import check_records, gather
from hilum.types import Finding, Record

RANDOM = np.random.default_rng(0)


def write(path: Path, pixels: NDArray[np.uint8]) -> Path:
    cv2.imwrite(str(path), pixels)
    return path


def noise(height: int = 48, width: int = 40) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (height, width), dtype=np.uint8)


def box(height: int = 48, width: int = 40) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : -height // 4, width // 4 : -width // 4] = 255
    return mask


def only(findings: tuple[Finding, ...]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_good_files_pass_in_silence(tmp_path: Path) -> None:
    records = [Record(write(tmp_path / f"{n}.png", noise()), write(tmp_path / f"m{n}.png", box())) for n in range(3)]
    assert check_records(records) == (tuple(records), ())


def truncated(path: Path) -> None:
    write(path, noise(64, 64))
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        ("empty_file", lambda path: path.write_bytes(b"")),
        ("unreadable_image", lambda path: path.write_text("a text renamed")),
        ("unreadable_image", truncated),
        ("constant_image", lambda path: write(path, np.zeros((48, 40), np.uint8))),
        ("constant_image", lambda path: write(path, np.full((1, 1), 90, np.uint8))),
    ],
)
def test_a_bad_image_takes_its_record_out_and_no_other(tmp_path: Path, check: str, spoil: object) -> None:
    good = Record(write(tmp_path / "good.png", noise()))
    bad = tmp_path / "bad.png"
    spoil(bad)  # type: ignore[operator]
    kept, findings = check_records([Record(bad), good], root=tmp_path)
    assert kept == (good,)
    finding = only(findings)
    assert (finding.check, finding.severity, finding.records) == (check, "error", ("bad.png",))
    assert "bad.png" in finding.message
    assert str(tmp_path) not in finding.message


@pytest.mark.parametrize(
    ("check", "mask"),
    [
        ("unreadable_mask", None),
        ("mask_aspect", box(48, 48)),
        ("empty_mask", np.zeros((48, 40), np.uint8)),
        ("empty_mask", box() // 255),
    ],
)
def test_a_bad_mask_becomes_unknown_and_the_image_stays(
    tmp_path: Path, check: str, mask: NDArray[np.uint8] | None
) -> None:
    path = tmp_path / "mask.png"
    if mask is None:
        path.write_bytes(b"no mask")
    else:
        write(path, mask)
    image = write(tmp_path / "image.png", noise())
    kept, findings = check_records([Record(image, path, "COVID")])
    assert kept == (Record(image, None, "COVID"),)
    assert (only(findings).check, only(findings).severity) == (check, "warning")


def test_a_smaller_mask_of_the_same_aspect_is_fine(tmp_path: Path) -> None:
    record = Record(write(tmp_path / "image.png", noise(59, 59)), write(tmp_path / "mask.png", box(32, 32)))
    kept, findings = check_records([record])
    assert kept == (record,)
    assert (only(findings).check, only(findings).severity) == ("mask_size", "info")
    assert "mask 32 x 32, image 59 x 59" in only(findings).message


def test_a_mask_with_in_between_values_is_kept_and_its_share_named(tmp_path: Path) -> None:
    mask = box(40, 40)
    mask[0, :16] = 77  # 16 of 1600 pixels
    record = Record(write(tmp_path / "image.png", noise(40, 40)), write(tmp_path / "mask.png", mask))
    kept, findings = check_records([record])
    assert kept == (record,)
    assert only(findings).check == "non_binary_mask"
    assert "1.00%" in only(findings).message


def test_equal_bytes_under_two_labels_and_without_a_group(tmp_path: Path) -> None:
    first, second = noise(), noise()
    records = [
        Record(write(tmp_path / "a.png", first), label="COVID"),
        Record(write(tmp_path / "b.png", first), label="Normal"),
        Record(write(tmp_path / "c.png", second), label="Normal"),
        Record(write(tmp_path / "d.png", second), label="Normal"),
    ]
    kept, findings = check_records(records, root=tmp_path)
    assert kept == tuple(records)
    assert [(finding.check, finding.records) for finding in findings] == [
        ("label_conflict", ("a.png", "b.png")),
        ("duplicate_image", ("c.png", "d.png")),
    ]
    grouped = [Record(record.image_path, label="Normal", group="p1") for record in records]
    assert check_records(grouped).findings == ()


def test_one_finding_for_many_files_names_the_first_few() -> None:
    finding = gather("empty_file", "error", [(f"{n}.png", "") for n in range(1200)], "images are empty")
    assert finding.message == "Images are empty (1,200): 0.png, 1.png, 2.png and 1,197 more."
    assert len(finding.records) == 1200


def test_the_result_does_not_depend_on_the_threads(tmp_path: Path) -> None:
    records = [Record(write(tmp_path / f"{n}.png", noise() * (n % 3 > 0))) for n in range(24)]
    assert check_records(records, workers=1) == check_records(records, workers=4)


@pytest.mark.parametrize(("check", "region"), [("unreadable_region", None), ("region_aspect", box(48, 48))])
def test_a_bad_region_is_not_used_and_the_mask_stays(
    tmp_path: Path, check: str, region: NDArray[np.uint8] | None
) -> None:
    path = tmp_path / "region.png"
    if region is None:
        path.write_bytes(b"no region")
    else:
        write(path, region)
    record = Record(write(tmp_path / "image.png", noise()), write(tmp_path / "mask.png", box()), region_path=path)
    kept, findings = check_records([record], root=tmp_path)
    assert kept == (Record(record.image_path, record.mask_path),)
    assert (only(findings).check, only(findings).severity) == (check, "warning")
    assert "region" in only(findings).message


def test_an_empty_region_and_a_smaller_one_are_kept(tmp_path: Path) -> None:
    records = [
        Record(write(tmp_path / f"{n}.png", noise()), region_path=write(tmp_path / f"region-{n}.png", region))
        for n, region in enumerate((np.zeros((48, 40), np.uint8), box(24, 20)))
    ]
    assert check_records(records) == (tuple(records), ())
