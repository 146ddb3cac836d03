"""The documentation builds without a warning, has every public name and command, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hilum
from hilum.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
STYLE_ELSEWHERE = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built documentation."""
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--doctree-dir"]
    done = subprocess.run(
        [*command, str(out / "doctrees"), str(ROOT / "docs"), str(out / "html")],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


@pytest.mark.slow
def test_every_public_name_and_command_is_documented(site: Path) -> None:
    api, cli = ((site / name).read_text(encoding="utf-8") for name in ("api.html", "cli.html"))
    shown = set(re.findall(r'id="hilum\.(?:errors\.)?(\w+)"', api))
    assert {*hilum.__all__} - {"__version__"} <= shown
    assert not [name for name in COMMANDS if f'id="hilum-{name}"' not in cli]


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere_and_name_no_folder_of_this_machine(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert len(pages) >= 10
    assert not {path.name: found for path, text in pages.items() if (found := ELSEWHERE.findall(text))}
    assert not [path.name for path, text in pages.items() if str(ROOT) in text or str(Path.home()) + "/" in text]
    assert not [path.name for path in site.rglob("*.css") if STYLE_ELSEWHERE.search(path.read_text(encoding="utf-8"))]
