"""Which files a folder gives, by suffix or content, and that everything else is counted and named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_writing import content_of, dataset_of
from PIL import Image

from hilum.data.find import PARTIAL, TABLE, FoundImages, find_images, sample_files
from hilum.errors import DataError
from hilum.imaging.read import SNIFFED_BYTES, read_radiograph, sniff

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def counts(found: FoundImages) -> dict[str, int]:
    return {finding.check: len(finding.records) for finding in found.skipped}


def names(found: FoundImages, check: str) -> list[str]:
    return [name for finding in found.skipped if finding.check == check for name in finding.records]


# Folders


def test_a_folder_gives_its_images_at_every_depth_sorted(tmp_path: Path) -> None:
    wanted = [tmp_path / name for name in ("a.png", "b/c.JPG", "b/d/e.dcm", "b/d/f.tiff", "z.webp")]
    others = [tmp_path / name for name in ("b/table.csv", "noext", "notes.txt")]
    touch(*wanted, *others)
    for given in (tmp_path, str(tmp_path), [tmp_path], iter([tmp_path])):
        found = find_images(given)
        assert list(found) == wanted
        assert names(found, "not_image") == [str(path) for path in others]
    assert (found[0], found[-1], found[1:3], len(found)) == (wanted[0], wanted[4], tuple(wanted[1:3]), 5)


def test_the_order_is_that_of_sorted_paths(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a/z.png", "a.png", "a-b/c.png", "B.png", "a b.png", "ä.png", "a/b/c.png")))
    assert list(find_images(tmp_path)) == sorted(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name", ["IM000001", "1.2.840.113619.2.5", "image.ima", "image.txt", "dicom"])
def test_dicom_is_found_under_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "DICOM" / "ST000000" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content_of(dataset_of(PIXELS, 8)))
    (path.parent / "IM000002.txt").write_bytes(b"DICM")
    found = find_images(tmp_path)
    assert list(found) == [path]
    assert counts(found) == {"not_image": 1}
    np.testing.assert_array_equal(read_radiograph(path).pixels, PIXELS * np.uint16(257))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_without_their_suffix_are_found(tmp_path: Path, suffix: str, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / f"image{suffix}")
    path = (tmp_path / f"image{suffix}").rename(tmp_path / "image")
    assert list(find_images(tmp_path)) == [path]
    assert read_radiograph(path).pixels.shape == (8, 8)


@pytest.mark.parametrize("head", [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"])
def test_tiff_and_big_tiff_of_either_byte_order_are_images(head: bytes) -> None:
    assert sniff(head + bytes(60)) == "image"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BMI,age\n24,70\n",
        b"BM" + bytes(130),
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"GIF89a",
        b"%PDF-1.7",
        b"PK\x03\x04",
        bytes(132),
    ],
)
def test_other_content_is_no_image(content: bytes) -> None:
    assert sniff(content[:SNIFFED_BYTES]) is None


def test_a_dicomdir_is_passed_over_and_named(tmp_path: Path) -> None:
    content = content_of(dataset_of(PIXELS, 8))
    for name in ("DICOMDIR", "IM1"):
        (tmp_path / name).write_bytes(content)
    found = find_images(tmp_path)
    assert list(found) == [tmp_path / "IM1"]
    assert names(found, "dicomdir") == [str(tmp_path / "DICOMDIR")]


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    hidden = [tmp_path / name for name in (".a.png", ".thumbnails/b.png", "x/.y/z/c.png")]
    touch(*hidden, tmp_path / "d.png")
    found = find_images(tmp_path)
    assert list(found) == [tmp_path / "d.png"]
    assert names(found, "hidden") == [str(tmp_path / name) for name in (".a.png", ".thumbnails", "x/.y")]
    assert list(find_images(tmp_path / ".thumbnails")) == [hidden[1]]  # named, it is searched


def test_masks_beside_images_are_passed_over_and_others_are_not(tmp_path: Path) -> None:
    touch(*(tmp_path / "Normal" / name for name in ("images/a.png", "masks/a.png", "masks/b/c.png", "regions/a.png")))
    touch(tmp_path / "party" / "masks" / "venice.png")
    found = find_images(tmp_path)
    assert list(found) == [tmp_path / "Normal" / "images" / "a.png", tmp_path / "party" / "masks" / "venice.png"]
    assert counts(found) == {"masks": 3}
    assert len(find_images(tmp_path / "Normal" / "masks")) == 2


@pytest.mark.parametrize("table", [TABLE, PARTIAL])
def test_outputs_of_an_earlier_prediction_are_passed_over(tmp_path: Path, table: str) -> None:
    touch(tmp_path / "a.png", tmp_path / "out" / table, tmp_path / "out" / "c.png")
    touch(tmp_path / "out" / "overlays" / "deep" / "a.png", tmp_path / "out" / "masks" / "a.png")
    objects = tmp_path / "out" / "dicom"
    touch(tmp_path / "out" / "evidence" / "a.png", objects / "b" / "a.seg.dcm", objects / "a.sr.dcm")
    found = find_images([tmp_path])
    assert list(found) == [tmp_path / "a.png", tmp_path / "out" / "c.png"]
    assert counts(found) == {"outputs": 6}
    images = [
        tmp_path / "dicom" / "b.seg.dcm",
        objects / "image.dcm",
    ]  # elsewhere, and an image in a folder of that name
    touch(*images)
    assert list(find_images([tmp_path])) == [tmp_path / "a.png", images[0], tmp_path / "out" / "c.png", images[1]]
    named = tmp_path / "out" / "overlays"
    assert list(find_images([named])) == [named / "deep" / "a.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="no links, pipes and modes as here")
def test_links_and_what_is_no_file(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "a.png", tmp_path / "in" / "b.png")
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "store" / "a.png")
    (tmp_path / "in" / "broken.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "in")  # in a circle, if it were followed
    (tmp_path / "in" / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    os.mkfifo(tmp_path / "in" / "pipe")
    found = find_images(tmp_path / "in")
    assert [path.name for path in found] == ["a.png", "b.png"]
    assert counts(found) == {"linked_folder": 1, "not_file": 3, "unreadable": 1}
    assert {finding.severity for finding in found.skipped} == {"warning"}
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "store")
    assert list(find_images(link)) == [link / "a.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="no modes as here")
def test_what_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.png", tmp_path / "locked" / "b.png", tmp_path / "secret")
    real = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)  # a mode of 0 does not keep root out
    found = find_images(tmp_path)
    assert list(found) == [tmp_path / "a.png"]
    assert names(found, "unreadable") == [str(tmp_path / "locked")]
    with pytest.raises(DataError) as caught:
        find_images(tmp_path / "locked")
    assert str(tmp_path / "locked") in caught.value.message


def test_a_tree_deeper_than_the_stack(tmp_path: Path) -> None:
    depth = 1300
    code = f"import os\nfor _ in range({depth}): os.mkdir('d'); os.chdir('d')\nopen('a.png', 'w').close()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    try:
        assert [path.name for path in find_images(tmp_path)] == ["a.png"]
    finally:  # pytest's own clean-up, in a later session, would exceed the stack and fail that session
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_names_that_are_not_utf_8_can_be_told(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    try:
        touch(tmp_path / os.fsdecode(b"r\xf6ntgen.png"), tmp_path / os.fsdecode(b"n\xf6.txt"))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    found = find_images(tmp_path)
    assert len(found) == 2
    found.skipped[0].message.encode()
    assert names(found, "not_image") == [f"{tmp_path}/n\\udcf6.txt"]


# Files and patterns


def test_patterns(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a1.png", "a2.png", "a3.jpg", "b/a4.png", "b/c/a5.png", "a[1].png")))
    assert list(find_images(f"{tmp_path}/a?.png")) == [tmp_path / "a1.png", tmp_path / "a2.png"]
    assert list(find_images(f"{tmp_path}/a[23].*")) == [tmp_path / "a2.png", tmp_path / "a3.jpg"]
    assert list(find_images(f"{tmp_path}/b/**/*.png")) == [tmp_path / "b/a4.png", tmp_path / "b/c/a5.png"]
    assert list(find_images(tmp_path / "a[1].png")) == [tmp_path / "a[1].png"]  # a file of that name goes first


def test_a_relative_pattern_starts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert list(find_images("*.png")) == [Path("a.png")]


def test_each_file_once_in_the_order_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "b.png", tmp_path / "a.png", tmp_path / "sub" / "c.png")
    monkeypatch.chdir(tmp_path)
    found = find_images(["b.png", ".", tmp_path / "a.png", "sub/../b.png", "./sub/c.png"])
    assert list(found) == [Path("b.png"), Path("a.png"), Path("sub/c.png")]


def test_a_file_that_is_named_is_taken_whatever_it_is(tmp_path: Path) -> None:
    given = [tmp_path / "letter.txt", tmp_path / ".hidden.png"]
    touch(*given)
    assert find_images(given) == FoundImages(tuple(given))


@pytest.mark.parametrize("name", ["absent", "absent.png", "empty", "*.png", "texts", "image.png", "n" * 300, "a\0b"])
def test_what_names_no_image_is_a_data_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "image.png").mkdir()  # a folder with the name of a file; no file matches *.png
    touch(tmp_path / "texts" / "a.txt", tmp_path / "image.jpg")
    with pytest.raises(DataError) as caught:
        find_images([tmp_path / "image.jpg", tmp_path / name])
    assert name in caught.value.message
    assert ("a.txt" in caught.value.message) == (name == "texts")


def test_an_empty_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for given in ("", ["a.png", ""]):
        with pytest.raises(DataError):
            find_images(given)
    assert list(find_images(".")) == [Path("a.png")]


def test_samples_are_a_function_of_the_seed() -> None:
    files = [Path(f"{number:03d}.png") for number in range(100)]
    one = sample_files(files, 10, seed=1)
    assert one == sample_files(files, 10, seed=1) == sorted(one)
    assert len(set(one)) == 10
    assert one != sample_files(files, 10, seed=2)
    assert sample_files(files, 100) == sample_files(files, 500) == files


def test_a_pattern_accounts_for_folders_and_broken_links(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "x.png")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    found = find_images(str(tmp_path / "*"))
    assert list(found) == [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    assert counts(found) == {"not_file": 1}


def test_a_pattern_takes_no_masks_and_no_outputs(tmp_path: Path) -> None:
    touch(*(tmp_path / "class" / folder / "x.png" for folder in ("images", "masks")))
    touch(tmp_path / "out" / "overlays" / "x.png")
    (tmp_path / "out" / TABLE).write_text("file\n")
    assert list(find_images(str(tmp_path / "class" / "*"))) == [tmp_path / "class" / "images" / "x.png"]
    assert list(find_images(str(tmp_path / "out" / "*"))) == [tmp_path / "out" / TABLE]  # a file that is named
