"""The header that DICOM objects are made of: what is kept, completed and refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from dicom_images import content_of, phantom_image, with_stored, write_image
from image_writing import encode
from PIL import Image
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.errors import ReadError
from hilum.inference.dicom_source import source_header

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def header_of(**elements: Any) -> Dataset:
    return source_header(content_of(phantom_image(0, size=32, **elements)))


def test_the_header_has_everything_but_the_pixels(tmp_path: Path) -> None:
    image = phantom_image(0, size=32)
    header = source_header(write_image(tmp_path / "image.dcm", image))
    assert "PixelData" not in header
    assert header.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID == header.SOPInstanceUID
    assert (header.Rows, header.Columns, header.ViewPosition) == (32, 32, "PA")
    assert header.ViewCodeSequence[0].CodeValue == "399348003"
    assert header.SpecificCharacterSet == "ISO_IR 192"
    assert header == source_header(content_of(image))


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (None, "Plain^Name"),
        ("ISO_IR 100", "Förster^Jürgen^^Dr."),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], JAPANESE),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_are_the_same_in_utf_8(character_set: Any, name: str) -> None:
    header = header_of(SpecificCharacterSet=character_set, PatientName=name)
    assert str(header.PatientName) == name
    again = io.BytesIO()
    header.save_as(again, implicit_vr=False, little_endian=True)
    assert name.encode() in again.getvalue()


def test_text_inside_sequences_is_in_utf_8_too() -> None:
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 100"
    item.CodeMeaning = "Größe"
    header = header_of(SpecificCharacterSet="ISO_IR 144", ProcedureCodeSequence=Sequence([item]), PatientName="a")
    assert header.ProcedureCodeSequence[0].CodeMeaning == "Größe"
    assert "SpecificCharacterSet" not in header.ProcedureCodeSequence[0]


def test_what_is_missing_is_there_and_empty() -> None:
    needed = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate")
    header = header_of(**dict.fromkeys((*needed, "StudyTime", "ReferringPhysicianName", "Modality")))
    assert all(header[keyword].is_empty for keyword in (*needed, "StudyTime", "ReferringPhysicianName"))
    assert header.Modality == "OT"


@pytest.mark.parametrize(
    ("keyword", "stored", "kept"),
    [
        ("StudyDate", b"20261301", ""),
        ("StudyDate", b"2026.01.", ""),
        ("StudyDate", b"2026.01.31", "20260131"),
        ("StudyTime", b"10:15 ", "1015"),
        ("StudyTime", b"101599", ""),
        ("PatientBirthDate", b"unknown ", ""),
        ("PatientSex", b"f ", "F"),
        ("PatientSex", b"? ", ""),
        ("PatientSex", b"X ", ""),
        ("PatientAge", b"47", None),
        ("PatientID", b"x" * 80, "x" * 80),
    ],
)
def test_malformed_values_count_as_absent_but_not_identifiers(keyword: str, stored: bytes, kept: str | None) -> None:
    header = source_header(content_of(with_stored(phantom_image(0, size=32), keyword, stored)))
    assert header.get(keyword) == kept


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_image_that_nothing_can_refer_to_is_refused(keyword: str) -> None:
    image = phantom_image(0, size=32)
    content = content_of(with_stored(image, keyword, b""))
    with pytest.raises(ReadError, match=f"image .*{keyword}") as caught:
        source_header(content, "image")
    assert "UIDs" in caught.value.hint


def test_other_formats_and_damaged_files_are_refused(tmp_path: Path) -> None:
    png = tmp_path / "image.png"
    png.write_bytes(encode(Image.new("L", (32, 32))))
    with pytest.raises(ReadError, match=r"image\.png.* DICOM"):
        source_header(png)
    with pytest.raises(ReadError):
        source_header(content_of(phantom_image(0, size=32))[:200], "cut")
    with pytest.raises(ReadError, match="exist"):
        source_header(tmp_path / "absent.dcm")


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_other_transfer_syntaxes(syntax: str) -> None:
    image = phantom_image(0, size=32)
    image.file_meta.TransferSyntaxUID = syntax
    header = source_header(content_of(image))
    assert header.SOPInstanceUID == image.SOPInstanceUID
    assert str(header.PatientName) == "Phantom^Förster"


def test_a_frame_of_reference_is_kept_only_with_a_place_in_it() -> None:
    assert "FrameOfReferenceUID" not in header_of(FrameOfReferenceUID="1.2.3")
    placed = header_of(
        FrameOfReferenceUID="1.2.3",
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[1, 1],
    )
    assert placed.FrameOfReferenceUID == "1.2.3"


def test_private_and_binary_elements_are_left_out() -> None:
    image = phantom_image(0, size=32)
    image.private_block(0x0011, "someone", create=True).add_new(1, "LO", "secret")
    image.ICCProfile = b"\0" * 16
    header = source_header(content_of(image))
    assert not [element for element in header if element.tag.is_private]
    assert "ICCProfile" not in header
