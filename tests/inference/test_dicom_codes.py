"""Codes of classes: standard ones for names that everyone uses, private ones for others."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts

from hilum.inference.dicom_codes import (
    LEFT_LUNG,
    LEVEL_CODES,
    RIGHT_LUNG,
    SCHEME,
    SIDE_CODES,
    STANDARD_CLASSES,
    class_code,
    long_string,
    probability_code,
)

METHODS = Path(__file__).parents[2] / "docs" / "methods.md"
NAMES = ("dark", "bright", "/".join(["Überlanger Klassenname"] * 4))


@pytest.mark.parametrize(
    ("name", "value", "scheme"),
    [
        ("COVID", "840539006", "SCT"),
        ("Covid-19", "840539006", "SCT"),
        ("Viral Pneumonia", "75570004", "SCT"),
        ("viral_pneumonia", "75570004", "SCT"),
        ("PNEUMONIA", "233604007", "SCT"),
        ("Lung_Opacity", "112001", "DCM"),
        ("Normal ", "17621005", "SCT"),
        ("Ground-glass opacity", "112120", "DCM"),
    ],
)
def test_common_names_have_standard_codes(name: str, value: str, scheme: str) -> None:
    assert (class_code(name).value, class_code(name).scheme_designator) == (value, scheme)


def test_other_names_have_private_codes_that_follow_from_them() -> None:
    codes = [make(name) for name in NAMES for make in (class_code, probability_code)]
    assert len({code.value for code in codes}) == 6
    assert {code.scheme_designator for code in codes} == {SCHEME}
    assert all(len(code.value) <= 16 and len(code.meaning.encode()) <= 64 for code in codes)
    assert class_code("bright").value == class_code("bright").value != class_code("bright ").value
    assert probability_code("COVID").scheme_designator == SCHEME


def test_codes_of_dicoms_own_tables_are_as_in_pydicom() -> None:
    known = {(scheme, code) for scheme in ("SCT", "DCM") for found in concepts[scheme].values() for code in found}
    ours = [*STANDARD_CLASSES.values(), *SIDE_CODES.values(), *LEVEL_CODES.values()]
    # SNOMED CT concepts outside the context groups of PS3.16
    others = {"46621007", "53084003", "8186001", "95436008", "840539006", "154283005", "233604007", "75570004"}
    assert {code.value for code in ours if (code.scheme_designator, code.value) not in known} == others
    assert (RIGHT_LUNG.value, LEFT_LUNG.value) == ("3341006", "44029006")


def test_the_documentation_has_every_code() -> None:
    text = METHODS.read_text(encoding="utf-8")
    rows = {line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| ")}
    for name, code in STANDARD_CLASSES.items():
        assert f"{code.meaning} ({code.value}, {code.scheme_designator})" in rows, name


def test_text_fits_its_value_representation() -> None:
    assert long_string("a\\b\tc\n") == "a/b c"
    assert long_string("ü" * 32) == "ü" * 32
    assert long_string("ü" * 33) == "ü" * 30 + "..."
