"""Check the pinned dependencies for known vulnerabilities, and prove that the check was done.

pip-audit says "No known vulnerabilities found" where it could not ask about a package. A release with known
vulnerabilities is therefore audited first: if none is found in it, the audit counts as not done.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KNOWN = "pillow==9.0.0"  # CVE-2022-22815 and others
FOUND, NOT_ASKED = 1, 3  # exit codes


def audit(requirements: Path, command: list[str]) -> dict[str, dict[str, Any]]:
    """Return pip-audit's answer for each package of a requirements file: ``vulns``, or ``skip_reason``."""
    options = ["--requirement", str(requirements), "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run([*command, *options, "--progress-spinner", "off"], capture_output=True, text=True)
    try:
        return {package["name"]: package for package in json.loads(done.stdout)["dependencies"]}
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"": {"skip_reason": last}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("constraints", type=Path, nargs="?", default=Path("constraints.txt"))
    parser.add_argument("--command", default=f"{sys.executable} -m pip_audit", help="How to run pip-audit.")
    options = parser.parse_args()
    command = options.command.split()
    with tempfile.TemporaryDirectory() as folder:
        proof = Path(folder) / "known.txt"
        proof.write_text(f"{KNOWN}\n")
        known = audit(proof, command)
    if not any(package.get("vulns") for package in known.values()):
        reasons = "; ".join(package.get("skip_reason", "it was called free of them") for package in known.values())
        print(f"Not asked: no vulnerability was found in {KNOWN}, which has some ({reasons}).")
        return NOT_ASKED
    packages = audit(options.constraints, command)
    skipped = {name: package["skip_reason"] for name, package in packages.items() if "skip_reason" in package}
    vulnerable = {name: package for name, package in packages.items() if package.get("vulns")}
    for name, reason in skipped.items():
        print(f"Not asked about {name}: {reason}")
    for name, package in vulnerable.items():
        print(f"{name} {package['version']}: {', '.join(vulnerability['id'] for vulnerability in package['vulns'])}")
    print(f"{len(packages) - len(skipped)} packages audited, {len(vulnerable)} with known vulnerabilities.")
    return FOUND if vulnerable else NOT_ASKED if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
