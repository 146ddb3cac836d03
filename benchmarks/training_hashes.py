"""Measure how many altered copies of training images their hashes find, and how many unseen images they match.

    python benchmarks/training_hashes.py metadata.csv [--native DIR] --json benchmarks/results/training_hashes.json
    python benchmarks/training_hashes.py metadata.csv --into BUNDLE --json benchmarks/results/training_hashes.json

The training and validation images of the table's own split are hashed as a bundle keeps them, from squares of the
packaged model's side (128) and of 224 pixels. A seeded sample of them is copied and looked for, from squares of either
side. Every copy is resized (longest side 128 to 1,024 pixels) and encoded as JPEG or WebP (quality 60 to 95), after

    resized         nothing else
    cropped         up to 2% of the side off each edge
    bordered        black, gray or white, up to 4% of the side on each edge

Unseen images are the test images of the same split: no group (a patient, near-duplicates) is in both. The hash and its
threshold were chosen with ``--split val``, which looks for validation images among the hashes of the training images
alone. ``--native`` names radiographs at their own size, with an index.csv whose ``twin`` is an image of the table: real
copies. Intervals are exact (Clopper & Pearson 1934).

``--into`` hashes the table's training and validation images of the bundle's classes and sources, and puts the hashes
into a bundle that was exported without them, as the packaged model was. The JSON file describes them under
``packaged``, for the model card.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring import proportion
from numpy.typing import NDArray

from hilum.bundle.bundle import load_bundle, write_bundle
from hilum.bundle.training_hashes import KnownImages
from hilum.config import PreprocessSpec
from hilum.cpus import processor_name
from hilum.data.image_hash import HASH_BYTES, MATCH_BITS, METHOD, find_known, image_hashes, nearest_bits
from hilum.data.index import build_index
from hilum.format import count, format_interval
from hilum.imaging.preprocess import fit_image, to_uint8
from hilum.imaging.read import read_radiograph
from hilum.storage import write_json
from hilum.types import Radiograph, Record

Image = NDArray[np.uint8]
Random = np.random.Generator
SIDES = (128, 224)
QUERIES, KNOWN = 10_000, 100_000
NOTE = (
    "The hashes were made after the training, from the training and validation images of the split of 29 November "
    "2026. That split keeps all images of both parts of the one before it, by which the model was trained, but at most "
    "7 that were left out, and has at most 134 more, which were moved into training."
)
"""Of the packaged model, which was exported before bundles carried hashes."""
BOUNDS = {"found": 0.98, "false": 0.001}


def crop(image: Image, random: Random) -> Image:
    top, bottom, left, right = (int(random.uniform(0, 0.02) * image.shape[edge // 2]) for edge in range(4))
    return image[top : image.shape[0] - bottom, left : image.shape[1] - right]


def border(image: Image, random: Random) -> Image:
    widths = [round(random.uniform(0, 0.04) * image.shape[edge // 2]) for edge in range(4)]
    return cv2.copyMakeBorder(image, *widths, cv2.BORDER_CONSTANT, value=int(random.choice([0, 128, 255])))


CHANGES: dict[str, Callable[[Image, Random], Image]] = {
    "resized": lambda image, _random: image, "cropped": crop, "bordered": border,
}  # fmt: skip


def copied(image: Image, kind: str, random: Random) -> Image:
    """Changed, resized, encoded and decoded again."""
    image = CHANGES[kind](image, random)
    scale = np.exp(random.uniform(np.log(128), np.log(1024))) / max(image.shape)
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else int(random.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    image = cv2.resize(image, size, interpolation=interpolation)
    suffix, flag = ((".jpg", cv2.IMWRITE_JPEG_QUALITY), (".webp", cv2.IMWRITE_WEBP_QUALITY))[random.integers(2)]
    encoded = cv2.imencode(suffix, image, [flag, int(random.uniform(60, 95))])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def squares(image: Image, bits_stored: int = 8) -> list[Image]:
    """One fitted square for each of SIDES."""
    return [fit_image(Radiograph(image, bits_stored), PreprocessSpec(size=side)) for side in SIDES]


def of_files(paths: Sequence[Path], kind_of: Callable[[int], str] | None = None) -> list[list[Image]]:
    """Squares of files, or of a copy of each: for each of SIDES a list, in the order of the files."""

    def read(number: int) -> list[Image]:
        image = to_uint8(read_radiograph(paths[number]))
        if kind_of is not None:
            image = copied(image, kind_of(number), np.random.default_rng((1, number)))
        return squares(np.ascontiguousarray(image))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [list(own) for own in zip(*pool.map(read, range(len(paths))), strict=True)]


def twins(folder: Path, table: Path, trained: Sequence[str]) -> list[Path]:
    """The native files whose twin is in one of the splits ``trained`` of ``table``."""
    with (folder / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with table.open(newline="", encoding="utf-8") as stream:
        split_of = {row["image"]: row["split"] for row in csv.DictReader(stream)}
    return [folder / row["file"] for row in rows if split_of.get(row["twin"]) in trained]


def timing() -> dict[str, Any]:
    random = np.random.default_rng(0)
    queries, known = (random.integers(0, 256, (n, HASH_BYTES), np.uint8) for n in (QUERIES, KNOWN))
    start = time.perf_counter()
    nearest_bits(queries, known)
    return {"queries": QUERIES, "hashes": KNOWN, "seconds": time.perf_counter() - start, "processors": os.cpu_count(),
            "load": os.getloadavg()[0], "processor": processor_name()}  # fmt: skip


def measure(
    records: Sequence[Record], split: str, trained: Sequence[str], n: int, native: Sequence[Path]
) -> dict[str, Any]:
    known = [record.image_path for record in records if record.split in trained and record.label]
    unseen = [record.image_path for record in records if record.split == split and record.label]
    hashes = [image_hashes(own) for own in of_files(known)]
    chosen = np.random.default_rng(0).permutation(len(known))[:n]
    kinds = list(CHANGES)
    copies = of_files([known[row] for row in chosen], lambda number: kinds[number % len(kinds)])
    others, originals = of_files(unseen), of_files(native) if native else None
    result: dict[str, Any] = {
        "method": METHOD, "bits": 8 * HASH_BYTES, "match_bits": MATCH_BITS, "split": split, "hashes_of": list(trained),
        "hashes": len(known), "unseen": len(unseen), "planted": len(chosen), "by_sides": [],
    }  # fmt: skip
    for of, side in enumerate(SIDES):
        for by, query in enumerate(SIDES):
            found = find_known(copies[by], hashes[of])
            entry = {
                "hashed_at": side, "looked_for_at": query,
                "found": {
                    **{kind: _share(found[number :: len(kinds)]) for number, kind in enumerate(kinds)},
                    "all": _share(found),
                },
                "false": _share(find_known(others[by], hashes[of])),
            }  # fmt: skip
            if originals is not None:
                entry["native"] = _share(find_known(originals[by], hashes[of]))
            result["by_sides"].append(entry)
    return result


def _share(found: NDArray[np.bool_]) -> dict[str, float]:
    return proportion(int(found.sum()), len(found))


def put_into(bundle: Path, records: Sequence[Record]) -> dict[str, Any]:
    """Write hashes of the training and validation images in ``records`` into ``bundle``; the manifest's field."""
    opened = load_bundle(bundle)
    manifest = opened.manifest
    sources = set(manifest.sources)
    paths = [
        record.image_path
        for record in records
        if record.split in ("train", "val") and record.label in manifest.class_names and record.source in sources
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        fitted = list(pool.map(lambda path: fit_image(read_radiograph(path), manifest.preprocess), paths))
    facts, files = KnownImages("all", image_hashes(fitted)).files(NOTE)
    contents = {name: opened.read(name) for name in manifest.files}
    write_bundle(bundle, manifest.model_copy(update=facts), {**contents, **files})
    return facts["training_hashes"].model_dump()


def show(result: dict[str, Any]) -> None:
    print(
        f"{result['planted']:,} copies, {result['unseen']:,} unseen images ({result['split']} split), "
        f"{result['hashes']:,} hashes ({' and '.join(result['hashes_of'])}), at most {result['match_bits']} of "
        f"{result['bits']} bits"
    )
    for entry in result["by_sides"]:
        print(f"hashed at {entry['hashed_at']}, looked for at {entry['looked_for_at']}")
        for kind, share in entry["found"].items():
            print(f"  found, {kind:9} {shown(share)}")
        if "native" in entry:
            print(f"  found, native    {shown(entry['native'])}")
        print(f"  false            {shown(entry['false'])}")
    time_ = result["time"]
    print(
        f"{time_['queries']:,} against {time_['hashes']:,} hashes: {time_['seconds']:.1f} s, load {time_['load']:.1f}"
    )


def shown(share: dict[str, Any]) -> str:
    """A proportion in words: ``2,963 of 3,000, 98.8% (98.3–99.1%)``."""
    return f"{count(share['hits'])} of {count(share['n'])}, {format_interval(share, 1, percent=True)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV with a split column")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="split whose images are unseen")
    parser.add_argument("--n", type=int, default=3000, help="number of planted copies")
    parser.add_argument("--native", type=Path, metavar="DIR", help="radiographs at their own size, with index.csv")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, e.g. to benchmarks/results")
    parser.add_argument("--into", type=Path, metavar="BUNDLE", help="put hashes into BUNDLE in place of measuring")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # the threads are ours
    records = build_index(arguments.table, check=False).records
    known = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json and arguments.json.exists() else {}
    if arguments.into:
        known["packaged"] = put_into(arguments.into, records)
        print(f"{known['packaged']['images']:,} hashes in {arguments.into}")
        if arguments.json:
            write_json(arguments.json, known)
        return 0
    trained = ("train",) if arguments.split == "val" else ("train", "val")
    native = twins(arguments.native, arguments.table, trained) if arguments.native else []
    result = {**measure(records, arguments.split, trained, arguments.n, native), "time": timing()}
    show(result)
    if arguments.json:
        write_json(arguments.json, {**result, **{key: known[key] for key in ("packaged",) if key in known}})
    passed = all(
        entry["found"]["all"]["value"] >= BOUNDS["found"] and entry["false"]["value"] <= BOUNDS["false"]
        for entry in result["by_sides"]
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
