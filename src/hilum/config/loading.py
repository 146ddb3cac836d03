"""Load the settings of a training run from a preset, a TOML file and options, and save them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hilum.config.schema import PRESETS, Config, PresetName
from hilum.config.settings import list_settings, nearest, parse_value
from hilum.errors import ConfigError
from hilum.storage import with_current_keys, write_text

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse ``section.key=value`` strings and return settings nested as in TOML, for load_config.

    ``none`` stands for None in optional settings; list items are separated by commas. Later assignments override
    earlier ones.

    Raises:
        ConfigError: A string has another form. Names and values are checked by load_config.
    """
    settings: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(
                f"--set takes section.key=value, got {text!r}.", hint="For example: --set training.epochs=10."
            )
        settings[f"{section}.{key}"] = parse_value(section, key, value.strip())
    return nest(settings)


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings ``{"section.key": value}`` nested as in TOML; names without a section stay at the top level."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        section, dot, key = name.partition(".")
        nested = merge(nested, {section: {key: value}} if dot else {name: value})
    return nested


def load_config(
    preset: PresetName = "default",
    path: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    beneath: Mapping[str, Any] | None = None,
) -> Config:
    """Return the settings of a preset, overridden by ``beneath``, a TOML file and ``overrides``, in this order.

    Args:
        preset: Name of the preset.
        path: TOML file of settings.
        overrides: Settings nested as in TOML; they take precedence over the file.
        beneath: Settings nested as in TOML; the file takes precedence over them.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or a value is out of range; all are named.
    """
    if preset not in PRESETS:
        raise ConfigError(f"Unknown preset {preset!r}.", hint=f"Choose one of {', '.join(PRESETS)}.")
    path = None if path is None else Path(path)
    settings: Mapping[str, Any] = PRESETS[preset]
    for layer in (beneath or {}, _read_toml(path) if path else {}, overrides or {}):
        settings = merge(settings, layer)
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(
            _explain(error, path, overrides or {}), hint="`hilum train --help-settings` lists every setting."
        ) from error


def save_config(config: Config, path: Path) -> None:
    """Write all settings as TOML; load_config reads them back unchanged."""
    import tomli_w

    write_text(path, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` overridden by ``layer``, recursively."""
    merged = dict(base)
    for key, value in layer.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = with_current_keys(tomllib.loads(path.read_text(encoding="utf-8")))
        return content
    except OSError as error:
        raise ConfigError(f"Cannot read the settings in '{path}': {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not valid TOML: {error}.", hint="See https://toml.io") from error


def _explain(error: ValidationError, path: Path | None, overrides: Mapping[str, Any]) -> str:
    """Describe each invalid setting with its allowed and actual value, and name the file if one comes from there."""
    lines, in_file = [], False
    for detail in error.errors():
        place = tuple(str(part) for part in detail["loc"])
        section = overrides.get(place[0]) if place else None
        overridden = place[1] in section if isinstance(section, Mapping) and len(place) > 1 else section is not None
        in_file = in_file or not overridden
        name = ".".join(place[:2])
        known = list_settings().get(name)
        if detail["type"] == "extra_forbidden":
            if len(place) == 1 and isinstance(detail["input"], Mapping):  # a section; suggest one of its keys
                name = ".".join([name, *list(detail["input"])[:1]])
            meant = nearest(name)
            lines.append(f"unknown setting `{name}`" + (f", did you mean `{meant}`?" if meant else ""))
        elif detail["type"] == "value_error":
            lines.append(str(detail["ctx"]["error"]))
        elif known:
            lines.append(f"`{name}`: expected {known.allowed}, got {detail['input']!r:.80}")
        else:
            lines.append(f"`{name}`: {detail['msg']}, got {detail['input']!r:.80}")
    where = f" in {path}" if path and in_file else ""
    lines = list(dict.fromkeys(lines))  # a setting of two types has an error for each
    return f"Bad configuration{where}: " + "; ".join(lines) + ("" if lines[-1].endswith("?") else ".")
