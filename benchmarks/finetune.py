"""Compare fine-tuning a bundle on few images with training from ImageNet weights for as many image passes.

    python benchmarks/finetune.py ../shared/data/metadata.csv --bundle BUNDLE --json benchmarks/results/finetune.json

Two classes of one source, by default Normal and Lung_Opacity of `nih`. For each size and seed, that many images of each
class are drawn from the training split; both networks have the bundle's architecture and preprocessing, the same number
of image passes and the settings of `hilum train` (fine-tuning has the lower learning rate), without treatments against
shortcuts, since there is one source. Where the training images have no masks, as those of `nih`, the network from
ImageNet has no lung gate, since nothing could train it. The epoch is chosen on the whole validation split for both. A
small set is repeated, augmented anew each time, so that epochs have one length. The figure is the AUROC on the test
split, averaged over the seeds; intervals and differences resample the test images' groups within classes, the same for
both networks, and leave out the choice of training images: the JSON file has the AUROC of each seed. The bundle itself
is measured too.

THE PACKAGED BUNDLE HAS SEEN THESE TRAINING IMAGES: it was trained on the training split of all sources, including nih.
The benchmark measures how few images keep or change what it knows, and how far ImageNet weights come with them. It does
not measure a hospital that the bundle has never seen; for that, give a bundle that was trained without the source. The
result says which sources the bundle names. Neither network has seen the test split.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from measuring import publish

from hilum.backends.pytorch import PyTorchBackend
from hilum.bundle.bundle import Manifest, load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.config import Config, load_config
from hilum.data.cache import open_cache
from hilum.data.index import build_index
from hilum.data.split import make_split, records_of
from hilum.evaluation.measure import score_records
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, weighted_auc
from hilum.models.build import build_model, load_pretrained
from hilum.models.weights import load_weights
from hilum.run_folder import RunFolder
from hilum.storage import as_json, cache_folder
from hilum.training.dataset import CachedDataset
from hilum.training.from_bundle import load_from_bundle, settings_from_bundle
from hilum.training.loop import fit
from hilum.training.observer import Silent
from hilum.types import SPLIT_NAMES, Record, SplitName

WAYS = ("finetuned", "imagenet")
NO_TREATMENTS = {"background_p": 0.0, "erase_p": 0.0, "lesion_p": 0.0}
BATCH = 16


class Images(NamedTuple):
    """The three splits of the two classes."""

    datasets: Mapping[SplitName, CachedDataset]
    keys: Sequence[str]  # of the test images


def images_of(data: Path, source: str, classes: tuple[str, str], config: Config) -> Images:
    """The labeled images of one source and two classes, decoded."""
    index = build_index(data, classes=classes, check=False)
    split = make_split(index, config.split)
    datasets: dict[SplitName, CachedDataset] = {}
    records: Sequence[Record] = ()
    for name in SPLIT_NAMES:
        records = [r for r in records_of(index, split, name) if r.source == source and r.label in classes]
        if len({record.label for record in records}) < len(classes):
            raise SystemExit(f"Expected images of {' and '.join(classes)} from {source} in {name}, got not all")
        datasets[name] = CachedDataset(
            open_cache(records, config.preprocess, cache_folder()), records, classes, config.preprocess
        )
    return Images(datasets, [index.key(record) for record in records])


def settings_of(way: str, arguments: argparse.Namespace, seed: int) -> Config:
    """What ``hilum train`` would take for a way, with the same epochs and preprocessing for both."""
    training = {"epochs": arguments.epochs, "batch_size": BATCH, "seed": seed, "device": "cpu", "early_stopping": 0}
    chosen: dict[str, Any] = {"preprocess": {"size": arguments.size}, "training": training, "shortcuts": NO_TREATMENTS}
    tuned = settings_from_bundle(arguments.bundle, "default", None, chosen)
    if way == "finetuned":
        return tuned
    same = {"preprocess": tuned.preprocess.model_dump(), "model": tuned.model.model_dump()}
    return load_config("default", None, {**chosen, **same})


def drawn(images: CachedDataset, per_class: int, per_epoch: int, seed: int) -> CachedDataset:
    """``per_class`` images of each class, the same for both ways, repeated to ``per_epoch``."""
    generator = np.random.default_rng([seed, per_class])
    rows = [generator.permutation(np.flatnonzero(images.labels == k))[:per_class] for k in range(images.num_classes)]
    if any(own.size < per_class for own in rows):
        raise SystemExit(f"Expected {per_class} training images of each class, got {[own.size for own in rows]}")
    return images.subset(np.resize(np.concatenate(rows), per_epoch).tolist())


def trained(way: str, images: Images, per_class: int, seed: int, arguments: argparse.Namespace) -> Scores:
    """One network, trained on the drawn images, on the test split."""
    config = settings_of(way, arguments, seed)
    val = images.datasets["val"]
    if way == "imagenet" and not masks_of(images):  # nothing to train the gate with
        config = config.model_copy(update={"model": config.model.model_copy(update={"lung_gate": False})})
    torch.manual_seed(seed)
    model = build_model(config.model, config.preprocess, val.num_classes)
    if way == "finetuned":
        load_from_bundle(model, config, val.class_names)
    else:
        load_pretrained(model, config.model)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        train = drawn(images.datasets["train"], per_class, arguments.per_epoch, seed)
        fit(model, train, val, config, run, Silent(), identity=way)
        load_weights(model, run.best)
    return scored(PyTorchBackend(model), images, val.class_names, config)


def masks_of(images: Images) -> int:
    """Training images that have a lung mask."""
    return sum(record.mask_path is not None for record in images.datasets["train"].records)


def scored(backend: PyTorchBackend, images: Images, names: tuple[str, ...], config: Config) -> Scores:
    """A network on the test split."""
    records = images.datasets["test"].records
    cache = open_cache(records, config.preprocess, cache_folder())
    return score_records(
        backend, cache, records, images.keys, names, config.preprocess, split="test", distances=False
    ).scores


def rank(scores: Scores, classes: tuple[str, str]) -> FloatArray:
    """(N,): the logit of the second class less that of the first."""
    if scores.logits is None:
        raise SystemExit("Expected logits")
    negative, positive = (scores.class_names.index(name) for name in classes)
    return np.asarray(scores.logits[:, positive] - scores.logits[:, negative])


def measured(
    ranks: Mapping[str, Sequence[FloatArray]], positive: np.ndarray, clusters: np.ndarray, resamples: int
) -> dict[str, Interval]:
    """The mean AUROC over the seeds of each way, and how much more it is than that of the last way."""
    names = list(ranks)

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        means = {n: np.mean([weighted_auc(positive, own, weights) for own in ranks[n]], axis=0) for n in names}
        return means | ({"difference": means[names[0]] - means[names[-1]]} if len(names) > 1 else {})

    every = np.ones(positive.size, np.bool_)
    keys = [*names, *(["difference"] if len(names) > 1 else [])]
    return bootstrap(
        statistics,
        dict.fromkeys(keys, every),
        clusters,
        strata=positive.astype(np.int64),
        bounds={key: (-1.0 if key == "difference" else 0.0, 1.0) for key in keys},
        resamples=resamples,
    )


def row_of(images: Images, per_class: int, classes: tuple[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    """One size: both ways, all seeds."""
    scores: dict[str, list[Scores]] = {way: [] for way in WAYS}
    for seed in range(arguments.seeds):
        for way in WAYS:
            began = time.perf_counter()
            scores[way].append(trained(way, images, per_class, seed, arguments))
            print(f"{per_class} a class, seed {seed}, {way}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    first = scores[WAYS[0]][0]
    positive = first.labels == 1
    ranks = {way: [rank(one, classes) for one in own] for way, own in scores.items()}
    found = measured(ranks, positive, first.clusters(), arguments.resamples)
    ones = np.ones((1, positive.size))
    each = {way: [float(weighted_auc(positive, own, ones)[0]) for own in ranks[way]] for way in WAYS}
    return {"per_class": per_class, **{name: as_json(value) for name, value in found.items()}, "by_seed": each}


def untouched(manifest: Manifest, images: Images, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The bundle without any training, where it knows both classes."""
    test = images.datasets["test"]
    classes: tuple[str, str] = (arguments.negative, arguments.positive)
    if not {*classes} <= {*manifest.class_names}:
        return None
    config = settings_of("finetuned", arguments, 0)
    model = build_model(config.model, config.preprocess, len(manifest.class_names))
    load_from_bundle(model, config, manifest.class_names)
    scores = scored(PyTorchBackend(model), images, manifest.class_names, config)
    found = measured({"auc": [rank(scores, classes)]}, test.labels == 1, scores.clusters(), arguments.resamples)
    return as_json(found["auc"])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="dataset: a CSV with a split column")
    parser.add_argument("--bundle", default="default", help="bundle to start from: default, a folder or a .hilum file")
    parser.add_argument("--source", default="nih")
    parser.add_argument("--negative", default="Normal")
    parser.add_argument("--positive", default="Lung_Opacity")
    parser.add_argument("--per-class", type=int, nargs="+", default=[8, 16, 32], help="training images per class")
    parser.add_argument("--seeds", type=int, default=3, help="number of draws of the training images")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--per-epoch", type=int, default=96, help="image passes per epoch")
    parser.add_argument("--size", type=int, default=128, help="side of the input, pixels")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/finetune.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    classes = (arguments.negative, arguments.positive)
    manifest = load_bundle(resolve_bundle(arguments.bundle)).manifest
    images = images_of(arguments.data, arguments.source, classes, settings_of("finetuned", arguments, 0))
    before = untouched(manifest, images, arguments)
    rows = [row_of(images, count, classes, arguments) for count in arguments.per_class]
    counts = {n: {c: int((d.labels == k).sum()) for k, c in enumerate(classes)} for n, d in images.datasets.items()}
    result = {
        "bundle": {"id": manifest.bundle_id, "name": manifest.name, "network": manifest.model.name},
        "bundle_saw_source": arguments.source in manifest.sources if manifest.sources else None,
        "source": arguments.source, "classes": classes, "images": counts, "size": arguments.size,
        "masks": masks_of(images),
        "image_passes": arguments.epochs * arguments.per_epoch, "epochs": arguments.epochs, "seeds": arguments.seeds,
        "resamples": arguments.resamples, "untouched": before, "rows": rows,
        "seconds": time.perf_counter() - began, "command": f"python benchmarks/finetune.py --bundle {manifest.name}",
    }  # fmt: skip
    publish("finetune", result, arguments.json)


if __name__ == "__main__":
    main()
