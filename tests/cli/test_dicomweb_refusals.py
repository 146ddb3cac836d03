"""What ``hilum dicomweb`` says before it asks any server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Hilum = Callable[..., str]
URL = "http://127.0.0.1:9/dicom-web"  # nobody is asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((URL,), "--study, --since and --all"),
        ((URL, "--all", "--since", "1d"), "--study, --since and --all"),
        ((URL, "--study", "1.2.3", "--since", "1d"), "--study, --since and --all"),
        ((URL, "--study", "1.2/3"), "'1.2/3'"),
        ((URL, "--since", "lately"), "'lately'"),
        ((URL, "--all", "--fix-orientation", "--gate", "none"), "--gate none"),
        (("http://pacs.example/dicom-web", "--all"), "unencrypted"),
        (("https://me:s3cret@pacs.example", "--all"), "contains credentials"),
        ((URL, "--all", "--bundle", "no.hilum"), "no.hilum"),
    ],
)
def test_what_cannot_be_meant(hilum: Hilum, arguments: tuple[str, ...], said: str) -> None:
    output = hilum("dicomweb", *arguments, code=2)
    assert said in output
    assert "s3cret" not in output


def test_another_file_as_log(hilum: Hilum, tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("image,mask\n")
    output = hilum("dicomweb", URL, "--all", "--log", tmp_path / "images.csv", code=2)
    assert "is not a log" in output


def test_the_extra_is_named() -> None:
    code = "import sys; sys.modules['dicomweb_client'] = None; from hilum.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "dicomweb", URL, "--all"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert 'pip install ".[dicomweb]"' in done.stderr
    assert "Traceback" not in done.stderr
