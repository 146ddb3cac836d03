"""Hypothesis strategies of the names that files, classes and columns can have."""

from __future__ import annotations

from hypothesis import strategies

_ODD = [
    "=1+1",
    "'=1",
    "''",
    "+5",
    "-3",
    "-3.5e2",
    "@x",
    "\t",
    "a\nb",
    "a\r\nb",
    "\r",
    '"',
    'say "hi"',
    ",",
    ";",
    "é",
    "肺",
]
_ODD += [
    "\u202eabc",
    "\uff1d1",
    "e\u0301",
    "\U0001fac1",
    " a",
    "a ",
    "\xa0",
    "NaN",
    "None",
    "1",
    "0.1",
    "true",
    "prob",
    "#",
]

text = strategies.one_of(
    strategies.sampled_from(_ODD),
    strategies.text(strategies.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
"""Any text without surrogates and NUL, which files in UTF-8 cannot hold or csv does not read; often a difficult one."""

plain = text.map(str.strip)
"""The same without white space around it, which tables of datasets do not keep."""

name = plain.filter(bool)
