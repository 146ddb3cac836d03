"""Describe each setting for help and error messages, and read one from text."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from hilum.config.schema import DEFAULTS, PRESETS, SECTIONS

_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")


class Setting(NamedTuple):
    """One setting of a section of Config, described for help and error messages."""

    name: str
    """``section.key``."""
    allowed: str
    """Its type and range, such as ``number in [0, 1)``."""
    description: str
    values: dict[str, Any]
    """The value in each preset."""


@cache
def list_settings() -> Mapping[str, Setting]:
    """Return all settings by name ``section.key``, in the order of Config."""
    found = {}
    for section in SECTIONS:
        model = type(getattr(DEFAULTS, section))
        for key, field in model.model_fields.items():
            values = {name: preset.get(section, {}).get(key, field.default) for name, preset in PRESETS.items()}
            name = f"{section}.{key}"
            found[name] = Setting(name, _allowed(field), field.description or "", values)
    return found


def show_value(value: Any) -> str:
    """Return a setting's value as text that ``--set`` accepts."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else "none" if value is None else str(value)


def parse_value(section: str, key: str, text: str) -> Any:
    """Return a value's text as input for pydantic; unchanged if there is no such setting."""
    field = type(getattr(DEFAULTS, section)).model_fields.get(key) if section in SECTIONS else None
    if field is None:
        return text
    kind, optional = _kind(field)
    if optional and text.lower() == "none":
        return None
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.strip("[]()").split(",")]
    if get_origin(kind) is Literal and isinstance(get_args(kind)[0], int) and text.isdigit():
        return int(text)
    return text


def _kind(field: FieldInfo) -> tuple[Any, bool]:
    """Return a field's type without None and the word ``auto``, and whether it may be None."""
    if get_origin(field.annotation) in (Union, UnionType):
        parts = get_args(field.annotation)
        kind = next(part for part in parts if part is not type(None) and get_args(part) != ("auto",))
        return get_args(kind)[0] if get_origin(kind) is Annotated else kind, type(None) in parts
    return field.annotation, False


def _bounded(field: FieldInfo) -> Iterator[Any]:
    """Yield what may bear a bound: the field's metadata, and that of a number beside the word ``auto``."""
    yield from field.metadata
    for part in get_args(field.annotation):
        if get_origin(part) is Annotated:
            for entry in get_args(part)[1:]:
                yield from entry.metadata


def _allowed(field: FieldInfo) -> str:
    """Describe a field's type and range."""
    words = _range(field)
    return f"auto or {words}" if any(get_args(part) == ("auto",) for part in get_args(field.annotation)) else words


def _range(field: FieldInfo) -> str:
    kind, optional = _kind(field)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    names = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    words = names.get(kind, "integers separated by commas")
    bounds = {name: getattr(entry, name) for entry in _bounded(field) for name in _BOUNDS if hasattr(entry, name)}
    lower, upper = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if lower is not None and upper is not None:
        words += f" in {'[' if 'ge' in bounds else '('}{lower}, {upper}{']' if 'le' in bounds else ')'}"
    elif lower is not None:
        words += f" {'>=' if 'ge' in bounds else '>'} {lower}"
    if "multiple_of" in bounds:
        words += f", a multiple of {bounds['multiple_of']}"
    return f"{words} or none" if optional else words


def nearest(name: str) -> str | None:
    """Return the setting closest to an unknown ``section.key``: the same key elsewhere, or a similar name."""
    key = name.rpartition(".")[2]
    same = [known for known in list_settings() if known.rpartition(".")[2] == key]
    found = difflib.get_close_matches(name, same or [*list_settings(), *SECTIONS], n=1, cutoff=0.0 if same else 0.6)
    return found[0] if found else None
