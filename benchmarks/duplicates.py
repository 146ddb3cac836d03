"""Measure how many planted copies the near-duplicate search finds, how many false pairs it makes, and its time.

    python benchmarks/duplicates.py                     phantoms of 224 x 224, one to three images of a patient
    python benchmarks/duplicates.py --data DIR          class folders or a CSV

All images are decoded, hashed, fingerprinted and searched, which is timed. Then a seeded sample of the images gets one
changed copy each, and everything is searched again: a copy is found when it is joined to its image. Kinds of change:

    rescale         to 70-95% or 105-130% of the size
    crop, center    5% of the side off every edge
    crop, corner    5% off two edges that meet
    gamma           0.5-0.8 or 1.25-2
    JPEG            quality 50
    rotate          1-3 degrees, black corners
    border          black, gray or white, 1-5% of the side on each edge

and two of them in a row (not both crops, which together take 10% off an edge). Images that the first search already
pairs are not changed. Of phantoms, every pair except the planted ones and those of one patient is false: two phantoms
of one patient differ by an affine pose, noise and opacity only, which real images of one person never do. Of real
images, the pairs of the first search may be true copies: they are counted apart, and --sheets DIR draws them side by
side for inspection; false pairs are then those that the copies add. Intervals are exact (Clopper & Pearson 1934).
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring import proportion, publish
from numpy.typing import NDArray

from hilum.audit.duplicates import Pair, find_duplicates, joined
from hilum.audit.verify import THRESHOLD
from hilum.cpus import processor_name
from hilum.data.fingerprint import Fingerprint, fingerprint, stack
from hilum.data.index import build_index
from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import read_radiograph
from hilum.phantoms.chest import write_phantoms
from hilum.storage import sha256_file, write_bytes
from hilum.types import Record

Image = NDArray[np.uint8]
Random = np.random.Generator


def rescale(image: Image, random: Random) -> Image:
    scale = random.choice([random.uniform(0.7, 0.95), random.uniform(1.05, 1.3)])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def crop_center(image: Image, _random: Random) -> Image:
    top, left = (round(0.05 * side) for side in image.shape)
    return image[top : image.shape[0] - top, left : image.shape[1] - left]


def crop_corner(image: Image, random: Random) -> Image:
    top, left = (round(0.05 * side) for side in image.shape)
    image = image[top:] if random.random() < 0.5 else image[:-top]
    return image[:, left:] if random.random() < 0.5 else image[:, :-left]


def change_gamma(image: Image, random: Random) -> Image:
    gamma = random.choice([random.uniform(0.5, 0.8), random.uniform(1.25, 2)])
    return np.rint(255 * (image / 255) ** gamma).astype(np.uint8)


def to_jpeg(image: Image, _random: Random) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_GRAYSCALE)


def rotate(image: Image, random: Random) -> Image:
    height, width = image.shape
    angle = random.choice([-1, 1]) * random.uniform(1, 3)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    return cv2.warpAffine(image, matrix, (width, height))


def add_border(image: Image, random: Random) -> Image:
    height, width = image.shape
    widths = [round(side * random.uniform(0.01, 0.05)) for side in (height, height, width, width)]
    return cv2.copyMakeBorder(image, *widths, cv2.BORDER_CONSTANT, value=int(random.choice([0, 128, 255])))


CHANGES: dict[str, Callable[[Image, Random], Image]] = {
    "rescale": rescale,
    "crop, center": crop_center,
    "crop, corner": crop_corner,
    "gamma": change_gamma,
    "JPEG": to_jpeg,
    "rotate": rotate,
    "border": add_border,
}
TWO_CROPS = {"crop, center", "crop, corner"}
KINDS = [(kind,) for kind in CHANGES] + [two for two in itertools.permutations(CHANGES, 2) if {*two} != TWO_CROPS]


def read(path: Path) -> Image:
    return to_uint8(read_radiograph(path))


def scan(path: Path) -> tuple[Fingerprint, str]:
    return fingerprint(read(path)), sha256_file(path)


def same_group(one: Record, two: Record) -> bool:
    return one.group is not None and one.group == two.group


def plant(paths: Sequence[Path], rows: Sequence[int], singles: float) -> tuple[list[Fingerprint], list[str]]:
    """One changed copy of each image: their fingerprints and kinds; a share ``singles`` is changed once."""
    one, two = ([kind for kind in KINDS if len(kind) == count] for count in (1, 2))
    prints, kinds = [], []
    for number, row in enumerate(rows):
        random = np.random.default_rng((1, row))
        of = one if number < singles * len(rows) else two
        kind = of[number % len(of)]
        image = read(paths[row])
        for name in kind:
            image = CHANGES[name](image, random)
        prints.append(fingerprint(np.ascontiguousarray(image)))
        kinds.append(" + ".join(kind))
    return prints, kinds


def draw_sheets(folder: Path, paths: Sequence[Path], records: Sequence[Record], pairs: Sequence[Pair]) -> None:
    """32 pairs a sheet, least similar first, similarity and sources above, G where both are of one group."""
    cells = []
    for pair in sorted(pairs, key=lambda pair: pair.similarity):
        ends = (pair.first, pair.second)
        images = [cv2.resize(read(paths[row]), (180, 180), interpolation=cv2.INTER_AREA) for row in ends]
        one, two = (records[row] for row in ends)
        same = "G" if same_group(one, two) else ""
        bar = np.zeros((16, 360), np.uint8)
        text = f"{len(cells)} {pair.similarity:.3f} {one.source}/{two.source} {same}"
        cv2.putText(bar, text, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, 255, 1)
        cells.append(np.vstack([bar, np.hstack(images)]))
    cells += [np.zeros((196, 360), np.uint8)] * (-len(cells) % 4)
    rows = [np.hstack(cells[start : start + 4]) for start in range(0, len(cells), 4)]
    for sheet in range(0, len(rows), 8):
        content = cv2.imencode(".png", np.vstack(rows[sheet : sheet + 8]))[1].tobytes()
        write_bytes(folder / f"pairs-{sheet // 8:02d}.png", content)


def first_search(records: Sequence[Record], workers: int) -> tuple[list[Fingerprint], list[str], list[Pair], dict]:
    """Everything a user waits for, timed; ``processor`` is the time of all threads together."""
    start, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(workers) as pool:
        scanned = list(pool.map(scan, [record.image_path for record in records]))
    prints, digests = [one for one, _ in scanned], [digest for _, digest in scanned]
    middle = time.perf_counter()
    pairs = list(find_duplicates(stack(prints), digests, workers=workers))
    end = time.perf_counter()
    seconds = {"decode_hash_fingerprint": middle - start, "search": end - middle, "all": end - start}
    seconds["processor"] = time.process_time() - used
    return prints, digests, pairs, seconds


def measure(records: Sequence[Record], arguments: argparse.Namespace, real: bool) -> dict[str, Any]:
    paths = [record.image_path for record in records]
    prints, digests, before, seconds = first_search(records, arguments.workers)
    if arguments.sheets:
        draw_sheets(arguments.sheets, paths, records, [pair for pair in before if not pair.exact])
    within = [pair for pair in before if same_group(records[pair.first], records[pair.second])]
    result: dict[str, Any] = {
        "images": len(paths),
        "threshold": THRESHOLD,
        "seconds": seconds,
        "workers": arguments.workers,
        "processors": os.cpu_count(),
        "load_before": arguments.load,
        "processor": processor_name(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "before_planting": {
            "exact_pairs": sum(pair.exact for pair in before),
            "near_pairs": sum(not pair.exact for pair in before),
            "of_one_group": len(within),
        },
    }
    taken = {row for pair in before for row in (pair.first, pair.second)}
    free = [row for row in np.random.default_rng(0).permutation(len(paths)).tolist() if row not in taken]
    if arguments.n and free:
        groups = [record.group or record.image_path.name for record in records]
        known = joined(before, len(paths)) if real else np.unique(groups, return_inverse=True)[1]
        result.update(second_search(paths, free[: arguments.n], prints, digests, known, arguments.workers))
    return result


def second_search(
    paths: Sequence[Path],
    planted: Sequence[int],
    prints: list[Fingerprint],
    digests: list[str],
    known: NDArray[np.int64],
    workers: int,
) -> dict[str, Any]:
    """With a copy of each of ``planted``: how many are found, and what else; ``known`` names the images before."""
    count = len(paths)
    copies, kinds = plant(paths, planted, 0.5)
    pairs = find_duplicates(stack(prints + copies), digests + [f"copy {row}" for row in planted], workers=workers)
    cluster = joined(pairs, count + len(copies))
    found = [bool(cluster[row] == cluster[count + number]) for number, row in enumerate(planted)]
    image_of = known[np.concatenate([np.arange(count), planted]).astype(int)]
    wrong = [pair for pair in pairs if image_of[pair.first] != image_of[pair.second]]
    false = {row for pair in wrong for row in (pair.first, pair.second)}
    kind_of = [kind if kind in CHANGES else "two changes" for kind in kinds]
    hits = {
        kind: [hit for hit, own in zip(found, kind_of, strict=True) if own == kind]
        for kind in (*CHANGES, "two changes")
    }
    return {
        "planted": len(planted),
        "recall": {
            **{kind: proportion(sum(own), len(own)) for kind, own in hits.items() if own},
            "all": proportion(sum(found), len(found)),
        },
        "missed": [kind for hit, kind in zip(found, kinds, strict=True) if not hit],
        "false_pairs": len(wrong),
        "images_in_false_pairs": proportion(len(false), count + len(copies)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="class folders or a CSV; phantoms are drawn by default")
    parser.add_argument("--n", type=int, default=3000, help="planted copies, at most; 0 times only")
    parser.add_argument("--phantoms", type=int, default=2000, help="phantoms to draw")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads")
    parser.add_argument("--name", help="what to call the data in the result")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="draw the pairs found before planting")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, e.g. to benchmarks/results")
    arguments = parser.parse_args()
    arguments.load = os.getloadavg()[0]
    cv2.setNumThreads(1)  # the threads are ours
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data or write_phantoms(Path(scratch, "phantoms"), arguments.phantoms, size=224)
        records = build_index(data, check=False).records
        result = measure(records, arguments, real=arguments.data is not None)
    result["data"] = arguments.name or ("given" if arguments.data else "phantoms of 224 x 224")
    publish("duplicates" if "recall" in result else "duplicates_time", result, arguments.json)


if __name__ == "__main__":
    main()
