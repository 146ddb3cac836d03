"""Measure training: images per second beside the original project's loop and network.

    python benchmarks/training.py --data METADATA --json benchmarks/results/training.json
    python benchmarks/training.py --n 32 --rounds 2                on phantoms

The original's way is its network of 6.6 million parameters at 256 x 256 with PyTorch's own settings: every item is
decoded, resized and changed one by one, the network computes in float32 with the channels first, and the optimizer is
AdamW with clipped gradients. The other ways are hilum's loop with that network and the preset `original`, and with the
evidence network and the preset `default`, at 256 x 256 as well; precision, memory layout and threads are those that
`hilum train` would choose, which is measured first. Their images come from the cache, as in training. In every round
each way trains on the same images once, in an order that rotates, and ratios are taken within rounds. Validation and
the writing of files are left out of all. The evidence network is trained as it is later in a run: with lungs that are
known, so that all changes against shortcuts take place.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measuring import machine, publish, spread
from monai.losses.dice import DiceLoss
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from hilum.config import Config, load_config
from hilum.data.cache import open_cache
from hilum.data.index import build_index
from hilum.models.build import build_model
from hilum.models.losses import MultiTaskLoss
from hilum.phantoms.chest import write_phantoms
from hilum.progress import Step
from hilum.training.compute import WORTH, choose_compute
from hilum.training.dataset import CachedDataset, EpochSampler, training_loader
from hilum.training.device import AUTO, now, set_up, using_threads
from hilum.training.dry_run import ConfidentTeacher
from hilum.training.shortcuts import Treatments
from hilum.training.step import TrainingStep
from hilum.types import Record, class_names_of

ORIGINAL = "original"
WAYS = {"original's network in hilum's loop": "original", "evidence network in hilum's loop": "default"}
"""Way to the preset whose settings it has."""
BOUNDS: dict[str, dict[str, float]] = {
    "cpu": dict(zip(WAYS, (1.5, 4), strict=True)),
    "cuda": dict(zip(WAYS, (4, 8), strict=True)),
}
"""Least ratio to the original's images per second."""
SIZE, BATCH = 256, 16

Way = Callable[[int], None]
"""Trains on all images once; the argument is the number of the round."""


class OriginalItems(Dataset[tuple[torch.Tensor, torch.Tensor, int]]):
    """The original's dataset: one decoded, resized and changed image, its mask and label per item."""

    def __init__(self, records: Sequence[Record], labels: NDArray[np.int64]) -> None:
        self._records, self._labels = records, labels

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        record, random = self._records[number], np.random.default_rng()
        image = cv2.resize(np.array(Image.open(record.image_path).convert("RGB")), (SIZE, SIZE))
        mask = np.zeros((SIZE, SIZE), np.float32)
        if record.mask_path is not None:
            read = np.array(Image.open(record.mask_path).convert("L"))
            mask = (cv2.resize(read, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) > 127).astype(np.float32)
        if random.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        if random.random() < 0.3:
            turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), random.uniform(-10, 10), 1.0)
            image = cv2.warpAffine(image, turn, (SIZE, SIZE))
            mask = cv2.warpAffine(mask, turn, (SIZE, SIZE), flags=cv2.INTER_NEAREST)
        pixels = image.astype(np.float32) / 255
        if random.random() < 0.5:
            pixels = np.clip(pixels + random.normal(0, 5 / 255, pixels.shape).astype(np.float32), 0, 1)
        channels_first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return torch.from_numpy(channels_first), torch.from_numpy(mask.copy())[None], int(self._labels[number])


def original_way(records: Sequence[Record], data: CachedDataset, device: torch.device) -> Way:
    """The original's loop on its network."""
    config = load_config("original")
    model = build_model(config.model, config.preprocess, data.num_classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    dice, binary, classes = DiceLoss(squared_pred=True), nn.BCELoss(), nn.CrossEntropyLoss()
    loader = DataLoader(OriginalItems(records, data.labels), batch_size=BATCH, shuffle=True, drop_last=True)

    def train(turn: int) -> None:
        model.train()
        for image, mask, label in loader:
            output = model(image.to(device))
            probability, known = torch.sigmoid(output.mask_logits), mask.to(device)
            segmentation = dice(probability, known) + binary(probability, known)
            loss = segmentation + 2 * classes(output.class_logits, label.to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()

    return train


def hilum_way(preset: Any, data: CachedDataset, device: torch.device) -> tuple[Way, Config]:
    """hilum's loop with a preset, and the settings that it measured."""
    overrides = {"training": {"device": str(device), "batch_size": BATCH}, "preprocess": {"size": SIZE}}
    config = load_config(preset, overrides=overrides)
    spec = config.preprocess
    own = CachedDataset(data.decoded(), data.records, data.class_names, spec)
    torch.manual_seed(0)
    model = build_model(config.model, spec, own.num_classes)
    config = choose_compute(model, own, config, WORTH, Step(found=_say))
    setup = set_up(model, config)
    teacher = ConfidentTeacher(model if setup.ema is None else setup.ema.module, SIZE)
    step = TrainingStep(config, setup, MultiTaskLoss(config.loss), Treatments.of(config, own.class_names), teacher)
    if own.fits(device):
        own = own.resident(device)
    sampler = EpochSampler(own.labels, BATCH, 0)
    loader = training_loader(own, sampler, 0)

    def train(turn: int) -> None:
        sampler.epoch = turn
        setup.wrapped.train()
        with using_threads(config.training.threads):
            for number, batch in enumerate(step.batches(loader, turn)):
                float(step.backward(batch, turn).losses.total.detach())
                step.update()
                if setup.ema:
                    setup.ema.update(model, step=1 + turn * len(sampler) + number)

    return train, config


def _say(findings: Sequence[Any]) -> None:
    for finding in findings:
        print(finding.message, file=sys.stderr, flush=True)


def measure(
    named: dict[str, Way], warm: dict[str, Way], rounds: int, images: int, device: torch.device
) -> dict[str, list[float]]:
    """Images per second of each way in each round; ``warm`` trains on few images before, which are not counted."""
    names = list(named)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for way in warm.values():
        way(0)
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            started = now(device)
            named[name](turn + 1)
            rates[name].append(images / (now(device) - started))
            print(f"round {turn + 1}, {name}: {rates[name][-1]:.2f} images/s", file=sys.stderr, flush=True)
    return rates


def summary(rates: dict[str, list[float]], kind: str, chosen: dict[str, Config]) -> list[dict[str, Any]]:
    """Rates of each way, ratios to the original's within rounds, bounds, and the settings that were measured."""
    rows = []
    for name, own in rates.items():
        ratios = [mine / other for mine, other in zip(own, rates[ORIGINAL], strict=True)]
        settings = {key: getattr(chosen[name].training, key) for key in AUTO} if name in chosen else None
        bound = BOUNDS[kind].get(name)
        rows.append({
            "way": name, "images_per_second": spread(own), "ratio": spread(ratios), "bound": bound,
            "settings": settings,
        })  # fmt: skip
    return rows


def choose(data: Path, n: int) -> tuple[Record, ...]:
    """So many labeled records of the training split, drawn at random; whole batches of them."""
    records = [one for one in build_index(data, check=False).records if one.label is not None]
    records = [one for one in records if one.split in (None, "train")]
    count = math.floor(min(n, len(records)) / BATCH) * BATCH
    chosen = np.random.default_rng(0).permutation(len(records))[:count]
    return tuple(records[row] for row in np.sort(chosen))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="class folders or a CSV; the default is phantoms")
    parser.add_argument("--n", type=int, default=64, help="images per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = parser.parse_args()
    before, device, began = machine(), torch.device(arguments.device), time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data or write_phantoms(Path(scratch, "phantoms"), arguments.n + 2 * BATCH, size=299)
        records = choose(data, arguments.n)
        spec = load_config("original").preprocess
        cached = CachedDataset(
            open_cache(records, spec, Path(scratch, "cache")), records, class_names_of(records), spec
        )
        named, warm, chosen = {}, {}, {}
        named[ORIGINAL] = original_way(records, cached, device)
        warm[ORIGINAL] = original_way(records[:BATCH], cached.subset(range(BATCH)), device)
        for way, preset in WAYS.items():
            named[way], chosen[way] = hilum_way(preset, cached, device)
        rates = measure(named, warm, arguments.rounds, len(records), device)
    result = {
        "command": "python benchmarks/training.py --data METADATA", "size": SIZE, "batch": BATCH,
        "images": len(records), "masks": sum(one.mask_path is not None for one in records),
        "drawn": arguments.data is None, "rounds": arguments.rounds, "device": device.type,
        "torch": torch.__version__, "seconds": time.perf_counter() - began,
        "rows": summary(rates, device.type, chosen),
    }  # fmt: skip
    publish("training", result | before, arguments.json)
    return int(any(row["bound"] and row["ratio"]["median"] < row["bound"] for row in result["rows"]))


if __name__ == "__main__":
    sys.exit(main())
