"""UIDs and equipment attributes of the DICOM objects that hilum writes. Codes are in hilum.inference.dicom_codes."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from hilum._version import __version__
from hilum.bundle.bundle import Manifest
from hilum.inference.dicom_codes import coding_schemes, long_string

Kind: TypeAlias = Literal["seg", "sr", "sc", "pr"]
"""Segmentation, structured report, secondary capture, presentation state."""

RESEARCH_ONLY = "Research use only, not for diagnosis"
NOT_A_DEVICE = "Made by a research tool, not a medical device; not for diagnosis."

_FORMAT = 4
"""Part of every UID. Increment it when the objects for the same image and bundle change."""


def instance_uid(source_sop_uid: str, bundle_id: str, kind: Kind, settings: str = "") -> str:
    """Return the SOP instance UID of an object, a function of the arguments.

    Args:
        source_sop_uid: SOP instance UID of the image.
        bundle_id: The bundle that predicts.
        kind: Kind of the object.
        settings: Predictor.settings, since other settings may give another result.
    """
    return _uid("instance", source_sop_uid, bundle_id, kind, *filter(None, [settings]))


def series_uid(source_sop_uid: str, bundle_id: str, kind: Kind, settings: str = "") -> str:
    """Return the series instance UID of an object; each object has its own series. See instance_uid."""
    return _uid("series", source_sop_uid, bundle_id, kind, *filter(None, [settings]))


def tracking_uid(source_sop_uid: str, bundle_id: str, what: str, settings: str = "") -> str:
    """Return the tracking UID of one item, named ``what``, which is the same in all objects. See instance_uid."""
    return _uid("tracking", source_sop_uid, bundle_id, what, *filter(None, [settings]))


def dimensions_uid(source_sop_uid: str, bundle_id: str, settings: str = "") -> str:
    """Return the dimension organization UID of a segmentation. See instance_uid."""
    return _uid("dimensions", source_sop_uid, bundle_id, *filter(None, [settings]))


def device_uid(bundle_id: str) -> str:
    """Return the device UID of a bundle as the observer of a report."""
    return _uid("device", bundle_id)


def made_by(source: Dataset, manifest: Manifest, kind: Kind, settings: str) -> dict[str, Any]:
    """Return the constructor arguments of highdicom that all kinds of objects share."""
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
