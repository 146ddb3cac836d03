"""Class folders and CSV files become the same table of records; what is wrong is named."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_writing import content_of, dataset_of

from hilum.config import PreprocessSpec, SplitConfig
from hilum.data.cache import open_cache
from hilum.data.index import Index, build_index, load_index, save_index
from hilum.data.split import make_split
from hilum.errors import DataError
from hilum.imaging.read import read_mask
from hilum.types import SPLIT_NAMES

SHARED = Path(__file__).parents[3] / "shared" / "data"


def draw(path: Path, seed: int = 0, shape: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
    return path


def draw_mask(path: Path, shape: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(shape, np.uint8)
    mask[8:-8, 8:-8] = 255
    cv2.imwrite(str(path), mask)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for number, label in enumerate(("Normal", "COVID")):
        for row in range(3):
            draw(data / label / "images" / f"{label}-{row}.png", seed=10 * number + row)
        draw_mask(data / label / "masks" / f"{label}-0.png")
    return data


def write_table(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def checks(index: Index) -> dict[str, str]:
    return {finding.check: finding.severity for finding in index.findings}


def test_folders_with_images_and_masks(folders: Path) -> None:
    index = build_index(folders)
    assert index.class_names == ("COVID", "Normal")
    assert [index.key(record) for record in index.records] == [
        f"{label}/images/{label}-{row}.png" for label in ("COVID", "Normal") for row in range(3)
    ]
    masks = [record.mask_path for record in index.records]
    assert masks[0] == folders / "COVID/masks/COVID-0.png"
    assert masks[1:3] == [None, None]
    assert index.findings == ()
    assert index.root == folders


def test_images_directly_in_the_class_folder_suffixes_of_any_case_and_rubbish_ignored(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "1.png").rename(tmp_path / "a" / "1.PNG")
    draw(tmp_path / "b" / "1.jpg")
    draw(tmp_path / "b" / ".2.png")
    draw(tmp_path / ".hidden" / "1.png")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"x")
    index = build_index(tmp_path)
    assert [index.key(record) for record in index.records] == ["a/1.PNG", "b/1.jpg"]
    assert [record.label for record in index.records] == ["a", "b"]


def test_everything_in_the_folders_that_is_not_used_is_counted_and_named(folders: Path) -> None:
    write_table(folders / "README.txt", "nothing")
    write_table(folders / "COVID" / "images" / "notes", "nothing")
    write_table(folders / "COVID" / "DICOMDIR", "nothing")
    draw(folders / "COVID" / "images" / "patient" / "1.png")
    draw(folders / "COVID" / "patient" / "1.png")
    draw(folders / "COVID" / "beside.png")
    draw(folders / "loose.png")
    draw(folders / "Normal" / "images" / ".hidden.png")
    (folders / "Normal" / "images" / "broken.png").symlink_to("nowhere")
    index = build_index(folders)
    assert len(index.records) == 6
    assert {finding.check: finding.records for finding in index.findings} == {
        "loose_image": ("loose.png", "COVID/beside.png"),
        "not_image": ("README.txt", "COVID/DICOMDIR", "COVID/images/notes"),
        "hidden": ("Normal/images/.hidden.png",),
        "nested_folder": ("COVID/patient", "COVID/images/patient"),
        "not_file": ("Normal/images/broken.png",),
    }


def test_dicom_and_images_without_a_suffix_are_indexed(folders: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (48, 40), dtype=np.uint16)
    for number in (1, 2):
        name = f"1.2.840.{number}"
        (folders / "COVID" / "images" / name).write_bytes(content_of(dataset_of(pixels + number, 12)))
        draw_mask(folders / "COVID" / "masks" / f"{name}.png").rename(folders / "COVID" / "masks" / name)
    (folders / "Normal/images/Normal-1.png").rename(folders / "Normal/images/IM000000")
    index = build_index(folders)
    assert index.findings == ()
    assert [record.mask_path for record in index.records[:2]] == [
        folders / "COVID/masks/1.2.840.1",
        folders / "COVID/masks/1.2.840.2",
    ]
    save_index(index, tmp_path / "index.csv")
    assert load_index(tmp_path / "index.csv").records == index.records
    cache = open_cache(index.records, PreprocessSpec(size=32), tmp_path / "cache")
    assert cache.images.shape == (8, 32, 32)


def test_names_that_a_spreadsheet_would_evaluate_are_saved_and_loaded(folders: Path) -> None:
    for name in ("=cmd.png", "-1+1.png", "@a.png", "'=x.png", "+\t.png"):
        draw(folders / "=COVID" / name, seed=len(name))
        draw_mask(folders / "=COVID" / "masks" / name)
    index = build_index(folders)
    save_index(index, folders / "index.csv")
    loaded = load_index(folders / "index.csv")
    assert loaded.records == index.records
    assert loaded.digest == index.digest
    with (folders / "index.csv").open(newline="") as stream:
        assert {row["label"] for row in csv.DictReader(stream)} == {"COVID", "Normal", "'=COVID"}


def test_a_name_that_is_not_utf_8_is_left_out_and_named(folders: Path, tmp_path: Path) -> None:
    try:
        for name in (b"COVID/images/r\xf6ntgen.png", b"L\xfcnge/a.png"):
            (folders / os.fsdecode(name)).parent.mkdir(exist_ok=True)
            draw(tmp_path / "a.png").rename(folders / os.fsdecode(name))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    index = build_index(folders)
    assert len(index.records) == 6
    assert checks(index) == {"undecodable_name": "error"}
    assert index.findings[0].records == ("COVID/images/r\\udcf6ntgen.png", "L\\udcfcnge/a.png")
    save_index(index, folders / "index.csv")
    assert len(load_index(folders / "index.csv").records) == 6


def test_a_name_as_long_as_can_be_is_indexed(folders: Path) -> None:
    draw(folders / "COVID" / "images" / "a.png").rename(folders / "COVID" / "images" / ("n" * 255))
    index = build_index(folders)
    assert len(index.records) == 7
    save_index(index, folders / "index.csv")
    assert load_index(folders / "index.csv").records == index.records


def test_a_mask_of_another_suffix_is_matched_by_stem(folders: Path) -> None:
    draw_mask(folders / "COVID" / "masks" / "COVID-1.bmp")
    assert build_index(folders).records[1].mask_path == folders / "COVID/masks/COVID-1.bmp"


def test_masks_without_image_and_empty_class_folders_are_named(folders: Path) -> None:
    draw_mask(folders / "COVID" / "masks" / "COVID-9.png")
    (folders / "Empty").mkdir()
    index = build_index(folders)
    assert checks(index) == {"mask_without_image": "warning", "empty_class": "warning"}
    assert index.findings[0].records == ("COVID/masks/COVID-9.png",)
    assert len(index.records) == 6
    with pytest.raises(DataError, match="Empty"):
        build_index(folders, classes=["COVID", "Empty"])


def test_only_the_classes_asked_for(folders: Path) -> None:
    index = build_index(folders, classes=["COVID"])
    assert index.class_names == ("COVID",)
    assert index.left_out == {"Normal": 3}
    with pytest.raises(DataError, match=r"Covid\b.*COVID, Normal"):
        build_index(folders, classes=["Covid"])


@pytest.mark.parametrize("make", ["absent", "empty", "flat", "flat_with_masks", "file", "no_images"])
def test_what_is_no_data_set_is_refused_with_the_layout(tmp_path: Path, make: str) -> None:
    data = tmp_path / "data"
    if make != "absent":
        data.mkdir()
    if make == "flat":
        draw(data / "1.png")
    if make == "flat_with_masks":
        draw(data / "images" / "1.png")
        draw_mask(data / "masks" / "1.png")
    if make == "file":
        data = draw(data / "1.png")
    if make == "no_images":
        write_table(data / "COVID" / "notes.txt", "nothing")
    with pytest.raises(DataError) as caught:
        build_index(data)
    assert str(data) in str(caught.value)
    assert make == "absent" or "DATA/<class>/images" in str(caught.value)


def test_csv_paths_start_at_its_folder_and_empty_cells_are_unknown(folders: Path) -> None:
    table = write_table(
        folders / "tables" / "some.csv",
        "image,mask,label,group,source,split,age",
        "../COVID/images/COVID-0.png,../COVID/masks/COVID-0.png,COVID,p1,here,train,70",
        f"{folders}/Normal/images/Normal-0.png,,,,,,",
        ",,,,,,",
        encoding="utf-8-sig",
    )
    first, second = build_index(table).records
    assert (first.label, first.group, first.source, first.split) == ("COVID", "p1", "here", "train")
    assert first.mask_path == folders / "COVID/masks/COVID-0.png"
    assert second.image_path == folders / "Normal/images/Normal-0.png"
    assert (second.mask_path, second.label, second.group, second.source, second.split) == (None,) * 5


def test_metadata_csv_is_used_only_with_an_image_column(folders: Path) -> None:
    write_table(folders / "metadata.csv", "patient,age", "1,70")
    assert len(build_index(folders).records) == 6
    write_table(folders / "metadata.csv", "image,label", "COVID/images/COVID-0.png,COVID")
    index = build_index(folders)
    assert len(index.records) == 1
    assert checks(index) == {"index_source": "info", "unlisted_image": "info"}
    assert len(index.findings[1].records) == 5
    assert checks(build_index(folders / "metadata.csv")) == {}  # a table alone may lie in any folder


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "a.png,COVID"], "`image` column.*file, label"),
        (["image,split", "a.png,train", "b.png,validation"], "line 3, got 'validation'"),
        (["image", "a.png", "./a.png"], "lines 2 and 3"),
        (["image,label", ",COVID"], "line 2"),
        (["image,label", "a.png,COVID,p1"], "line 2 has more cells"),
        (["image"], "no rows"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_index(write_table(tmp_path / "index.csv", *lines))


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="UTF-8"):
        build_index(write_table(tmp_path / "index.csv", "image", "Lunge-rückseite.png", encoding="latin-1"))


def test_missing_files_of_a_csv_are_left_out_and_named(folders: Path) -> None:
    table = write_table(
        folders / "index.csv",
        "image,mask,label",
        "COVID/images/COVID-0.png,COVID/masks/none.png,COVID",
        "COVID/images/none.png,,COVID",
    )
    index = build_index(table, check=False)
    assert checks(index) == {"missing_file": "error", "missing_mask": "warning"}
    assert [record.mask_path for record in index.records] == [None]


def test_a_bad_file_is_left_out_but_nothing_left_is_an_error(folders: Path) -> None:
    (folders / "COVID/images/COVID-0.png").write_text("not an image")
    index = build_index(folders)
    assert len(index.records) == 5
    assert checks(index) == {"unreadable_image": "error"}
    for path in folders.glob("COVID/images/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"of class COVID.*Images are empty.*\(3\)"):
        build_index(folders, classes=["COVID"])
    assert build_index(folders).class_names == ("Normal",)


def test_saved_and_loaded_the_index_is_the_same(folders: Path, tmp_path: Path) -> None:
    index = build_index(folders)
    for path in (folders / "index.csv", tmp_path / "elsewhere" / "index.csv"):
        save_index(index, path)
        loaded = load_index(path)
        assert loaded.records == index.records
        assert loaded.digest == index.digest
        assert [loaded.key(record) for record in loaded.records] == [index.key(record) for record in index.records]
    with (folders / "index.csv").open() as stream:
        assert next(csv.DictReader(stream))["image"] == "COVID/images/COVID-0.png"


def test_the_digest_is_that_of_the_rows_not_of_the_place(folders: Path, tmp_path: Path) -> None:
    before = build_index(folders, check=False).digest
    moved = folders.rename(tmp_path / "moved")
    assert build_index(moved, check=False).digest == before
    (moved / "COVID/masks/COVID-0.png").unlink()
    assert build_index(moved, check=False).digest != before


def _with_targets(folders: Path) -> Path:
    draw_mask(folders / "COVID" / "regions" / "COVID-0.png")
    return write_table(
        folders / "targets.csv",
        "image,mask,label,region,boxes",
        "COVID/images/COVID-0.png,COVID/masks/COVID-0.png,COVID,COVID/regions/COVID-0.png,",
        'COVID/images/COVID-1.png,,COVID,,"[[0.1, 0.2, 0.30000000000000004, 0.4], [0, 0, 1, 1]]"',
        "Normal/images/Normal-0.png,,Normal,,[]",
    )


def test_regions_and_boxes_are_read_and_saved(folders: Path, tmp_path: Path) -> None:
    index = build_index(_with_targets(folders))
    first, second, third = index.records
    assert (first.region_path, first.boxes) == (folders / "COVID/regions/COVID-0.png", ())
    assert (second.region_path, second.boxes) == (None, ((0.1, 0.2, 0.30000000000000004, 0.4), (0.0, 0.0, 1.0, 1.0)))
    assert (third.region_path, third.boxes) == (None, ())
    for path in (folders / "index.csv", tmp_path / "elsewhere" / "index.csv"):
        save_index(index, path)
        assert load_index(path).records == index.records
    with (folders / "index.csv").open() as stream:
        assert next(csv.DictReader(stream))["region"] == "COVID/regions/COVID-0.png"


def test_regions_and_boxes_change_no_digest_and_no_cache(folders: Path, tmp_path: Path) -> None:
    table = _with_targets(folders)
    index = build_index(table)
    plain = write_table(
        folders / "plain.csv",
        "image,mask,label",
        *(",".join(line.split(",")[:3]) for line in table.read_text().splitlines()[1:]),
    )
    bare = build_index(plain)
    assert index.records != bare.records
    assert index.digest == bare.digest
    caches = [open_cache(each.records, PreprocessSpec(size=32), tmp_path / "cache") for each in (index, bare)]
    assert caches[0].path == caches[1].path
    assert len(caches[0].masks) == 1
    given = []
    for each in (index, bare):  # one class, an image of it in each split
        rows = zip(each.records, SPLIT_NAMES, strict=True)
        moved = tuple(replace(record, label="COVID", split=split) for record, split in rows)
        given.append(replace(each, records=moved, class_names=("COVID",)))
    assert make_split(given[0], SplitConfig()).digest == make_split(given[1], SplitConfig()).digest
    # What the version before these columns gave; the digest names runs and splits that are already there.
    cells = [[index.key(r), *_before(r.mask_path, r.label)] for r in index.records]
    assert cells[0] == ["COVID/images/COVID-0.png", "COVID/masks/COVID-0.png", "COVID", None, None, None]
    assert index.digest == hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _before(mask: Path | None, label: str | None) -> list[str | None]:
    return ["COVID/masks/COVID-0.png" if mask else None, label, None, None, None]


def _read_twice(folders: Path) -> Path:
    """A table with a second reader's label and mask, and columns of its own."""
    draw_mask(folders / "second.png")
    return write_table(
        folders / "twice.csv", "image,label,label_2,mask_2,Age,site",
        "COVID/images/COVID-0.png,COVID,Normal,second.png,45,x", "COVID/images/COVID-1.png,COVID,,,,y",
        "Normal/images/Normal-0.png,Normal,Normal,absent.png,7,",
    )  # fmt: skip


def test_a_second_reader_and_other_columns_are_read_and_saved(folders: Path, tmp_path: Path) -> None:
    index = build_index(_read_twice(folders))
    first, second, third = index.records
    assert (first.second_label, first.second_mask_path) == ("Normal", folders / "second.png")
    assert first.columns == (("age", "45"), ("site", "x"))
    assert (second.second_label, second.second_mask_path, second.columns) == (None, None, (("site", "y"),))
    assert (third.second_mask_path, third.columns) == (None, (("age", "7"),))
    assert checks(index)["missing_second_mask"] == "warning"
    save_index(index, tmp_path / "index.csv")
    header = (tmp_path / "index.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "image,mask,label,group,source,split,region,boxes,label_2,mask_2,age,site"
    again = load_index(tmp_path / "index.csv")
    assert again.records == index.records
    names = ("COVID/images/COVID-0.png,COVID", "COVID/images/COVID-1.png,COVID", "Normal/images/Normal-0.png,Normal")
    plain = write_table(folders / "plain.csv", "image,label", *names)
    assert build_index(plain).digest == index.digest  # training does not use these columns


def test_a_second_mask_that_does_not_fit_is_not_used(folders: Path) -> None:
    table = _read_twice(folders)
    draw_mask(folders / "second.png", shape=(48, 80))
    index = build_index(table)
    assert index.records[0].second_mask_path is None
    assert checks(index)["second_mask_aspect"] == "warning"
    (folders / "second.png").write_bytes(b"no image")
    assert checks(build_index(table))["unreadable_second_mask"] == "warning"


@pytest.mark.parametrize(
    "cell",
    [
        "none",
        "0.1 0.2 0.3 0.4",
        "[0.1, 0.2, 0.3, 0.4]",
        "[[0.1, 0.2, 0.3]]",
        "[[0.1, 0.2, 0.3, 0.4, 0.5]]",
        '[[0.1, 0.2, 0.3, "wide"]]',
        "[[0.1, 0.2, 0.3, null]]",
        "[[0.1, 0.2, 0.3, NaN]]",
        "[[0.1, 0.2, 0.3, 1" + "0" * 400 + "]]",
        "[" * 100_000,
        "7",
        "[[0.1, 0.2, 0.3, 0]]",
        "[[-0.1, 0.2, 0.3, 0.4]]",
        "[[12, 20, 30, 40]]",
        "[[0.5, 0, 0.9, 0.1]]",
        "[[0, 0.5, 0.1, 0.9]]",
    ],
)
def test_malformed_boxes_name_the_line(tmp_path: Path, cell: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    with pytest.raises(DataError, match=r"index\.csv, line 3"):
        build_index(write_table(tmp_path / "index.csv", "image,boxes", "a.png,", f"b.png,{quoted}"))


def test_a_box_may_end_a_pixel_outside(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    table = write_table(tmp_path / "index.csv", "image,boxes", 'a.png,"[[0.5, 0.5, 0.505, 0.505]]"')
    assert build_index(table).records[0].boxes == ((0.5, 0.5, 0.505, 0.505),)


def test_an_absent_region_is_named_and_the_record_stays(folders: Path) -> None:
    table = _with_targets(folders)
    (folders / "COVID/regions/COVID-0.png").unlink()
    (folders / "COVID/masks/COVID-0.png").unlink()
    index = build_index(table)
    assert checks(index) == {"missing_mask": "warning", "missing_region": "warning"}
    assert len(index.records) == 3
    assert (index.records[0].mask_path, index.records[0].region_path) == (None, None)
    assert "COVID-0.png" in index.findings[1].message


def test_the_regions_of_phantoms_are_picked_up(phantoms: Path) -> None:
    records = build_index(phantoms, check=False).records
    assert len(records) == 48
    for record in records:
        assert record.region_path == record.image_path.parents[1] / "regions" / record.image_path.name
        assert read_mask(record.region_path).any() == (record.label != "Normal")


def test_progress_counts_up_to_all(folders: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_index(folders, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the radiographs are not here")
def test_the_real_radiographs() -> None:
    classes = ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"]
    index = build_index(SHARED / "metadata.csv", classes=classes, check=False)
    assert len(index.records) == 18_213
    assert index.left_out == {"Other": 256}
    assert sum(record.mask_path is not None for record in index.records) == 3_440
    assert sum(record.region_path is not None for record in index.records) == 44
    assert sum(bool(record.boxes) for record in index.records) == 71
    split = make_split(index, SplitConfig())
    assert split.origin == "given"
    assert sum(split.counts["test"].values()) == 2_705


def test_a_limit_draws_whole_groups(tmp_path: Path) -> None:
    rows = [f"{draw(tmp_path / f'{row}.png', seed=row).name},{'AB'[row % 2]},patient-{row // 3}" for row in range(12)]
    table = write_table(tmp_path / "table.csv", "image,label,group", *rows)
    drawn = build_index(table, limit=7, seed=1)
    groups = [record.group for record in drawn.records]
    assert len(groups) == 6
    assert {groups.count(name) for name in groups} == {3}
    assert drawn.digest == build_index(table, limit=7, seed=1).digest
    assert build_index(table, limit=99).records == build_index(table).records


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "Val", "test"):
        draw(tmp_path / split / "images" / "a.png")
    with pytest.raises(DataError, match="Val"):
        build_index(tmp_path)
