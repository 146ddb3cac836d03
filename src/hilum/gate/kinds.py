"""What the gate's network tells apart, and how each is called when it refuses."""

from __future__ import annotations

KINDS = ("frontal", "lateral", "other radiograph", "slice", "collage", "picture")
"""A frontal chest film; one from the side; another body part; CT and the like; several or framed films; all else."""
FRONTAL, LATERAL, OTHER, SLICE, COLLAGE, PICTURE = range(len(KINDS))

KIND_REASONS = {
    "lateral": "lateral view",
    "other radiograph": "not a chest",
    "slice": "CT slice or other modality",
    "collage": "collage or screenshot",
    "picture": "not a radiograph",
}
"""Why a picture of each other kind is refused."""

TURNS = (0, 90, 180, 270)
"""Degrees clockwise that a film may have been turned by."""

FLAGS = ("inverted", "mirrored", "cropped", "annotated")
"""What else may be true of a frontal film."""
