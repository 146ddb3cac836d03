"""Subgroups of the evaluated images: how a column divides them, and what is measured in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_writing import NAMES, made_up_scores
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score

from hilum.errors import ConfigError, DataError
from hilum.evaluation.options import ReportOptions, SubgroupColumn, options_of
from hilum.evaluation.subgroups import (
    NOT_RECORDED,
    ColumnFacts,
    column_facts,
    columns_of,
    divide_column,
    number_of,
    subgroup_results,
)
from hilum.metrics.scores import Scores
from hilum.types import Record


def with_column(count: int = 120, **columns: tuple[str, ...]) -> Scores:
    scores = made_up_scores(count)
    return Scores(**{**vars(scores), "columns": columns})


AGES = tuple("" if row % 10 == 0 else str(row % 90) for row in range(120))


def test_a_subgroup_is_measured_as_scikit_learn_measures_its_images() -> None:
    sex = tuple("FM"[row % 2] if row % 7 else "unknown" for row in range(120))
    (found,) = subgroup_results(with_column(sex=sex), options_of(["sex"]).subgroups, resamples=100)
    assert [row.name for row in found.rows] == ["F", "M", NOT_RECORDED]
    assert sum(row.images for row in found.rows) == 120
    scores = made_up_scores()
    for row, wanted in zip(found.rows, ("F", "M", "unknown"), strict=True):
        own = (np.array(sex) == wanted) & scores.labeled
        labels, predicted = scores.labels[own], scores.predicted[own]
        assert row.labeled == own.sum()
        assert row.metrics["accuracy"].value == pytest.approx(accuracy_score(labels, predicted))
        assert row.metrics["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(labels, predicted))
        area = roc_auc_score(labels, scores.probabilities[own], multi_class="ovr")
        assert row.metrics["macro_roc_auc"].value == pytest.approx(area)
        recalls = recall_score(labels, predicted, average=None)
        assert [row.recalls[name].value for name in NAMES] == pytest.approx(list(recalls))
        low, high = row.metrics["accuracy"].low, row.metrics["accuracy"].high
        assert low < row.metrics["accuracy"].value < high
        inside = (np.array(sex) == wanted) & scores.masked
        if inside.any():
            assert row.metrics["dice"].value == pytest.approx(np.nanmean(scores.dice[inside]))
        assert set(row.few) == set(NAMES)  # fewer than 30 of each
    assert [row.thin for row in found.rows] == [False, False, True]


def test_stated_cut_points_divide_numbers() -> None:
    (found,) = subgroup_results(with_column(age=AGES), options_of(["age:18,65"]).subgroups, resamples=100)
    assert (found.column, found.cuts) == ("age", (18.0, 65.0))
    assert [row.name for row in found.rows] == ["below 18", "18 to below 65", "65 and above", NOT_RECORDED]
    ages = np.array([float(age or "nan") for age in AGES])
    counts = [(ages < 18).sum(), ((ages >= 18) & (ages < 65)).sum(), (ages >= 65).sum(), np.isnan(ages).sum()]
    assert [row.images for row in found.rows] == counts


def test_without_cut_points_numbers_are_divided_at_their_quartiles() -> None:
    names, cuts = divide_column(AGES, SubgroupColumn(column="age"))
    ages = np.array([float(age) for age in AGES if age])
    assert cuts == tuple(np.quantile(ages, (0.25, 0.5, 0.75), method="higher"))
    sizes = [names.count(name) for name in dict.fromkeys(names) if name != NOT_RECORDED]
    assert len(sizes) == 4
    assert max(sizes) - min(sizes) <= 3
    assert names.count(NOT_RECORDED) == AGES.count("")


def test_few_numbers_are_codes_and_ties_join_bins() -> None:
    assert divide_column(("0", "1", "1", "na"), SubgroupColumn(column="smoker")) == (
        ["0", "1", "1", NOT_RECORDED], (),
    )  # fmt: skip
    names, cuts = divide_column(("0",) * 50 + tuple("123456"), SubgroupColumn(column="n"))
    assert cuts == ()  # three quartiles at the least value divide nothing
    assert set(names) == set("0123456")


def test_ages_as_dicom_writes_them_are_years() -> None:
    assert (number_of("045Y"), number_of("018M"), number_of("4.5")) == (45.0, 1.5, 4.5)
    assert (number_of("F"), number_of("inf"), number_of("45Y")) == (None, None, None)


@pytest.mark.parametrize(
    ("cells", "text"),
    [(("12", "old") * 60, "age:18"), (tuple(f"P{row}" for row in range(120)), "age")],
)
def test_a_column_that_cannot_be_divided_is_refused(cells: tuple[str, ...], text: str) -> None:
    with pytest.raises(DataError):
        subgroup_results(with_column(age=cells), options_of([text]).subgroups, resamples=100)


def test_a_column_that_is_not_there_is_refused_with_the_columns_that_are() -> None:
    with pytest.raises(DataError) as caught:
        subgroup_results(with_column(age=AGES), options_of(["ages"]).subgroups, resamples=100)
    assert "age" in str(caught.value.hint)
    records = [Record(path, columns=(("sex", "F"), ("site", "x"))) for path in map(Path, "ab")]
    with pytest.raises(DataError) as caught:
        columns_of(records, options_of(["age"]).subgroups)
    assert "sex, site" in str(caught.value.hint)
    taken = [Record(records[0].image_path, columns=(("dice", "1"),))]
    with pytest.raises(DataError):
        columns_of(taken, options_of(["dice"]).subgroups)


def test_columns_that_nobody_asked_for_stay_out_of_the_report() -> None:
    records = [Record(Path("a"), columns=(("sex", "F"), ("site", "x"), ("name", "A. Patient"))), Record(Path("b"))]
    assert columns_of(records, ()) == {"sex": ("F", "")}
    assert columns_of(records, options_of(["site"]).subgroups) == {"sex": ("F", ""), "site": ("x", "")}


def test_sources_are_subgroups_too() -> None:
    (found,) = subgroup_results(made_up_scores(), options_of(["source"]).subgroups, resamples=100)
    assert [(row.name, row.images) for row in found.rows] == [("north", 96), ("south", 24)]
    records = [Record(Path("a"), source="north"), Record(Path("b"))]
    assert columns_of(records, options_of(["source"]).subgroups) == {}  # it is in every table as it is


def test_a_column_is_described_by_quartiles_or_counts() -> None:
    ages = [str(age) for age in range(20, 40)] + [""]
    records = [Record(Path(f"{n}"), columns=(("age", age), ("sex", "F"))) for n, age in enumerate(ages)]
    facts = column_facts(records, "age")
    assert (facts.known, facts.missing, facts.counts) == (20, 1, {})
    assert facts.quartiles == pytest.approx(tuple(np.quantile(range(20, 40), (0.25, 0.5, 0.75))))
    assert facts.extremes == (20.0, 39.0)
    assert column_facts(records, "sex") == ColumnFacts(21, 0, {"F": 21})


def test_options_come_from_text_or_from_python() -> None:
    given = options_of(["Age:18,65", "sex"], 0.9, None, ["a=b=0.1"])
    assert given.subgroups == (SubgroupColumn(column="age", cuts=(18.0, 65.0)), SubgroupColumn(column="sex"))
    assert given.at == {"specificity": 0.9, "sensitivity": 0.95}
    assert given.prevalence == {"a=b": 0.1}
    assert options_of(base=given) == given
    assert options_of(prevalence={"c": 0.2}, base=given).prevalence == {"c": 0.2}
    assert ReportOptions.model_validate(given.model_dump()) == given


def test_a_prevalence_of_no_class_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        options_of(prevalence={"c": 0.2}).require_classes(("a", "b"))
    assert "a, b" in str(caught.value.hint)


@pytest.mark.parametrize(
    "given",
    [
        {"subgroups": ["age:65,18"]}, {"subgroups": ["age:old"]}, {"subgroups": [" "]}, {"at_specificity": 1.0},
        {"at_sensitivity": 0.0}, {"prevalence": ["COVID"]}, {"prevalence": ["COVID=much"]}, {"prevalence": {"a": 1.0}},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        options_of(**given)  # type: ignore[arg-type]
