"""Measure images per second from the cache and by decoding each item as the original project did.

    python benchmarks/loader.py                     phantoms of 299 x 299, like the COVID-19 Radiography Database
    python benchmarks/loader.py --data DIR          class folders or a CSV

The following take turns over the same images in the same random order, on one thread:

    decode         per item: PIL open, convert to RGB, np.array, cv2.resize to 256 x 256, / 255, CHW float32
    cached batch, 3 channels    the Batch of 16 that training gets from CachedDataset: float32 in [0, 1]
    cached batch, 1 channel     the same, gray, as the default preset trains

No masks. All files and the cache's pages are in the page cache after the first round, which is not counted: the disk is
not measured. Building the cache is timed apart.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from measuring import machine, publish, spread
from numpy.typing import NDArray
from PIL import Image

from hilum.config import PreprocessSpec
from hilum.data.cache import Cache, open_cache
from hilum.data.index import build_index
from hilum.phantoms.chest import write_phantoms
from hilum.training.dataset import CachedDataset
from hilum.types import Record, class_names_of

BATCH = 16
SPECS = {channels: PreprocessSpec(size=256, channels=channels, fit="stretch") for channels in (1, 3)}

Work = Callable[[NDArray[np.int64]], object]


def decode_item(path: Path) -> NDArray[np.float32]:
    """What the original project's dataset did for one image: (3, 256, 256) float32 in [0, 1]."""
    image = np.array(Image.open(path).convert("RGB"))
    image = cv2.resize(image, (256, 256)).astype(np.float32) / 255.0
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def ways(records: Sequence[Record], cache: Cache) -> dict[str, Work]:
    """Each maps the rows of a batch to that batch."""
    rgb, gray = (CachedDataset(cache, records, class_names_of(records), SPECS[channels]) for channels in (3, 1))
    return {
        "decode": lambda rows: np.stack([decode_item(records[row].image_path) for row in rows]),
        "cached batch, 3 channels": lambda rows: rgb.__getitems__(rows.tolist()),
        "cached batch, 1 channel": lambda rows: gray.__getitems__(rows.tolist()),
    }


def rate(work: Work, orders: list[NDArray[np.int64]]) -> float:
    """Images per second over whole passes in the given orders."""
    start = time.perf_counter()
    for order in orders:
        for first in range(0, len(order), BATCH):
            work(order[first : first + BATCH])
    return sum(map(len, orders)) / (time.perf_counter() - start)


def measure(records: Sequence[Record], cache: Cache, rounds: int) -> dict[str, list[float]]:
    """Per way, its rate in each round; within a round the ways take turns on the same images."""
    random = np.random.default_rng(0)
    works = ways(records, cache)
    rates: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        order = random.permutation(len(records))
        for name, work in works.items():
            # A pass over the cache is too short to time alone.
            passes = 1 if name == "decode" else 20
            value = rate(work, [order, *(random.permutation(len(records)) for _ in range(passes - 1))])
            if turn:  # the first round warms the page cache
                rates[name].append(value)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="class folders or a CSV; the default is phantoms")
    parser.add_argument("--n", type=int, default=512, help="maximum number of images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures, e.g. benchmarks/results/loader.json"
    )
    arguments = parser.parse_args()
    before = machine()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data or write_phantoms(Path(scratch, "phantoms"), arguments.n, size=299)
        records = build_index(data, check=False).records
        chosen = np.random.default_rng(0).permutation(len(records))[: arguments.n]
        records = tuple(replace(records[row], mask_path=None) for row in chosen)
        start = time.perf_counter()
        cache = open_cache(records, SPECS[1], Path(scratch, "cache"))
        build_seconds = time.perf_counter() - start
        rates = measure(records, cache, arguments.rounds)
    ratios = {name: [a / b for a, b in zip(own, rates["decode"], strict=True)] for name, own in rates.items()}
    result = {
        "images": len(records),
        "data": "given" if arguments.data else "phantoms of 299 x 299, 8-bit gray PNG",
        "rounds": arguments.rounds,
        "batch": BATCH,
        "size": 256,
        "threads": 1,
        "page_cache": "warm",
        "build_images_per_second": len(records) / build_seconds,
        "images_per_second": {name: spread(values) for name, values in rates.items()},
        "ratio_to_decode": {name: spread(values) for name, values in ratios.items()},
    }
    publish("loader", result | before, arguments.json)


if __name__ == "__main__":
    main()
