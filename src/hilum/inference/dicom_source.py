"""Read the header of an image for the DICOM objects that refer to it, convert it to UTF-8 and complete it.

Malformed values, such as a date with month 13, are dropped, since archives reject objects that contain them. UIDs and
text are kept unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import DA, TM, validate_value

from hilum.errors import ReadError
from hilum.imaging.decoding import decoding
from hilum.imaging.dicom import LookUp, read_lut
from hilum.imaging.dicom_file import DICOM_ERRORS, PYDICOM_ERRORS
from hilum.imaging.read import read_dicom_header

UTF_8 = "ISO_IR 192"

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_LUTS = ("ModalityLUTSequence", "VOILUTSequence")
_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_CHECKED = ("AS", "CS", "DA", "DS", "DT", "IS", "TM")
_RAISE = 2  # pydicom.config.RAISE
_CHARACTER_SET = BaseTag(0x00080005)


def source_header(content: bytes | Path, origin: str = "") -> Dataset:
    """Return the header of a DICOM image for ``segmentation`` and ``report``.

    Text is converted from the file's character set to UTF-8; malformed, private and binary elements are left out, but
    for modality and VOI LUTs; required patient and study elements are added, empty if unknown.

    Args:
        content: Path or content of the file.
        origin: Name in messages; the path by default.

    Raises:
        ReadError: The file is not DICOM, is damaged, or lacks one of the four UIDs that identify an image.
    """
    name = origin or (str(content) if isinstance(content, Path) else "the DICOM file")
    raw = read_dicom_header(content, origin=name)
    if raw is None:
        raise ReadError(f"{name} is not a DICOM file.", hint="Use the file as exported.")
    with decoding(name, *PYDICOM_ERRORS):
        header = _cleaned(raw)
        for keyword in _LUTS:
            _keep_lut(raw, header, keyword)
        header.file_meta = FileMetaDataset(_cleaned(raw.file_meta)) if hasattr(raw, "file_meta") else FileMetaDataset()
    missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
    if missing:
        raise ReadError(
            f"{name} has no {', '.join(missing)}, which is required to refer to an image.",
            hint="Export it from the archive again, or add UIDs.",
        )
    _complete(header)
    return header


def _complete(header: Dataset) -> None:
    header.SpecificCharacterSet = UTF_8
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = ""
    if not header.get("Modality"):
        header.Modality = "OT"
    # A frame of reference without a position, as in some projection images, is not usable.
    if "FrameOfReferenceUID" in header and not all(keyword in header for keyword in _PLANE):
        del header.FrameOfReferenceUID


def _cleaned(dataset: Dataset) -> Dataset:
    """Return a copy with the elements that can be converted and written again, including sequences."""
    kept = Dataset()
    for tag in sorted(dataset.keys()):
        if tag.is_private or tag.element == 0 or tag == _CHARACTER_SET:
            continue
        try:
            element = _element(dataset[tag])
        except DICOM_ERRORS:
            continue
        if element is not None:
            kept.add(element)
    return kept


def _keep_lut(raw: Dataset, header: Dataset, keyword: str) -> None:
    """Keep the first item of a LUT sequence, in little endian, without what is binary or ambiguous about it."""
    header.pop(keyword, None)
    try:
        item = raw[keyword][0]
        kept = lut_item(read_lut(item, little_endian=bool(raw.original_encoding[1])))
        if kind := str(item.get("ModalityLUTType") or ""):
            kept.ModalityLUTType = kind
    except DICOM_ERRORS:
        return
    setattr(header, keyword, Sequence([kept]))


def lut_item(look_up: LookUp) -> Dataset:
    """Return the item of a Modality or VOI LUT Sequence with this content, in little endian."""
    count, vr = look_up.table.size % 0x10000, "SS" if look_up.first < 0 else "US"
    if vr == "SS" and count > 0x7FFF:
        count -= 0x10000
    data = look_up.table.astype(np.uint8 if look_up.bits <= 8 else "<u2").tobytes()
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [count, look_up.first, look_up.bits])
    item.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    return item


def _element(element: DataElement) -> DataElement | None:
    """Return a copy of the element, None if it is empty or binary; raise one of DICOM_ERRORS if it is malformed."""
    vr, value = str(element.VR), element.value
    if vr == "SQ":
        return DataElement(element.tag, vr, Sequence([_cleaned(item) for item in value]))
    if element.is_empty or isinstance(value, bytes) or " or " in vr:
        return None
    values = list(value) if element.VM > 1 else [value]
    if vr == "PN":  # as text, since PersonName objects keep their original encoding
        values = [str(name) for name in values]
    elif vr in ("DA", "TM"):
        values = [_moment(vr, str(item)) for item in values]
    elif vr in _CHECKED:
        if element.keyword == "PatientSex":
            values = [str(item).upper() for item in values]
        for item in values:
            validate_value(vr, str(item), _RAISE)
    return DataElement(element.tag, vr, values if len(values) > 1 else values[0])


def _moment(vr: str, text: str) -> str:
    """Return a valid date or time, with the retired forms ``2026.01.31`` and ``10:15:00`` converted."""
    text = re.sub(r"^(\d{4})\.(\d\d)\.(\d\d)$", r"\1\2\3", text.strip())
    text = re.sub(r"^(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?$", r"\1\2\3", text)
    validate_value(vr, text, _RAISE)
    if (DA if vr == "DA" else TM)(text) is None:
        raise ValueError(f"an empty {vr}")
    return text
