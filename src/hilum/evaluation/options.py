"""What a report adds on request: subgroups, operating points, prevalences. Parses them from the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pydantic import BaseModel, ConfigDict, field_validator

from hilum.errors import ConfigError
from hilum.metrics.operating_points import Fixed

DEFAULT_TARGET = 0.95


class SubgroupColumn(BaseModel):
    """A column of the table whose values divide the images.

    Attributes:
        column: Name of the column, in lower case as in the index.
        cuts: Ascending cut points of a numeric column; empty for quartiles, or for the values of a column of text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    cuts: tuple[float, ...] = ()


class ReportOptions(BaseModel):
    """Parts of a report that are chosen by the user; written to ``evaluation.json``.

    Attributes:
        subgroups: Columns whose subgroups are evaluated.
        at_specificity: Specificity at which sensitivity is measured, in (0, 1).
        at_sensitivity: Sensitivity at which specificity is measured, in (0, 1).
        prevalence: Class to its prevalence, in (0, 1), for predictive values and decision curves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subgroups: tuple[SubgroupColumn, ...] = ()
    at_specificity: float = DEFAULT_TARGET
    at_sensitivity: float = DEFAULT_TARGET
    prevalence: dict[str, float] = {}

    @field_validator("at_specificity", "at_sensitivity")
    @classmethod
    def _is_share(cls, value: float) -> float:
        return _share("The fixed specificity or sensitivity", value)

    @field_validator("prevalence")
    @classmethod
    def _are_shares(cls, values: dict[str, float]) -> dict[str, float]:
        return {name: _share(f"The prevalence of {name}", value) for name, value in values.items()}

    @property
    def at(self) -> dict[Fixed, float]:
        """What is fixed to its target."""
        return {"specificity": self.at_specificity, "sensitivity": self.at_sensitivity}

    def require_classes(self, class_names: Collection[str]) -> None:
        """Check that prevalences are of the model's classes.

        Raises:
            ConfigError: One is of another class.
        """
        if unknown := [name for name in self.prevalence if name not in class_names]:
            raise ConfigError(
                f"A prevalence is given for {', '.join(unknown)}, which is not a class of the model.",
                hint=f"Its classes are {', '.join(class_names)}.",
            )


def options_of(
    subgroups: Iterable[str] | None = None,
    at_specificity: float | None = None,
    at_sensitivity: float | None = None,
    prevalence: Mapping[str, float] | Iterable[str] | None = None,
    *,
    base: ReportOptions | None = None,
) -> ReportOptions:
    """Return the options of a report; what is None is as in ``base``.

    Args:
        subgroups: Columns, such as ``sex``, or with cut points ``age:18,65``.
        at_specificity: Specificity at which sensitivity is measured.
        at_sensitivity: Sensitivity at which specificity is measured.
        prevalence: Class to prevalence, or texts such as ``COVID=0.1``.
        base: Options of an earlier evaluation; the defaults by default.

    Raises:
        ConfigError: A text cannot be parsed, or a share is not between 0 and 1.
    """
    base = base or ReportOptions()
    pairs = prevalence if prevalence is None or isinstance(prevalence, Mapping) else dict(map(_prevalence, prevalence))
    return ReportOptions(
        subgroups=base.subgroups if subgroups is None else tuple(map(_subgroup, dict.fromkeys(subgroups))),
        at_specificity=base.at_specificity if at_specificity is None else at_specificity,
        at_sensitivity=base.at_sensitivity if at_sensitivity is None else at_sensitivity,
        prevalence=base.prevalence if pairs is None else dict(pairs),
    )


def _subgroup(text: str) -> SubgroupColumn:
    name, colon, cells = text.partition(":")
    if not name.strip():
        raise ConfigError("A subgroup needs the name of a column.", hint="Example: --subgroup sex")
    try:
        cuts = tuple(float(cell) for cell in cells.split(",")) if colon else ()
    except ValueError:
        cuts = (1.0, 0.0)
    if list(cuts) != sorted(set(cuts)):
        raise ConfigError(
            f"Expected ascending numbers as cut points in '{text}'.", hint="Example: --subgroup age:18,65"
        )
    return SubgroupColumn(column=name.strip().lower(), cuts=cuts)


def _prevalence(text: str) -> tuple[str, float]:
    name, _, cell = text.rpartition("=")
    try:
        value = float(cell)
    except ValueError:
        name = ""
    if not name:
        raise ConfigError(f"Expected a class and its prevalence, got '{text}'.", hint="Example: --prevalence COVID=0.1")
    return name, value


def _share(what: str, value: float) -> float:
    """Return a share that is in (0, 1). The error is no ValueError, so that pydantic passes it on."""
    if not 0 < value < 1:
        raise ConfigError(f"{what} must be between 0 and 1, got {value:g}.")
    return value
