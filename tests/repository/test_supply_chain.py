"""The lock, the bill of materials, and the wheel that has it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPT = ROOT / "scripts" / "embed_sbom.py"
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(name: str) -> dict[str, int]:
    """Each pin of a requirements file, with its marker, and the number of its hashes."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return {str(Requirement(HASH.sub("", line).partition(" #")[0].strip())): len(HASH.findall(line)) for line in lines}


def test_both_locks_have_the_same_pins_and_one_has_a_hash_of_each() -> None:
    plain, hashed = pins("constraints.txt"), pins("requirements-hashed.txt")
    assert plain.keys() == hashed.keys()
    assert all(len(Requirement(pin).specifier) == 1 and "==" in pin for pin in plain)
    assert not any(plain.values())
    assert all(hashed.values())


def test_every_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    pinned: dict[str, list[Requirement]] = {}
    for pin in map(Requirement, pins("requirements-hashed.txt")):
        pinned.setdefault(canonicalize_name(pin.name), []).append(pin)
    extras = PROJECT["optional-dependencies"].items()
    optional = [line for extra, lines in extras for line in lines if extra != "fuzz"]  # wheels for few platforms
    for line in [*PROJECT["dependencies"], *optional]:
        own = Requirement(line)
        found = pinned.get(canonicalize_name(own.name), [])
        assert found, line
        for pin in found:
            (version,) = (part.version for part in pin.specifier)
            assert own.specifier.contains(version), (line, str(pin))


def sbom(folder: Path) -> Path:
    """Make a bill as ``make sbom`` does, of two of the pins."""
    chosen = [pin for pin in pins("constraints.txt") if pin.startswith(("numpy==", "fastapi=="))]
    (folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in chosen))
    found = re.search(r"\$\(BIN\)/cyclonedx-py ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert found
    line = found[1].replace("\\\n", " ").replace("build/", f"{folder}/")
    subprocess.run([Path(sys.executable).with_name("cyclonedx-py"), *line.split()], cwd=ROOT, check=True, timeout=120)
    return folder / "sbom.cdx.json"


def embed(wheel: Path, bill: Path) -> dict[str, Any]:
    """Put a bill into a wheel; check form and RECORD, and return what is in the wheel."""
    subprocess.run([sys.executable, SCRIPT, wheel, bill], check=True, timeout=120)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        (place,) = (name for name in names if re.fullmatch(r"hilum-[^/]+\.dist-info/sboms/[^/]+\.cdx\.json", name))
        content = archive.read(place)
        record = archive.read(next(name for name in names if name.endswith("/RECORD"))).decode()
    listed = {row[0]: row[1:] for row in csv.reader(record.splitlines())}
    assert listed.keys() == {*names}
    assert listed[place][1] == str(len(content))
    assert len(names) == len({*names})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode()) is None
    return dict(json.loads(content))


def wheel_of(folder: Path) -> Path:
    """Build the wheel of the project, without its packaged model, with the setuptools that is installed."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__", "default_model")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    code = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=folder, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("hilum-*.whl")
    return wheel


def test_the_wheel_has_a_valid_bill_of_materials(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    wheel, bill = wheel_of(tmp_path), sbom(tmp_path)
    before = wheel.read_bytes()
    found = embed(wheel, bill)
    root = found["metadata"]["component"]
    assert (root["name"], root["type"]) == ("hilum", "library")
    assert root["version"] in wheel.name
    by_ref = {own["bom-ref"]: own["name"] for own in found["components"]}
    assert sorted({*by_ref.values()}) == ["fastapi", "numpy"]
    (direct,) = (entry["dependsOn"] for entry in found["dependencies"] if entry["ref"] == root["bom-ref"])
    assert {by_ref[ref] for ref in direct} == {"numpy", "fastapi"}
    once = wheel.read_bytes()
    embed(wheel, bill)  # replaces it
    assert wheel.read_bytes() == once
    wheel.write_bytes(before)
    embed(wheel, sbom(tmp_path))  # a second bill of the same pins
    assert wheel.read_bytes() == once
    with zipfile.ZipFile(wheel) as archive:
        assert (
            hashlib.sha256(archive.read("hilum/__init__.py")).digest()
            == hashlib.sha256((ROOT / "src/hilum/__init__.py").read_bytes()).digest()
        )
