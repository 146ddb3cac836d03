"""Shows data classes and pydantic models by their fields, in place of the signature of a constructor that few call.

Types are shown as the source has them; the fields of pydantic models are described by their ``Field``s.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass

from pydantic import BaseModel
from sphinx.application import Sphinx

SECTION = "Attributes:"
ARRAY = re.compile(r"~numpy\.ndarray\[tuple\[~typing\.Any, \.\.\.\], ~numpy\.dtype\[~numpy\.(\w+)\]\]")
"""What Python makes of ``NDArray[np.float32]``."""


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _describe_fields, priority=400)  # before napoleon reads it
    app.connect("autodoc-process-signature", _shorten_signature)
    app.connect("autodoc-skip-member", _skip_config)
    app.connect("env-get-outdated", lambda *_: ["api"])  # it depends on the code, which Sphinx does not watch
    return {"parallel_read_safe": True}


def _describe_fields(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # an empty comment; napoleon takes what is before a colon in the first line for a type
    if what == "module":
        for row in range(len(lines) - 1, 0, -1):
            if lines[row].startswith("    ") and not lines[row - 1]:
                lines[row - 1 : row] = ["", "::", ""]  # an indented block is shown as it is
    if what != "class" or not inspect.isclass(value):
        return
    if issubclass(value, BaseModel) and SECTION not in lines and value.model_fields:
        lines += ["", SECTION]
        lines += [f"    {field}: {info.description or ''}" for field, info in value.model_fields.items()]
    if _is_record(value) and SECTION in lines:
        start = lines.index(SECTION)
        lines[start:] = [
            re.sub(r"^    (\w+):", lambda found: _with_type(value, found[1]), line) for line in lines[start:]
        ]


def _shorten_signature(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str] | None:
    if what == "class" and _is_record(value):
        return "", ""
    if signature is None:
        return None
    return ARRAY.sub(r"NDArray[np.\1]", signature), ARRAY.sub(r"NDArray[np.\1]", returns or "")


def _skip_config(app: Sphinx, what: str, name: str, *_: object) -> bool | None:
    return True if name == "model_config" else None


def _is_record(value: object) -> bool:
    return inspect.isclass(value) and (issubclass(value, BaseModel) or is_dataclass(value))


def _with_type(record: type, field: str) -> str:
    """The start of a field's line, with the annotation of the class that declares it."""
    for base in record.__mro__:
        if field in (annotations := vars(base).get("__annotations__", {})):
            written = str(annotations[field]).replace("np.bool_", "np.bool").replace("Number", "float | None")
            return f"    {field} ({written}):"
    return f"    {field}:"
