"""All targets by name. The modules of the targets are imported when one of them is made."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz_case import Target

MODULES = {
    "png": "fuzz_images", "jpeg": "fuzz_images", "webp": "fuzz_images", "bmp": "fuzz_images", "tiff": "fuzz_images",
    "dicom": "fuzz_images", "dicom-compressed": "fuzz_images", "dicom-deflated": "fuzz_images",
    "dicom-objects": "fuzz_images", "gate": "fuzz_images",
    "manifest": "fuzz_bundles", "container": "fuzz_bundles", "weights": "fuzz_bundles", "graphs": "fuzz_bundles",
    "arrays": "fuzz_bundles",
    "metadata": "fuzz_tables", "predictions": "fuzz_tables",
    "multipart": "fuzz_network", "inference": "fuzz_network", "search": "fuzz_network", "retrieve": "fuzz_network",
    "store": "fuzz_network",
}  # fmt: skip
"""Module of each target; the function that makes it has its name, with underscores."""

PLANTED = ("sound", "exception", "crash", "slow", "hang", "memory", "broken")
"""Targets of ``fuzz_planted``, with which the tests see that faults are found."""


def make(name: str) -> Target:
    """Return a target, of MODULES or of ``fuzz_planted``."""
    module = MODULES.get(name, "fuzz_planted")
    found: Target = getattr(importlib.import_module(module), name.replace("-", "_"))()
    assert found.name == name
    assert found.seeds
    return found
