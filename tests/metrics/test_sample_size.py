"""Planned sizes against closed forms, and against simulated evaluations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from hilum.errors import ConfigError
from hilum.metrics.bootstrap import bootstrap
from hilum.metrics.sample_size import (
    Design,
    auroc_variance,
    expected_interval,
    plan_margin,
    plan_width,
)
from hilum.metrics.scores import FloatArray, weighted_auc


def test_a_share_needs_the_images_of_wilsons_interval() -> None:
    plan = plan_width(Design("accuracy", 0.85), 0.05)
    wilson = binomtest(round(0.85 * plan.images), plan.images).proportion_ci(method="wilson")
    assert wilson.high - wilson.low == pytest.approx(0.05, rel=5e-3)  # of the normal quantile, not of Student's
    assert plan.images == pytest.approx(4 * 1.96**2 * 0.85 * 0.15 / 0.05**2, rel=0.02)  # Wald
    assert (plan.low, plan.high) == pytest.approx(expected_interval(Design("accuracy", 0.85), plan.images))
    fewer = expected_interval(Design("accuracy", 0.85), plan.images - 1)
    assert fewer[1] - fewer[0] > 0.05  # the smallest that reaches it


def test_rare_classes_and_several_images_per_group_need_more() -> None:
    plain = plan_width(Design("accuracy", 0.9), 0.06)
    rare = plan_width(Design("sensitivity", 0.9, share=0.2), 0.06)
    common = plan_width(Design("specificity", 0.9, share=0.2), 0.06)
    assert rare.counted == pytest.approx(plain.images, abs=1)
    assert rare.images == pytest.approx(5 * plain.images, abs=5)
    assert common.images == pytest.approx(plain.images / 0.8, abs=2)
    clustered = plan_width(Design("accuracy", 0.9, images_per_group=3, icc=0.4), 0.06)
    assert clustered.images == pytest.approx(1.8 * plain.images, rel=0.02)  # 1 + (3 - 1) * 0.4
    assert clustered.groups == math.ceil(clustered.images / 3)


def test_the_variance_of_an_auroc_is_that_of_riley_et_al() -> None:
    """Newcombe's (2006) formula, which Riley et al. (2021) use: N images, a share f of the class."""
    for area, n, f in ((0.75, 400, 0.5), (0.9, 800, 0.5)):
        mean = n / 2 - 1
        inner = 1 + mean * (1 - area) / (2 - area) + mean * area / (1 + area)
        newcombe = area * (1 - area) * inner / (n**2 * f * (1 - f))
        assert auroc_variance(area, n * f, n * (1 - f)) == pytest.approx(newcombe, rel=1e-9)


def test_a_margin_needs_the_images_of_the_paired_test() -> None:
    design = Design("accuracy", 0.9)
    plan = plan_margin(design, 0.03, correlation=0.6, power=0.9)
    reach = norm.ppf(0.975) + norm.ppf(0.9)
    assert plan.images == math.ceil(reach**2 * 2 * 0.09 * (1 - 0.6) / 0.03**2)
    assert plan.low is None
    assert plan_margin(design, 0.03, difference=0.02).images < plan_margin(design, 0.03).images
    assert plan_margin(Design("auroc", 0.9, 0.3), 0.03).counted < plan_margin(Design("auroc", 0.9, 0.3), 0.02).counted


def test_what_cannot_be_planned_is_refused() -> None:
    for design in ({"value": 1.0}, {"value": 0.9, "share": 0.0}, {"value": 0.9, "icc": 2.0}):
        with pytest.raises(ConfigError):
            Design("accuracy", **design)
    with pytest.raises(ConfigError):
        Design("accuracy", 0.9, images_per_group=0.5)
    design = Design("accuracy", 0.9)
    for width in (0.0, 1.0, 1e-6):
        with pytest.raises(ConfigError):
            plan_width(design, width)
    for given in ({"margin": 0.0}, {"margin": 0.02, "difference": -0.02}, {"margin": 0.02, "difference": 0.2}):
        with pytest.raises(ConfigError):
            plan_margin(design, **given)
    for given in ({"correlation": 1.0}, {"power": 1.0}):
        with pytest.raises(ConfigError):
            plan_margin(design, 0.02, **given)


def mean_width(design: Design, width: float, sets: int = 30) -> float:
    """The mean width of the intervals of simulated evaluations of the planned size."""
    random, plan = np.random.default_rng(1), plan_width(design, width)
    widths = []
    for seed in range(sets):
        positive = np.arange(plan.images) < round(plan.images * design.share)
        if design.metric == "auroc":
            values = random.exponential(np.where(positive, design.value / (1 - design.value), 1.0))
            groups = np.arange(plan.images)
        else:
            groups = np.arange(plan.counted) // round(design.images_per_group)
            values = right(random, groups, design)

        def statistics(weights: FloatArray) -> dict[str, FloatArray]:
            if design.metric == "auroc":
                return {"": weighted_auc(positive, values, weights)}  # noqa: B023
            return {"": weights @ values / weights.sum(axis=1)}  # noqa: B023

        found = bootstrap(
            statistics, {"": np.ones(groups.size, np.bool_)}, groups, bounds={"": (0.0, 1.0)}, resamples=200, seed=seed,
            strata=positive.astype(np.int64) if design.metric == "auroc" else None,
            shares=[] if design.metric == "auroc" else [""],
        )[""]  # fmt: skip
        widths.append(found.high - found.low)
    return float(np.mean(widths))


def right(random: np.random.Generator, groups: NDArray[np.int64], design: Design) -> FloatArray:
    """Correct or not, with the correlation within groups: a group shares its result with probability ICC."""
    count = int(groups.max()) + 1
    shared = (random.random(count) < design.icc)[groups]
    own, common = random.random(groups.size), random.random(count)[groups]
    return np.where(shared, common, own) < design.value


@pytest.mark.parametrize(
    ("design", "width"),
    [
        (Design("accuracy", 0.85), 0.08),
        (Design("sensitivity", 0.9, 0.2), 0.1),
        (Design("accuracy", 0.9, images_per_group=3, icc=0.3), 0.08),
        (Design("auroc", 0.9), 0.06),
        (Design("auroc", 0.85, 0.15), 0.08),
    ],
)
def test_evaluations_of_the_planned_size_have_the_planned_width(design: Design, width: float) -> None:
    assert mean_width(design, width) == pytest.approx(width, rel=0.1)


def test_evaluations_of_the_planned_size_have_the_planned_power() -> None:
    """A pair of models of equal accuracy, whose results correlate; the interval is that of the mean difference."""
    design, margin, correlation = Design("accuracy", 0.85), 0.05, 0.5
    plan, random = plan_margin(design, margin, correlation=correlation, power=0.8), np.random.default_rng(3)
    shown = 0
    for _ in range(1000):
        shared = random.random(plan.images) < correlation
        first, second = random.random((2, plan.images)) < design.value
        difference = np.where(shared, first, second).astype(float) - first
        shown += difference.mean() - 1.96 * difference.std() / math.sqrt(plan.images) > -margin
    assert shown / 1000 == pytest.approx(0.8, abs=0.04)
