"""Put a software bill of materials into a wheel, where PEP 770 has it: ``.dist-info/sboms/``.

setuptools has no setting for it yet. The version of the package and its direct dependencies, which a requirements file
does not tell, are added to the bill first. The same wheel and bill give the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import json
import re
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NAME = "hilum.cdx.json"


def completed(sbom: dict[str, Any], metadata: str) -> dict[str, Any]:
    """Return a bill with version, package URL and direct dependencies of its main component.

    Args:
        sbom: CycloneDX, as JSON types.
        metadata: Content of the wheel's METADATA.
    """
    fields = Parser().parsestr(metadata)
    required = {canonicalize_name(Requirement(line).name) for line in fields.get_all("Requires-Dist", [])}
    root = sbom["metadata"]["component"]
    root |= {"version": fields["Version"], "purl": f"pkg:pypi/{canonicalize_name(fields['Name'])}@{fields['Version']}"}
    direct = sorted(own["bom-ref"] for own in sbom["components"] if canonicalize_name(own["name"]) in required)
    others = [entry for entry in sbom["dependencies"] if entry["ref"] != root["bom-ref"]]
    return {**sbom, "dependencies": [{"ref": root["bom-ref"], "dependsOn": direct}, *others]}


def embed(wheel: Path, sbom: dict[str, Any]) -> None:
    """Write a bill into a wheel and its RECORD; an earlier one is replaced."""
    with zipfile.ZipFile(wheel) as archive:
        entries = {info: archive.read(info) for info in archive.infolist()}
    by_name = {info.filename: info for info in entries}
    record = next(name for name in by_name if re.fullmatch(r"[^/]+\.dist-info/RECORD", name))
    folder = record.removesuffix("RECORD")
    place = f"{folder}sboms/{NAME}"
    bill = completed(sbom, entries[by_name[f"{folder}METADATA"]].decode())
    content = (json.dumps(bill, indent=2, sort_keys=True) + "\n").encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    rows = [row for row in csv.reader(entries[by_name[record]].decode().splitlines()) if row[0] != place]
    rows.insert(-1, [place, f"sha256={digest}", str(len(content))])
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    added = zipfile.ZipInfo(place, by_name[record].date_time)
    added.external_attr = by_name[record].external_attr
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, old in entries.items():
            if info.filename == record:
                archive.writestr(added, content, zipfile.ZIP_DEFLATED)
            if info.filename != place:
                archive.writestr(info, table.getvalue() if info.filename == record else old, info.compress_type)
    wheel.write_bytes(written.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("sbom", type=Path, help="CycloneDX, JSON.")
    options = parser.parse_args()
    embed(options.wheel, json.loads(options.sbom.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
