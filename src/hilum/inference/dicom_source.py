"""The header of the image that DICOM objects are made of: read, brought to one character set, and completed.

Only what the standard allows is kept, since an object with a date of month 13 is refused by an archive: a value that
is malformed counts as absent. UIDs and text are kept as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import DA, TM, validate_value

from hilum.errors import ReadError
from hilum.imaging.decoding import DECODE_ERRORS, decoding
from hilum.imaging.read import read_dicom_header

UTF_8 = "ISO_IR 192"

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_CHECKED = ("AS", "CS", "DA", "DS", "DT", "IS", "TM")
_RAISE = 2  # pydicom.config.RAISE, whose module is heavy on globals
_CHARACTER_SET = BaseTag(0x00080005)


def source_header(content: bytes | Path, origin: str = "") -> Dataset:
    """The header of a DICOM image, for ``segmentation`` and ``report``.

    Text is decoded from the file's character set and declared as UTF-8, malformed and private elements and binary
    values are left out, and what patient and study must have in any object is there, if empty.

    Args:
        content: The file, or its bytes.
        origin: What to call it in messages; the path by default.

    Raises:
        ReadError: It is no DICOM file, is damaged, or lacks one of the four UIDs that name an image.
    """
    name = origin or (str(content) if isinstance(content, Path) else "the DICOM file")
    raw = read_dicom_header(content, origin=name)
    if raw is None:
        raise ReadError(f"Expected a DICOM file at {name}, got another format.", hint="Give the file as exported.")
    with decoding(name):
        header = _cleaned(raw)
        header.file_meta = FileMetaDataset(_cleaned(raw.file_meta)) if hasattr(raw, "file_meta") else FileMetaDataset()
    missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
    if missing:
        raise ReadError(
            f"Expected {', '.join(missing)} in the header of {name}, got none: nothing can refer to this image.",
            hint="Export it from the archive again, or give it UIDs.",
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
    # A frame of reference without a place in it, as some projection images have, places nothing.
    if "FrameOfReferenceUID" in header and not all(keyword in header for keyword in _PLANE):
        del header.FrameOfReferenceUID


def _cleaned(dataset: Dataset) -> Dataset:
    """A copy with what can be converted and written again, sequences included."""
    kept = Dataset()
    for tag in sorted(dataset.keys()):
        if tag.is_private or tag.element == 0 or tag == _CHARACTER_SET:
            continue
        try:
            element = _element(dataset[tag])
        except DECODE_ERRORS:
            continue
        if element is not None:
            kept.add(element)
    return kept


def _element(element: DataElement) -> DataElement | None:
    """The element with a value of its own, None where it is empty or binary; raises where it is malformed."""
    vr, value = str(element.VR), element.value
    if vr == "SQ":
        return DataElement(element.tag, vr, Sequence([_cleaned(item) for item in value]))
    if element.is_empty or isinstance(value, bytes) or " or " in vr:
        return None
    values = list(value) if element.VM > 1 else [value]
    if vr == "PN":  # as text: the object would go on in the encoding it was read in
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
    """A date or time; the older forms ``2026.01.31`` and ``10:15:00`` become today's."""
    text = re.sub(r"^(\d{4})\.(\d\d)\.(\d\d)$", r"\1\2\3", text.strip())
    text = re.sub(r"^(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?$", r"\1\2\3", text)
    validate_value(vr, text, _RAISE)
    if (DA if vr == "DA" else TM)(text) is None:
        raise ValueError(f"an empty {vr}")
    return text
