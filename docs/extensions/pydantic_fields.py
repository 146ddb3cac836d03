"""Shows a pydantic model by its fields, with types and descriptions, in place of the signature of its constructor."""

from __future__ import annotations

import inspect
from typing import TypeGuard

from pydantic import BaseModel
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _add_fields, priority=400)  # before napoleon reads it
    app.connect("autodoc-process-signature", _drop_signature)
    return {"parallel_read_safe": True}


def _add_fields(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    if what == "class" and _is_model(value) and "Attributes:" not in lines:
        fields = [
            f"    {field} ({_annotation(value, field)}): {info.description or ''}"
            for field, info in value.model_fields.items()
        ]
        lines += ["", "Attributes:", *fields] if fields else []


def _drop_signature(app: Sphinx, what: str, name: str, value: object, *_: object) -> tuple[str, str] | None:
    return ("", "") if what == "class" and _is_model(value) else None


def _annotation(model: type[BaseModel], field: str) -> str:
    """The type as the source has it, of the class that declares the field."""
    written = next(base.__annotations__[field] for base in model.__mro__ if field in vars(base)["__annotations__"])
    return str(written).replace("Number", "float | None")


def _is_model(value: object) -> TypeGuard[type[BaseModel]]:
    return inspect.isclass(value) and issubclass(value, BaseModel)
