"""The audit of the dependencies says whether it was answered: a release with known vulnerabilities must be found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "audit_dependencies.py"
VULNERABLE = {"name": "pillow", "version": "9.0.0", "vulns": [{"id": "CVE-2022-22815"}]}
SKIPPED = {"name": "pillow", "skip_reason": "Dependency not found"}
SAFE = {"name": "numpy", "version": "2.3.0", "vulns": []}


def answer(folder: Path, known: object, pinned: object) -> subprocess.CompletedProcess[str]:
    """Run the script with a pip-audit that gives one answer about the known release, and one about the pins."""
    fake = folder / "fake.py"
    answers = {name: {"dependencies": [package]} for name, package in (("known.txt", known), ("pins.txt", pinned))}
    fake.write_text(
        f"import json, pathlib, sys\nanswers = json.loads({json.dumps(answers)!r})\n"
        "print(json.dumps(answers[pathlib.Path(sys.argv[sys.argv.index('--requirement') + 1]).name]))\n"
        if known
        else "raise SystemExit('no network')\n"
    )
    (folder / "pins.txt").write_text("numpy==2.3.0\n")
    command = [sys.executable, str(SCRIPT), str(folder / "pins.txt"), "--command", f"{sys.executable} {fake}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("known", "pinned", "code"),
    [
        (VULNERABLE, SAFE, 0),
        (VULNERABLE, VULNERABLE, 1),
        (VULNERABLE, SKIPPED, 3),
        (SKIPPED, SAFE, 3),
        ({**VULNERABLE, "vulns": []}, SAFE, 3),
        (None, SAFE, 3),
    ],
    ids=["safe", "vulnerable", "a pin not asked about", "nothing asked", "the known one called safe", "no answer"],
)
def test_exit_code(tmp_path: Path, known: object, pinned: object, code: int) -> None:
    done = answer(tmp_path, known, pinned)
    assert done.returncode == code, done.stdout + done.stderr
    if code == 1:
        assert "CVE-2022-22815" in done.stdout
