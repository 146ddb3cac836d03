"""What the objects that hilum makes are called: their UIDs, their codes, and the maker's names.

Class names are the user's, so they have private codes: the same name has the same code in every bundle.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, generate_uid

from hilum._version import __version__
from hilum.bundle.bundle import Manifest
from hilum.storage import sha256_text

Kind: TypeAlias = Literal["seg", "sr"]

SCHEME = "99HILUM"
NOT_A_DEVICE = "Made by a research tool, not a medical device; not for diagnosis."

_FORMAT = 2
"""Goes into every UID: to be raised when the objects made of the same image and bundle change."""
_LONGEST = 64


def instance_uid(source_sop_uid: str, bundle_id: str, kind: Kind, settings: str = "") -> str:
    """The SOP instance UID of the object of ``kind`` that this bundle makes of this image: always the same.

    ``settings`` are those of the predictor (Predictor.settings): other ones may give another answer.
    """
    return _uid("instance", source_sop_uid, bundle_id, kind, *filter(None, [settings]))


def series_uid(source_sop_uid: str, bundle_id: str, kind: Kind, settings: str = "") -> str:
    """The series instance UID that goes with it; each object has a series of its own."""
    return _uid("series", source_sop_uid, bundle_id, kind, *filter(None, [settings]))


def tracking_uid(source_sop_uid: str, bundle_id: str, what: str, settings: str = "") -> str:
    """The UID of one thing that an object holds."""
    return _uid("tracking", source_sop_uid, bundle_id, what, *filter(None, [settings]))


def device_uid(bundle_id: str) -> str:
    """The UID of a bundle as an observer."""
    return _uid("device", bundle_id)


def own_code(value: str, meaning: str) -> Code:
    """A code of hilum's own scheme; ``value`` has at most 16 characters."""
    return Code(value, SCHEME, long_string(meaning))


def class_code(name: str, what: Literal["class", "evidence", "probability"] = "class") -> Code:
    """The code of a class, or of what belongs to it."""
    meaning = {"class": "{}", "evidence": "Evidence for {}", "probability": "Probability of {}"}[what].format(name)
    return own_code(f"{what[0].upper()}{sha256_text(name)[:15]}", meaning)


def long_string(text: str) -> str:
    """``text`` as the value representation LO takes it: no backslash, no control characters, at most 64 bytes of UTF-8.

    The standard counts characters, but what reads and checks objects counts bytes.
    """
    plain = "".join(character if character.isprintable() else " " for character in text.replace("\\", "/")).strip()
    if len(plain.encode("utf-8", "replace")) <= _LONGEST:
        return plain
    return plain.encode("utf-8", "replace")[: _LONGEST - 3].decode("utf-8", "ignore") + "..."


def coding_schemes() -> list[CodingSchemeIdentificationItem]:
    """What ``SCHEME`` is, for the object that uses it."""
    return [CodingSchemeIdentificationItem(SCHEME, name="hilum: classes of a model, and what it says of an image")]


def made_by(source: Dataset, manifest: Manifest, kind: Kind, settings: str) -> dict[str, Any]:
    """What both objects have alike, as highdicom's constructors take it."""
    source_uid, bundle_id = str(source.SOPInstanceUID), manifest.bundle_id
    return {
        "series_instance_uid": series_uid(source_uid, bundle_id, kind, settings),
        "sop_instance_uid": instance_uid(source_uid, bundle_id, kind, settings),
        "instance_number": 1,
        "manufacturer": "hilum",
        "manufacturer_model_name": long_string(manifest.name) or "hilum",
        "software_versions": version(manifest),
        "device_serial_number": bundle_id or "unsealed",
        "coding_schemes": coding_schemes(),
    }


def version(manifest: Manifest) -> str:
    """Version of the algorithm: that of hilum, and the start of the bundle's identifier."""
    return f"{__version__} bundle {manifest.bundle_id[:16] or 'unsealed'}"


def _uid(*parts: str) -> str:
    return str(UID(generate_uid(entropy_srcs=[f"hilum-dicom-{_FORMAT}", *(f"|{part}" for part in parts)])))
