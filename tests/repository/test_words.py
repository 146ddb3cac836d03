"""Words that must not come back, in prose and in names: each has one that readers know. codespell does the spelling."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "tests", "docs", "benchmarks", "scripts", "examples", "configs", ".github")
SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml", ".j2", ".html", ".js", ".mjs", ".css", ".ipynb"}
FILES = ("Makefile", "Dockerfile", "compose.yaml", "pyproject.toml", ".pre-commit-config.yaml", "CITATION.cff")
LEFT_OUT = (
    "tests/repository/test_words.py",
    "CHANGELOG.md",  # says what words were replaced
    "src/hilum/default_model",  # written when the packaged model was exported
)

INSTEAD = {
    "film": "image in code, radiograph in prose",
    r"\b(chest|drawn|synthetic|real|other|frontal) pictures?\b|\bpictures? (of|that are)\b": "image, radiograph",
    r"\bcures?\b": "hint",
    r"label[ _-]?sets?": "prediction set",
    "second word": "post-inference check",
    r"(of|belongs? to) nobody": "synthetic; shows no person",
    r"drawn (chest|film|radiograph)": "synthetic radiograph, phantom",
    r"decoy|no film": "negative example, non-radiograph",
    r"\bl(ies?|ay|ying) (wrong|as it should)": "rotated, inverted; orientation",
    r"\bput(s|ting)? (it |them )?right\b|\bmend(s|ed|ing)?\b": "fix, correct, undo",
    r"lets? (us|one|it|them) in\b|asks? nobody who": "credentials, authentication",
    r"\bis no chance\b": "probability",
    r"ROC[- ]AUC": "AUROC",
    r"one against (the rest|all)": "one-vs-rest",
    r"\bis told of\b": "progress callback",
    r"what became of": "result, summary",
    r"\bsays? of (itself|themselves|an? )": "describe, report, contain",
    r"\bdata sets?\b": "dataset; two words for DICOM's alone",
    r"preset[ =`'\"]+seed\b": "preset original",
}
"""A regular expression, whatever the case, and what to write in its place."""

ALLOWED = {
    # Keys, files and options of earlier versions.
    "film": ("tests/cli/test_help.py",),
    r"label[ _-]?sets?": (
        "src/hilum/storage.py", "src/hilum/evaluation/predictions.py", "tests/bundle/test_bundle.py",
        "tests/evaluation/test_predictions.py",
    ),
    # DICOM's.
    r"\bdata sets?\b": ("tests/dicom_images.py",),
}  # fmt: skip


def _texts() -> Iterator[tuple[str, str]]:
    """The path and text of every file that a person wrote."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    for path in sorted({*found, *ROOT.glob("*.md"), *(ROOT / name for name in FILES if (ROOT / name).exists())}):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(LEFT_OUT) and ".egg-info" not in name and "node_modules" not in name:
            yield name, path.read_text(encoding="utf-8")


TEXTS = dict(_texts())


@pytest.mark.parametrize("pattern", INSTEAD)
def test_no_word_comes_back(pattern: str) -> None:
    allowed = ALLOWED.get(pattern, ())
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in TEXTS.items()
        if name not in allowed
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line, re.IGNORECASE)
    ]
    assert not found, f"say {INSTEAD[pattern]!r}"


@pytest.mark.parametrize(("pattern", "name"), [(pattern, name) for pattern in ALLOWED for name in ALLOWED[pattern]])
def test_an_exception_is_still_needed(pattern: str, name: str) -> None:
    assert re.search(pattern, TEXTS[name], re.IGNORECASE)
