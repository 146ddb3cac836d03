"""Writes the command reference into cli.md: every command, argument, option, default and setting, from the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sphinx.application import Sphinx

from hilum.cli.app import COMMANDS, load_command
from hilum.config import list_settings

PAGE = "cli"
COMMANDS_HERE = "<!-- commands -->"
SETTINGS_HERE = "<!-- settings -->"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _fill)
    app.connect("env-get-outdated", lambda *_: [PAGE])  # it depends on the code, which Sphinx does not watch
    return {"parallel_read_safe": True}


def _fill(app: Sphinx, name: str, content: list[str]) -> None:
    if name == PAGE:
        for place, lines in ((COMMANDS_HERE, _commands()), (SETTINGS_HERE, _settings())):
            if place not in content[0]:
                raise ValueError(f"docs/{PAGE}.md has no {place}")
            content[0] = content[0].replace(place, "\n".join(lines))


def _commands() -> Iterator[str]:
    for group, entries in groupby(COMMANDS, lambda name: COMMANDS[name].group):
        yield from (f"## {group}", "")
        for name in entries:
            yield from _command(name)


def _command(name: str) -> Iterator[str]:
    command = load_command(name)
    context = command.make_context(f"hilum {name}", [], resilient_parsing=True)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from (f"### hilum {name}", "", command.help, "", "```text", usage, "```", "")
    for kind, title in (("argument", "Argument"), ("option", "Option")):
        shown = [one for one in command.get_params(context) if one.param_type_name == kind and one.name != "help"]
        rows = [_row(*record) for record in (one.get_help_record(context) for one in shown) if record is not None]
        has_defaults = any(row[2] for row in rows)
        yield from _table(
            (title, "Description", "Default")[: 2 + has_defaults], [row[: 2 + has_defaults] for row in rows]
        )
    if command.epilog:
        lines = [line.strip() for line in command.epilog.splitlines()]
        yield from ("Examples:", "", "```sh", *(line for line in lines if line.startswith("hilum ")), "```", "")


def _row(name: str, help_text: str) -> tuple[str, str, str]:
    """Split what ``--help`` prints of a parameter: its help ends with [default: …; required; range]."""
    text, notes = re.fullmatch(r"(.*?)(?:  \[(.*)\])?", help_text, re.DOTALL).groups()  # type: ignore[union-attr]
    parts = (notes or "").split("; ")
    default = [part.removeprefix("default: ") for part in parts if part.startswith("default: ")]
    rest = [part for part in parts if part and not part.startswith("default: ")]
    note = f" ({', '.join(rest)})" if rest else ""
    return f"`{name}`", _escaped(text) + note, f"`{default[0]}`" if default else ""


def _settings() -> Iterator[str]:
    for section, group in groupby(list_settings().values(), lambda setting: setting.name.rpartition(".")[0]):
        rows = [
            (f"`{one.name}`", _escaped(one.description), one.allowed, *(_value(value) for value in one.values.values()))
            for one in group
        ]
        presets = next(iter(list_settings().values())).values
        yield from (f"### {section or 'data'}", "")
        yield from _table(("Setting", "Description", "Allowed", *presets), rows)


def _value(value: Any) -> str:
    return "" if value is None else f"`{value}`"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", text)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        for row in (header, ("---",) * len(header), *rows):
            yield "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) + " |"
        yield ""
