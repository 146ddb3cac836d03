"""One option for each setting: the fields of Config, their types, bounds and docs, become flags of ``hilum train``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from hilum.config import PRESETS, Config

_PANELS = {
    "preprocess": "Preprocessing",
    "split": "Split",
    "augment": "Augmentation",
    "model": "Network",
    "loss": "Loss",
    "training": "Training",
}
_DEFAULTS = Config()


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting; it receives those that were set as ``overrides``, nested as in TOML."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "overrides"]
    settings = {
        field_name: (section, _option(section, field_name, field))
        for section in _PANELS
        for field_name, field in type(getattr(_DEFAULTS, section)).model_fields.items()
    }

    @wraps(command)
    def wrapper(**arguments: Any) -> None:
        overrides: dict[str, dict[str, Any]] = {}
        for name, (section, _) in settings.items():
            value = arguments.pop(name)
            if value is not None and value != []:
                overrides.setdefault(section, {})[name] = value
        command(**arguments, overrides=overrides)

    parameters = [*own, *(parameter for _, parameter in settings.values())]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return wrapper


def _option(section: str, name: str, field: FieldInfo) -> inspect.Parameter:
    flag = name.replace("_", "-")
    kind = _plain(field.annotation)
    help_text = f"{field.description} [{_describe_defaults(section, name)}]"
    option = typer.Option(
        f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}",
        help=help_text,
        rich_help_panel=_PANELS[section],
        show_default=False,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _plain(annotation: Any) -> Any:
    """A field's type as typer takes it: without None, and a tuple as a list (the flag may be repeated)."""
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is tuple:
        return list[get_args(annotation)[0]]  # type: ignore[misc]
    if get_origin(annotation) is not None and isinstance(get_args(annotation)[0], int):
        return int  # Literal[1, 3]: typer's choices are strings, so the configuration itself checks it
    return annotation if annotation is not Path else Path


def _describe_defaults(section: str, name: str) -> str:
    usual = getattr(getattr(_DEFAULTS, section), name)
    values = {preset: PRESETS[preset].get(section, {}).get(name, usual) for preset in PRESETS}
    if values["default"] == values["original"]:
        return f"default: {_show(values['default'])}"
    return f"default: {_show(values['default'])}; original: {_show(values['original'])}"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return " ".join(str(part) for part in value)
    return "none" if value is None else str(value)
