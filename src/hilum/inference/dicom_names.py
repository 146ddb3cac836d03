"""UIDs, codes and equipment attributes of the DICOM objects that hilum writes.

Class names are chosen by users and have private codes; the same name has the same code in every bundle.
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
"""Part of every UID. Increment it when the objects for the same image and bundle change."""
_LONGEST = 64


def instance_uid(source_sop_uid: str, bundle_id: str, kind: Kind, settings: str = "") -> str:
    """Return the SOP instance UID of an object, a function of the arguments.

    Args:
        source_sop_uid: SOP instance UID of the image.
        bundle_id: The bundle that predicts.
        kind: ``seg`` or ``sr``.
        settings: Predictor.settings, since other settings may give another result.
    """
    return _uid("instance", source_sop_uid, bundle_id, kind, *filter(None, [settings]))


def series_uid(source_sop_uid: str, bundle_id: str, kind: Kind, settings: str = "") -> str:
    """Return the series instance UID of an object; each object has its own series. See instance_uid."""
    return _uid("series", source_sop_uid, bundle_id, kind, *filter(None, [settings]))


def tracking_uid(source_sop_uid: str, bundle_id: str, what: str, settings: str = "") -> str:
    """Return the tracking UID of one item of an object, named ``what``. See instance_uid."""
    return _uid("tracking", source_sop_uid, bundle_id, what, *filter(None, [settings]))


def device_uid(bundle_id: str) -> str:
    """Return the device UID of a bundle as the observer of a report."""
    return _uid("device", bundle_id)


def own_code(value: str, meaning: str) -> Code:
    """Return a code of hilum's private scheme; ``value`` has at most 16 characters."""
    return Code(value, SCHEME, long_string(meaning))


def class_code(name: str, what: Literal["class", "evidence", "probability"] = "class") -> Code:
    """Return the code of a class, of its evidence, or of its probability."""
    meaning = {"class": "{}", "evidence": "Evidence for {}", "probability": "Probability of {}"}[what].format(name)
    return own_code(f"{what[0].upper()}{sha256_text(name)[:15]}", meaning)


def long_string(text: str) -> str:
    """Return text that is valid for the value representation LO: no backslash or control character, at most 64 bytes.

    The standard limits characters, but common validators count bytes of UTF-8.
    """
    plain = "".join(character if character.isprintable() else " " for character in text.replace("\\", "/")).strip()
    if len(plain.encode("utf-8", "replace")) <= _LONGEST:
        return plain
    return plain.encode("utf-8", "replace")[: _LONGEST - 3].decode("utf-8", "ignore") + "..."


def coding_schemes() -> list[CodingSchemeIdentificationItem]:
    """Return the identification of hilum's private coding scheme."""
    return [CodingSchemeIdentificationItem(SCHEME, name="hilum: classes of a model, and what it says of an image")]


def made_by(source: Dataset, manifest: Manifest, kind: Kind, settings: str) -> dict[str, Any]:
    """Return the constructor arguments of highdicom that both kinds of objects share."""
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
    """Return the algorithm's version: that of hilum, and the start of the bundle_id."""
    return f"{__version__} bundle {manifest.bundle_id[:16] or 'unsealed'}"


def _uid(*parts: str) -> str:
    return str(UID(generate_uid(entropy_srcs=[f"hilum-dicom-{_FORMAT}", *(f"|{part}" for part in parts)])))
