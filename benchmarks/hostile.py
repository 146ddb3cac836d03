"""Time and memory of the answer to each hostile case of tests/hostile, through the code that the tests call.

Run it on an idle machine: the bounds are 2 s and 300 MB. The exit status is 1 if a case is beyond them or gets another
answer than it must get.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import machine

from hilum.storage import write_json

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "hostile")]


def answers() -> dict[str, tuple[list[Any], Callable[[Path], str]]]:
    """Return the cases of each kind, and the function that answers one."""
    from hostile_bundles import BUNDLES, WEIGHT_FILES, packaged
    from hostile_dicom import DICOM, HEADERS
    from hostile_images import IMAGES
    from hostile_tables import TABLES

    from hilum import build_index
    from hilum.backends.open import open_backend
    from hilum.bundle.bundle import load_bundle
    from hilum.inference.dicom_source import source_header
    from hilum.inference.predictor import Predictor

    predictor = Predictor(packaged(), backend="onnxruntime")
    open_backend(packaged(), "pytorch")  # imports PyTorch

    def of(work: Callable[[Path], object]) -> Callable[[Path], str]:
        def answer(path: Path) -> str:
            from hilum.errors import HilumError

            try:
                found = work(path)
            except HilumError as error:
                return type(error).__name__
            return str(getattr(found, "status", "ok"))

        return answer

    return {
        "images": (IMAGES, of(predictor.predict)),
        "DICOM": (DICOM, of(predictor.predict)),
        "DICOM headers": (HEADERS, of(source_header)),
        "tables": (TABLES, of(build_index)),
        "bundles": (BUNDLES, of(lambda path: Predictor(load_bundle(path), backend="onnxruntime"))),
        "weights": (WEIGHT_FILES, of(lambda path: Predictor(load_bundle(path), backend="pytorch"))),
    }


def measure(kinds: dict[str, tuple[list[Any], Callable[[Path], str]]]) -> list[dict[str, Any]]:
    """Return a row for each case: kind, name, answer, seconds and bytes."""
    from hostile_case import measured

    rows = []
    for kind, (cases, answer) in kinds.items():
        for number, case in enumerate([cases[0], *cases]):  # what is loaded once is not measured
            with tempfile.TemporaryDirectory() as folder:
                path = case.make(Path(folder))
                with measured() as used:
                    found = answer(path)
            if number:
                facts = {"kind": kind, "name": case.name, "expected": case.answer, "answer": found}
                rows.append({**facts, "seconds": round(used[0].seconds, 3), "bytes": used[0].bytes})
    return rows


def main() -> int:
    from hostile_case import BYTES, SECONDS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", help="Kinds of cases, repeatable; all by default.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures to this file.")
    options = parser.parse_args()
    kinds, before = answers(), machine()
    rows = measure({kind: kinds[kind] for kind in options.kind or kinds})
    beyond = [row for row in rows if row["seconds"] > SECONDS or (row["bytes"] or 0) > BYTES]
    wrong = [row for row in rows if row["answer"] != row["expected"]]
    for row in sorted(rows, key=lambda row: -row["seconds"]):
        used = f"{row['seconds']:6.2f} s {(row['bytes'] or 0) / 1e6:6.0f} MB"
        print(f"{used}  {row['kind']}: {row['name']}: {row['answer']}")
    print(f"{len(rows)} cases, {len(beyond)} beyond {SECONDS:g} s or {BYTES / 1e6:.0f} MB, {len(wrong)} other answers")
    summary = {
        **before, "cases": len(rows), "beyond": len(beyond), "wrong": len(wrong),
        "seconds": max(row["seconds"] for row in rows), "bytes": max(row["bytes"] or 0 for row in rows), "rows": rows,
    }  # fmt: skip
    if options.json:
        write_json(options.json, summary)
    return 1 if beyond or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
