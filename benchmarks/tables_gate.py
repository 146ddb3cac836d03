"""The tables of benchmarks/gate.py: both gates side by side."""

from __future__ import annotations

from typing import Any

from cells import cell, origin

SUMMARY = {
    ("accepted, frontal films", "both"): "frontal films, native and of the test split: accepted",
    ("accepted, by kind of film", "children"): "children's films: accepted",
    ("accepted, by kind of film", "adults"): "adults' films: accepted",
    ("accepted, by kind of film", "adults, AP (portable)"): "adults' AP films: accepted",
    (
        "accepted, all",
        "no films, real and drawn",
    ): "CT, photographs, figures, documents, drawn noise and textures: accepted",
    ("accepted, no films", "all of these"): "of these the real ones: accepted",
    ("accepted, all", "other films, real"): "lateral films and mammograms: accepted",
    ("caught, right reason", "inverted"): "inverted: caught, with that reason",
    ("caught, right reason", "rotated by 90"): "rotated by 90 degrees: the same",
    ("caught, right reason", "rotated by 180"): "rotated by 180 degrees: the same",
    ("caught, right reason", "rotated by 270"): "rotated by 270 degrees: the same",
    ("same verdict", "at 256, 512, 1024 and 2500 px"): "the same verdict at 256, 512, 1024 and 2500 px",
    ("AUROC", "far: no films"): "AUROC, frontal films against no films",
    ("AUROC", "near: other films"): "AUROC, frontal films against other films",
    ("milliseconds", "a film of 1024 px"): "milliseconds a film of 1024 px, one core",
}
"""Rows of the short table, and what they are called there."""


def gate(result: dict[str, Any]) -> str:
    """Every row, by section."""
    lines, section = [], None
    for row in result["rows"]:
        if row["section"] != section:
            section = row["section"]
            lines += ["", f"| {section} | n | classic | learned | asked for |", "|---|---|---|---|---|"]
        lines.append(_line(row["figure"], row))
    return "\n".join([*lines[1:], "", origin(result)])


def gate_short(result: dict[str, Any]) -> str:
    """The rows of SUMMARY."""
    rows = {(row["section"], row["figure"]): row for row in result["rows"]}
    lines = ["| held-out files | n | classic | learned | asked for |", "|---|---|---|---|---|"]
    lines += [_line(words, rows[key]) for key, words in SUMMARY.items()]
    return "\n".join([*lines, "", origin(result)])


def _line(words: str, row: dict[str, Any]) -> str:
    digits = 1 if row["section"] == "milliseconds" else 3
    cells = f"{cell(row['classic'], digits)} | {cell(row['learned'], digits)}"
    return f"| {words} | {row['learned']['n']:,} | {cells} | {row['must']} |"
