"""How many images and groups an evaluation needs, before the data exist.

Widths are those of the intervals of hilum.metrics.bootstrap: Wilson's of a share; of an AUROC the value on the logit
scale, plus and minus Student's t times the standard error. Nothing here needs SciPy, so that ``hilum plan`` runs in the
lean install.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

from hilum.errors import ConfigError
from hilum.metrics.bootstrap import LEVEL, t_quantile, wilson

Metric: TypeAlias = Literal["accuracy", "sensitivity", "specificity", "auroc"]
_MOST = 10**9


@dataclass(frozen=True)
class Design:
    """What is assumed of the data.

    Attributes:
        metric: The primary metric.
        value: Its expected value, in (0, 1).
        share: Share of the class among the images, in (0, 1). Not used for accuracy.
        images_per_group: Mean number of images of a group (patient), at least 1.
        icc: Correlation of the results of two images of a group, in [0, 1].
    """

    metric: Metric
    value: float
    share: float = 0.5
    images_per_group: float = 1.0
    icc: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("expected value", self.value), ("share", self.share)):
            if not 0 < value < 1:
                raise ConfigError(f"The {name} must be between 0 and 1, got {value:g}.")
        if self.images_per_group < 1 or not 0 <= self.icc <= 1:
            raise ConfigError(
                f"Expected at least 1 image per group and a correlation in [0, 1], got {self.images_per_group:g} and "
                f"{self.icc:g}."
            )

    @property
    def design_effect(self) -> float:
        """Variance by several images per group over that of independent images: 1 + (m − 1) · ICC (Kish 1965)."""
        return 1 + (self.images_per_group - 1) * self.icc


@dataclass(frozen=True)
class Plan:
    """The size of an evaluation.

    Attributes:
        images: All images.
        groups: Their groups (patients).
        counted: Images that the metric rests on: of the class for sensitivity, of the rest for specificity, the
            smaller of the two for AUROC, all for accuracy.
        low: Lower bound of the interval to expect; None for a margin.
        high: Upper bound of the interval to expect; None for a margin.
    """

    images: int
    groups: int
    counted: int
    low: float | None = None
    high: float | None = None


def plan_width(design: Design, width: float) -> Plan:
    """Return the smallest evaluation whose 95% interval is no wider than ``width`` from bound to bound.

    Args:
        design: What is assumed of the data.
        width: Upper less lower bound, in (0, 1).

    Raises:
        ConfigError: The width is out of range, or would need more than 10^9 images.
    """
    if not 0 < width < 1:
        raise ConfigError(f"The width must be between 0 and 1, got {width:g}.")

    def reached(images: int) -> bool:
        low, high = expected_interval(design, images)
        return high - low <= width

    images = _least(reached)
    return Plan(images, _groups(design, images), round(_counted(design, images)), *expected_interval(design, images))


def plan_margin(
    design: Design, margin: float, *, difference: float = 0.0, correlation: float = 0.5, power: float = 0.8
) -> Plan:
    """Return the smallest evaluation that shows a new model to be no worse than another by ``margin``.

    Both models predict the same images (paired design). Non-inferiority is shown where the lower bound of the 95%
    interval of new minus old is above −margin: a one-sided test at 0.025.

    Args:
        design: What is assumed of the data; ``value`` is that of the old model.
        margin: Largest loss that is acceptable, positive.
        difference: Expected value of the new model less that of the old one, above −margin.
        correlation: Of the two models' results on an image (accuracy, sensitivity, specificity) or of their AUROC
            estimates (Hanley & McNeil 1983), in [0, 1).
        power: Probability of showing it, in (0, 1).

    Raises:
        ConfigError: An argument is out of range, or more than 10^9 images would be needed.
    """
    new = design.value + difference
    if margin <= 0 or margin + difference <= 0 or not 0 < new < 1:
        raise ConfigError(
            f"Expected a positive margin and a difference above −margin that keeps the value in (0, 1); got margin "
            f"{margin:g} and difference {difference:g}."
        )
    if not 0 <= correlation < 1 or not 0 < power < 1:
        raise ConfigError(f"Expected a correlation in [0, 1) and a power in (0, 1), got {correlation:g}, {power:g}.")
    normal = NormalDist()
    reach = normal.inv_cdf(0.5 * (1 + LEVEL)) + normal.inv_cdf(power)

    def reached(images: int) -> bool:
        old_variance, new_variance = (_variance(design, value, images) for value in (design.value, new))
        variance = old_variance + new_variance - 2 * correlation * math.sqrt(old_variance * new_variance)
        return reach * math.sqrt(variance) <= margin + difference

    images = _least(reached)
    return Plan(images, _groups(design, images), round(_counted(design, images)))


def expected_interval(design: Design, images: int) -> tuple[float, float]:
    """Return the bounds of the 95% interval to expect from this number of images."""
    value = design.value
    error = math.sqrt(_variance(design, value, images))
    t = t_quantile(max(1.0, _counted(design, images) / design.images_per_group - 1))
    if design.metric != "auroc":
        return wilson(value, error, t)
    reach = t * error / (value * (1 - value))
    center = math.log(value / (1 - value))
    low, high = (1 / (1 + math.exp(-(center + step))) for step in (-reach, reach))
    return low, high


def auroc_variance(area: float, positives: float, negatives: float) -> float:
    """Return the variance of an AUROC by Hanley & McNeil (1982, Radiology 143:29), who assume exponential ratings.

    Args:
        area: The AUROC, in (0, 1).
        positives: Images of the class.
        negatives: Images of the rest.
    """
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (one - area**2) + (negatives - 1) * (two - area**2)
    return spread / (positives * negatives)


def _variance(design: Design, value: float, images: int) -> float:
    """Return the variance of the metric at this value, with the design effect."""
    if design.metric == "auroc":
        positives = images * design.share
        return design.design_effect * auroc_variance(value, positives, images - positives)
    return design.design_effect * value * (1 - value) / _counted(design, images)


def _counted(design: Design, images: int) -> float:
    share = design.share
    shares = {"accuracy": 1.0, "sensitivity": share, "specificity": 1 - share, "auroc": min(share, 1 - share)}
    return images * shares[design.metric]


def _groups(design: Design, images: int) -> int:
    return math.ceil(images / design.images_per_group)


def _least(reached: Callable[[int], bool]) -> int:
    """Return the least number of images, at least 4, that reaches the goal."""
    high = 4
    while not reached(high):
        high *= 2
        if high > _MOST:
            raise ConfigError("More than 10^9 images would be needed.", hint="Use a wider interval or margin.")
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
