"""Calibration stored in a bundle: temperature, conformal quantiles and abstention threshold.

The methods that fit them are in hilum.metrics.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from hilum.bundle.bundle import Manifest
from hilum.errors import DataError
from hilum.format import number
from hilum.types import CalibratedPer

if TYPE_CHECKING:
    from hilum.bundle.prediction_sets import Temperature, Threshold


@dataclass(frozen=True)
class Calibration:
    """Parameters fitted on the validation split.

    Attributes:
        temperature: Divisor of the logits before softmax.
        quantiles: Coverage (``0.90``, ``0.95``, ``0.99``) to K quantiles in [0, 1], one per class.
        abstention_threshold: Minimum probability of the label without abstention; None if no threshold reaches the
            target accuracy.
        target_accuracy: Target accuracy on the images without abstention.
        n: Number of labeled images.
        groups: Number of their groups.
        split: Name of their split.
        digest: Digest of the split, or of the index without one; None if unknown.
        class_temperatures: K temperatures, one for each predicted class, used in place of ``temperature``; None: not
            fitted.
        class_thresholds: K abstention thresholds, one for each predicted class, used in place of
            ``abstention_threshold``, None where every prediction of the class abstains, since no threshold reaches the
            target accuracy; None: not fitted.
    """

    temperature: float
    quantiles: dict[str, tuple[float, ...]]
    abstention_threshold: float | None
    target_accuracy: float
    n: int
    groups: int
    split: str
    digest: str | None = None
    class_temperatures: tuple[float, ...] | None = None
    class_thresholds: tuple[float | None, ...] | None = None

    @property
    def per(self) -> CalibratedPer:
        """What has a temperature and an abstention threshold of its own."""
        return "all" if self.class_thresholds is None else "predicted-class"

    @property
    def by_class(self) -> Iterator[Sequence[float | None]]:
        """The parameters that have one value for each class."""
        yield from self.quantiles.values()
        yield from (own for own in (self.class_temperatures, self.class_thresholds) if own is not None)

    @property
    def applied_temperature(self) -> Temperature:
        """The temperature that predictions use; see Manifest."""
        return self.temperature if self.class_temperatures is None else self.class_temperatures

    @property
    def applied_threshold(self) -> Threshold:
        """The abstention threshold that predictions use; see Manifest."""
        return self.abstention_threshold if self.class_thresholds is None else self.class_thresholds


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """Return the calibration as JSON types; calibration_from_json restores it exactly."""
    return asdict(calibration)


def calibration_from_json(content: object) -> Calibration:
    """Return a calibration from the result of calibration_to_json.

    Raises:
        DataError: The content is something else.
    """
    try:
        return TypeAdapter(Calibration).validate_python(content)
    except ValidationError as error:
        reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"Invalid calibration: {reason}.", hint="Evaluate the run again.") from error


def with_calibration(manifest: Manifest, calibration: Calibration, **facts: Any) -> Manifest:
    """Return a copy of a manifest with a calibration, not yet sealed.

    Args:
        manifest: Manifest of the bundle to write.
        calibration: Calibration of the same network and classes.
        facts: Further entries of ``Manifest.calibration``, JSON types.

    Raises:
        DataError: The calibration has another number of classes.
    """
    if wrong := [len(own) for own in calibration.by_class if len(own) != len(manifest.class_names)]:
        raise DataError(
            f"Expected a calibration for {len(manifest.class_names)} classes, got one for {wrong[0]}.",
            hint="Use the calibration of the same network.",
        )
    return manifest.model_copy(
        update={
            "temperature": calibration.temperature,
            "conformal_quantiles": calibration.quantiles,
            "abstention_threshold": calibration.abstention_threshold,
            "class_temperatures": calibration.class_temperatures,
            "class_thresholds": calibration.class_thresholds,
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
    """Return the calibration in a manifest, as stored by with_calibration; None if there is none."""
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
        class_temperatures=manifest.class_temperatures,
        class_thresholds=manifest.class_thresholds,
    )


def temperature_text(parameters: Manifest | Calibration, class_names: Sequence[str]) -> str:
    """Return the temperature in words: ``temperature 1.051``, or that of each predicted class."""
    if parameters.class_temperatures is None:
        return f"temperature {number(parameters.temperature)}"
    each = (f"{name} {number(own)}" for name, own in zip(class_names, parameters.class_temperatures, strict=True))
    return f"temperature by predicted class ({', '.join(each)})"


def threshold_text(parameters: Manifest | Calibration, class_names: Sequence[str]) -> str:
    """Return when predictions abstain: ``never``, ``below 0.849``, or that of each predicted class."""
    if parameters.class_thresholds is None:
        overall = parameters.abstention_threshold
        return "never" if overall is None else f"below {number(overall)}"
    named = list(zip(class_names, parameters.class_thresholds, strict=True))
    each = [f"below {number(least)} for {name}" for name, least in named if least is not None]
    always = ", ".join(name for name, least in named if least is None)
    return ", ".join([*each, *([f"always for {always}"] if always else [])])
