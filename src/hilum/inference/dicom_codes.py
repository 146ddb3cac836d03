"""Codes in the DICOM objects that hilum writes: standard ones for anatomy and common class names, else private ones.

Class names are chosen by users. A name in STANDARD_CLASSES gets its standard code, any other a private one that follows
from the name, so that a name has the same code in every bundle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from hilum.storage import sha256_text

SCHEME = "99HILUM"

RIGHT_LUNG = Code("3341006", "SCT", "Right lung")
LEFT_LUNG = Code("44029006", "SCT", "Left lung")
SIDE_CODES: Mapping[str, Code] = {"right": codes.SCT.Right, "left": codes.SCT.Left}
LEVEL_CODES: Mapping[str, Code] = {
    "upper": codes.SCT.UpperZoneOfLung,
    "middle": codes.SCT.MiddleZoneOfLung,
    "lower": codes.SCT.LowerZoneOfLung,
}
"""Zones of the lung, PS3.16 CID 6171."""

_COVID = Code("840539006", "SCT", "COVID-19")
_TUBERCULOSIS = Code("154283005", "SCT", "Pulmonary tuberculosis")
STANDARD_CLASSES: Mapping[str, Code] = {
    "atelectasis": Code("46621007", "SCT", "Atelectasis"),
    "bacterial pneumonia": Code("53084003", "SCT", "Bacterial pneumonia"),
    "cardiomegaly": Code("8186001", "SCT", "Cardiomegaly"),
    "consolidation": Code("95436008", "SCT", "Lung consolidation"),
    "covid": _COVID,
    "covid 19": _COVID,
    "covid19": _COVID,
    "edema": codes.SCT.PulmonaryEdema,
    "effusion": codes.SCT.PleuralEffusion,
    "ground glass opacity": codes.DCM.GroundGlassOpacity,
    "infiltration": codes.DCM.Infiltrate,
    "lung opacity": codes.DCM.Opacity,
    "normal": codes.SCT.Normal,
    "opacity": codes.DCM.Opacity,
    "pleural effusion": codes.SCT.PleuralEffusion,
    "pneumonia": Code("233604007", "SCT", "Pneumonia"),
    "pneumothorax": codes.SCT.Pneumothorax,
    "pulmonary edema": codes.SCT.PulmonaryEdema,
    "pulmonary tuberculosis": _TUBERCULOSIS,
    "tuberculosis": _TUBERCULOSIS,
    "viral pneumonia": Code("75570004", "SCT", "Viral pneumonia"),
}
"""Class name, in lower case with spaces for other separators, to its code in SNOMED CT (SCT) or DICOM (DCM)."""

_LONGEST = 64


def class_code(name: str) -> Code:
    """Return the code of a class: the standard one of STANDARD_CLASSES, else a private one."""
    return STANDARD_CLASSES.get(re.sub(r"[\s_-]+", " ", name).strip().lower()) or _private("class", name, name)


def probability_code(name: str) -> Code:
    """Return the private code of a class's probability; no standard has one."""
    return _private("probability", name, f"Probability of {name}")


def own_code(value: str, meaning: str) -> Code:
    """Return a code of hilum's private scheme; ``value`` has at most 16 characters."""
    return Code(value, SCHEME, long_string(meaning))


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
    return [CodingSchemeIdentificationItem(SCHEME, name="hilum: classes of a model, and results for an image")]


def _private(what: Literal["class", "probability"], name: str, meaning: str) -> Code:
    return own_code(f"{what[0].upper()}{sha256_text(name)[:15]}", meaning)
