"""Paired differences: t against SciPy, exact bounds, one-sided tests, and max-T against its definition and promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm, ttest_1samp

from hilum.metrics.paired import Paired, adjusted_p, max_t
from hilum.metrics.table import Key


def test_a_difference_is_judged_as_by_students_t() -> None:
    values = np.random.default_rng(0).normal(0.03, 0.1, 17)
    expected = ttest_1samp(values, 0)
    own = Paired(float(values.mean()), float(values.std(ddof=1) / math.sqrt(17)), 17)
    assert own.p() == pytest.approx(expected.pvalue)
    for level in (0.9, 0.95):
        assert own.interval(level) == pytest.approx(tuple(expected.confidence_interval(level)))
    above = ttest_1samp(values, -0.02, alternative="greater").pvalue
    below = ttest_1samp(values, 0.1, alternative="less").pvalue
    assert (own.p_above(-0.02), own.p_below(0.1)) == pytest.approx((above, below))
    assert norm.sf(own.z()) * 2 == pytest.approx(own.p())


@pytest.mark.parametrize(
    ("difference", "error", "groups", "skew"),
    [(0.021, 0.01, 40, 0.0), (-0.3, 0.11, 5, 0.0), (0.0, 0.0, 60, 0.0), (0.021, 0.01, 40, 0.4), (-0.1, 0.03, 9, -1.1)],
)
def test_tests_and_intervals_agree(difference: float, error: float, groups: int, skew: float) -> None:
    own = Paired(difference, error, groups, skew=skew)
    for level in (0.8, 0.95):
        low, high = own.interval(level)
        tail = (1 - level) / 2
        assert own.p_above(low) == pytest.approx(tail)
        assert own.p_below(high) == pytest.approx(tail)
        assert (own.p() < 1 - level) == (low > 0 or high < 0)


def test_a_skewed_difference_reaches_farther_on_the_side_of_its_tail_and_never_less() -> None:
    plain, skewed = Paired(0.02, 0.01, 30).interval(), Paired(0.02, 0.01, 30, skew=0.5).interval()
    assert skewed[1] > plain[1] + 0.002
    assert skewed[0] == plain[0]


def test_the_mean_of_skewed_values_is_covered_on_both_sides() -> None:
    """Without the correction the upper bound is missed nearly twice as often as it may be."""
    generator = np.random.default_rng(6)
    missed = np.zeros((2, 2))
    for _ in range(2000):
        values = generator.exponential(size=25)
        error, skew = values.std(ddof=1) / 5, ((values - values.mean()) ** 3).mean() / values.std() ** 3 / 5
        for way, own in enumerate((skew, 0.0)):
            low, high = Paired(values.mean(), error, 25, math.inf, own).interval(0.9)
            missed[way] += [low > 1, high < 1]
    assert missed[0, 1] / 2000 < 0.075
    assert missed[1, 1] / 2000 > 0.085
    assert missed[0, 0] / 2000 < 0.05


def test_models_that_never_differ_have_the_exact_binomial_bound() -> None:
    low, high = Paired(0.0, 0.0, 20).interval()
    exact = binomtest(0, 20).proportion_ci(0.95, "exact").high
    assert (low, high) == pytest.approx((-exact, exact))
    assert Paired(0.0, 0.0, 20, 2.0).interval() == pytest.approx((-2 * exact, 2 * exact))
    assert Paired(0.0, 0.0, 20).p() == 1
    assert np.isnan(Paired(0.0, 0.0, 20, math.inf).interval()).all()


def test_an_interval_stays_within_what_a_difference_can_be() -> None:
    assert Paired(0.9, 0.2, 8).interval()[1] == 1
    assert Paired(-1.9, 0.2, 8, 2.0).interval()[0] == -2
    assert Paired(3.0, 1.0, 8, math.inf).interval()[1] > 5


@pytest.mark.parametrize("own", [Paired(0.1, math.nan, 9), Paired(math.nan, 0.1, 9), Paired(0.1, 0.1, 1)])
def test_without_a_known_spread_nothing_is_tested(own: Paired) -> None:
    assert not own.known
    assert np.isnan([*own.interval(), own.p(), own.p_above(-1), own.z()]).all()


def test_max_t_steps_down_as_defined() -> None:
    generator = np.random.default_rng(1)
    observed, reference = np.array([1.0, 3.2, 2.1, 0.4]), np.abs(generator.normal(size=(300, 4)))
    found = max_t(observed, reference)
    steps = []
    left = [1, 2, 0, 3]  # from the largest
    while left:
        reached = np.count_nonzero(reference[:, left].max(axis=1) >= observed[left[0]])
        steps.append((1 + reached) / 301)
        left = left[1:]
    assert found[[1, 2, 0, 3]] == pytest.approx(np.maximum.accumulate(steps))


def test_max_t_is_sidaks_for_independent_figures_and_the_plain_p_for_equal_ones() -> None:
    generator = np.random.default_rng(2)
    names = [Key(f"m{place}") for place in range(20)]
    figures = {name: Paired(0.03 if name == names[7] else 0.0001, 0.01, 10**6) for name in names}
    apart = {name: generator.normal(0, 0.01, 4000) for name in names}
    plain = figures[names[7]].p()
    assert adjusted_p(figures, apart)[names[7]] == pytest.approx(1 - (1 - plain) ** 20, rel=0.15)
    same = dict.fromkeys(names, apart[names[0]])
    assert adjusted_p(figures, same)[names[7]] == pytest.approx(plain, rel=0.4)


def test_figures_that_say_nothing_neither_break_nor_count() -> None:
    generator = np.random.default_rng(3)
    one = {Key("a"): Paired(0.03, 0.01, 100)}
    draws = {Key("a"): generator.normal(0.03, 0.01, 1000)}
    alone = adjusted_p(one, draws)[Key("a")]
    more = one | {
        Key("constant"): Paired(0.0, 0.0, 100),
        Key("undefined"): Paired(math.nan, math.nan, 0),
        Key("one group"): Paired(0.5, 0.1, 1),
    }
    none = {
        Key("constant"): np.zeros(1000), Key("undefined"): np.full(1000, np.nan), Key("one group"): np.full(1000, 0.5),
    }  # fmt: skip
    found = adjusted_p(more, draws | none)
    assert found[Key("a")] == alone
    assert found[Key("constant")] == 1
    assert np.isnan([found[Key("undefined")], found[Key("one group")]]).all()


def test_figures_of_few_groups_do_not_decide_for_all() -> None:
    """Thirty rare events, whose resamples have heavy tails, beside one figure of many groups."""
    generator = np.random.default_rng(4)
    rare = {Key(f"r{place}"): Paired(0.02, 0.02, 50) for place in range(30)}
    draws = {key: generator.poisson(1, 1000) / 50 for key in rare}
    wide = {Key("wide"): Paired(0.04, 0.01, 500)}
    draws[Key("wide")] = generator.normal(0.04, 0.01, 1000)
    p = adjusted_p(rare | wide, draws)[Key("wide")]
    assert p == pytest.approx(1 - (1 - wide[Key("wide")].p()) ** 31, rel=0.5)  # 0.002; by the resamples 0.05


def test_one_family_in_twenty_has_a_false_alarm() -> None:
    """Ten figures of 12 to 120 groups with shared noise; each alone would alarm in a third of the families."""
    generator = np.random.default_rng(5)
    alarms = np.zeros(2)
    for _ in range(300):
        noise = generator.normal(size=(120, 11))
        values = 0.6 * noise[:, :1] + noise[:, 1:]
        groups = np.linspace(12, 120, 10).astype(int)
        rows = np.arange(120)[:, None] < groups  # (120, 10)
        means = np.array([values[rows[:, j], j].mean() for j in range(10)])
        weights = generator.multinomial(120, np.full(120, 1 / 120), 200) * 1.0
        drawn = (weights @ (values * rows)) / np.maximum(weights @ rows, 1)
        own = {
            Key(f"m{j}"): Paired(means[j], float(values[rows[:, j], j].std(ddof=1) / math.sqrt(n)), int(n))
            for j, n in enumerate(groups)
        }
        found = adjusted_p(own, {key: drawn[:, j] for j, key in enumerate(own)})
        alarms += [min(found.values()) <= 0.05, min(figure.p() for figure in own.values()) <= 0.05]
    assert binomtest(int(alarms[0]), 300, 0.05).pvalue > 0.01
    assert alarms[1] / 300 > 0.2
