"""A small prediction and its bundle, for the tests of DICOM objects."""

from __future__ import annotations

import numpy as np

from hilum.bundle.bundle import Manifest
from hilum.config import ModelConfig, PreprocessSpec
from hilum.inference.result import Prediction
from hilum.inference.zones import OUTSIDE, ZONES
from hilum.types import Finding, Radiograph

SIZE = 64
LONG = "/".join(["Überlanger Klassenname"] * 4)


def small_manifest() -> Manifest:
    """Three classes, one with a name too long for DICOM, and a name with a backslash."""
    return Manifest(
        name="small\\one",
        class_names=("dark", "bright", LONG),
        preprocess=PreprocessSpec(size=SIZE),
        model=ModelConfig(),
    ).sealed({})


def small_prediction(manifest: Manifest) -> Prediction:
    """Two lungs, evidence for ``bright`` in four cells and for ``dark`` in a corner, and a warning."""
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[10:50, 5:25] = mask[12:50, 40:60] = True
    evidence = np.zeros((3, 8, 8), np.float32)
    evidence[1, 2:4, 5:7] = [[1, 2], [3, 4]]
    evidence[0, 0, 0] = 9
    return Prediction(
        origin="image.dcm",
        radiograph=Radiograph(np.zeros((SIZE, SIZE), np.uint8)),
        class_names=manifest.class_names,
        probabilities=dict(zip(manifest.class_names, (0.2, 0.7123456789, 0.0876543211), strict=True)),
        label="bright",
        prediction_set=("bright", "dark"),
        mask=mask,
        evidence=evidence,
        lung_fraction=float(mask.mean()),
        bundle_id=manifest.bundle_id,
        findings=(Finding("letters", "warning", "words on the image: share 0.2, expected at most 0.1"),),
        abstained=True,
        evidence_zones=dict(zip((*ZONES, OUTSIDE), (0.02, 0.25, 0.0, 0.03, 0.0, 0.62, 0.08), strict=True)),
    )
