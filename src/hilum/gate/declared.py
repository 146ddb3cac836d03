"""What a DICOM header declares about an image: view, modality, body part, burned-in annotations.

Headers are often wrong or incomplete, so that each declaration only warns, and a missing one passes.
"""

from __future__ import annotations

from hilum.gate.verdict import Reading
from hilum.types import Radiograph

_FRONTAL_VIEWS = ("PA", "AP")
_MODALITIES = ("CR", "DX", "DR", "RG")
"""Computed and digital radiography, its name before DX, and scanned radiographs (PS3.3 C.7.3.1.1.1)."""
_CHEST = ("CHEST", "THORAX", "LUNG")  # PS3.16 CID 4, and values of devices: CHEST PA, THORAX AP


def is_chest(body_part: str) -> bool:
    """Return whether a DICOM body part examined is the chest, or none."""
    return not body_part or any(word in body_part.upper() for word in _CHEST)


def declared_readings(radiograph: Radiograph) -> tuple[Reading, ...]:
    """Return a measurement for each declaration of the header; those that fail are warnings.

    The checks are ``declared_view`` (View Position), ``declared_modality`` (Modality), ``declared_body_part`` (Body
    Part Examined) and ``declared_annotation`` (Burned In Annotation).
    """
    view, modality, part = radiograph.view_position, radiograph.modality, radiograph.body_part
    burned = radiograph.burned_in_annotation
    readings = (
        view
        and _reading("view", f"view position {view}", _FRONTAL_VIEWS, view.upper() in _FRONTAL_VIEWS, "another view"),
        modality
        and _reading("modality", f"modality {modality}", _MODALITIES, modality in _MODALITIES, "another modality"),
        part and _reading("body_part", f"body part {part}", _CHEST, is_chest(part), "another body part"),
        burned and _reading("annotation", f"burned-in annotation {burned}", ("NO",), burned != "YES", "annotated"),
    )
    return tuple(reading for reading in readings if reading)


def _reading(what: str, measured: str, expected: tuple[str, ...], passed: bool, reason: str) -> Reading:
    listed = " or ".join(filter(None, [", ".join(expected[:-1]), expected[-1]]))
    return Reading(f"declared_{what}", measured, listed, passed, "warning", f"declared as {reason}")
