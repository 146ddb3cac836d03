"""What is fitted on validation and kept in a bundle: temperature, conformal quantiles, abstention threshold."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hilum.bundle.bundle import Manifest
from hilum.errors import DataError


@dataclass(frozen=True)
class Calibration:
    """All that is fitted on validation.

    Attributes:
        temperature: Logits are divided by it before softmax.
        quantiles: Level (``0.90``, ``0.95``, ``0.99``) to K quantiles in [0, 1], one per class.
        abstention_threshold: The least highest probability that is answered; None: no threshold reached the target.
        target_accuracy: What the threshold was chosen for, of the images answered.
        n: How many labeled images it rests on.
        groups: How many groups these are.
        split: The name of their split.
        digest: That of the split, or of the index where the data have none; None where unknown.
    """

    temperature: float
    quantiles: dict[str, tuple[float, ...]]
    abstention_threshold: float | None
    target_accuracy: float
    n: int
    groups: int
    split: str
    digest: str | None = None


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """What JSON can hold; calibration_from_json gives the same back, to the bit."""
    return asdict(calibration)


def calibration_from_json(content: object) -> Calibration:
    """From what calibration_to_json gave, read from a file.

    Raises:
        DataError: It is something else.
    """
    try:
        return TypeAdapter(Calibration).validate_python(content)
    except ValidationError as error:
        reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"Expected a calibration, got {reason}.", hint="Evaluate the run anew.") from error


def with_calibration(manifest: Manifest, calibration: Calibration, **facts: Any) -> Manifest:
    """The manifest with the calibration in it, whose predictions use it; not yet sealed.

    Args:
        manifest: Of a bundle to be written.
        calibration: Of the same network and classes.
        facts: More for ``Manifest.calibration``, as JSON.

    Raises:
        DataError: The calibration is of another number of classes.
    """
    for level, quantiles in calibration.quantiles.items():
        if len(quantiles) != len(manifest.class_names):
            raise DataError(
                f"Expected {len(manifest.class_names)} quantiles at coverage {level}, one per class, got "
                f"{len(quantiles)}.",
                hint="Use the calibration of the same network.",
            )
    return manifest.model_copy(
        update={
            "temperature": calibration.temperature,
            "conformal_quantiles": calibration.quantiles,
            "abstention_threshold": calibration.abstention_threshold,
            "calibration": {
                "images": calibration.n,
                "groups": calibration.groups,
                "split": calibration.split,
                "digest": calibration.digest,
                "target_accuracy": calibration.target_accuracy,
                "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                **facts,
            },
        }
    )


def calibration_of(manifest: Manifest) -> Calibration | None:
    """The calibration that a bundle carries, as with_calibration put it there; None where it carries none."""
    facts = manifest.calibration
    if not facts:
        return None
    return Calibration(
        temperature=manifest.temperature,
        quantiles=manifest.conformal_quantiles,
        abstention_threshold=manifest.abstention_threshold,
        target_accuracy=facts["target_accuracy"],
        n=facts["images"],
        groups=facts["groups"],
        split=facts["split"],
        digest=facts["digest"],
    )
