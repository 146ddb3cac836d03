"""Measure what each part of the network and of its training contributes, in short runs that differ in one thing.

    python benchmarks/ablation.py ../shared/data/metadata.csv --json benchmarks/results/ablation.json

Every variant is trained from ImageNet weights with the settings of configs/default-model.toml, on the same images,
drawn once from the training split, for the same number of image passes. It is measured without calibration: classes,
AUROCs within a source and Dice on the whole validation split; the shortcut audit on images drawn from it; the pointing
game on all images with a marked finding, those of the test split apart (the others were trained on, without their
marks). One seed: the intervals are of the images, not of training again. Variants that the result file already has are
skipped, so that it can be made in pieces. With --weights, variants that were trained before are measured without
training, such as into a new result file.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum.audit.model_shortcuts import audit_model
from hilum.audit.treatments import CHECK, HEADLINE, SWAPPED
from hilum.backends.pytorch import PyTorchBackend
from hilum.config import Config, load_config, merge
from hilum.evaluation.localization import EVIDENCE, PRIOR, localization_result, localize
from hilum.evaluation.localization_table import LocalizationTable
from hilum.evaluation.measure import Scored, score_records
from hilum.metrics.table import Key, figures_of
from hilum.models.build import build_model, load_pretrained
from hilum.models.weights import load_weights, save_weights
from hilum.run_folder import RunFolder
from hilum.storage import as_json, sha256_text, write_json
from hilum.training.dataset import CachedDataset
from hilum.training.loop import fit
from hilum.training.observer import Silent
from hilum.training.prepare import PreparedData, prepare

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "default-model.toml"
SHORT = {"training": {"epochs": 1, "device": "cpu"}}
OFF = {"background_p": 0.0, "erase_p": 0.0, "lesion_p": 0.0}
PLAIN_IMAGE = {"blur_p": 0.0, "coarsen_p": 0.0, "codec_p": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "encoder-unet, none of these": {
        "model": {"name": "encoder-unet"}, "shortcuts": OFF, "augment": {**PLAIN_IMAGE, "flip_p": 0.0},
        "training": {"sampling": "natural"},
    },
    "without drawn opacities": {"shortcuts": {"lesion_p": 0.0}},
    "without erased lungs": {"shortcuts": {"erase_p": 0.0}},
    "without backgrounds": {"shortcuts": {"background_p": 0.0}},
    "without the lung gate": {"model": {"lung_gate": False}},
    "natural sampling": {"training": {"sampling": "natural"}},
    "without flips": {"augment": {"flip_p": 0.0}},
    "without blur, coarsening, JPEG": {"augment": PLAIN_IMAGE},
    "pooling: pcam": {"model": {"pooling": "pcam"}},
    "pooling: log-sum-exp": {"model": {"pooling": "lse"}},
    "pooling: average": {"model": {"pooling": "average"}},
    "cells of 8 pixels": {"model": {"evidence_stride": 8}},
    "cells of 32 pixels": {"model": {"evidence_stride": 32}},
}  # fmt: skip
FIGURES = {
    "accuracy": Key("accuracy"),
    "macro_f1": Key("macro_f1"),
    "dice": Key("dice"),
    "kermany_normal_opacity": Key("roc_auc", "Lung_Opacity", "kermany", "Normal"),
    "kermany_viral_bacterial": Key("roc_auc", "Lung_Opacity", "kermany", "Viral Pneumonia"),
    "nih_normal_opacity": Key("roc_auc", "Lung_Opacity", "nih", "Normal"),
}


def settings(data: Path, variant: Mapping[str, Any]) -> Config:
    """The settings of one variant: the packaged model's recipe in one epoch, and what the variant changes in it."""
    return load_config(path=RECIPE, overrides=merge({**SHORT, "data": data}, variant))


def weights_file(folder: Path, name: str) -> Path:
    """The file of a variant's weights."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.safetensors"


def identity_of(config: Config, data: PreparedData, train: CachedDataset) -> str:
    """Hash what the weights follow from: settings, split and training images."""
    keys = sorted(data.index.key(record) for record in train.records)
    return sha256_text(f"{config.model_dump_json(exclude={'data'})} {data.split.digest} {json.dumps(keys)}")


def trained(config: Config, data: PreparedData, train: CachedDataset, weights: Path | None) -> torch.nn.Module:
    """The network after its image passes, or with the weights in the file ``weights`` of an earlier call.

    The validation images only give the loop something to validate on.

    Raises:
        SystemExit: The weights are of other settings or images.
    """
    torch.manual_seed(config.training.seed)
    model = build_model(config.model, config.preprocess, train.num_classes)
    identity = identity_of(config, data, train)
    if weights is not None and weights.is_file():
        if load_weights(model, weights).get("identity") != identity:
            raise SystemExit(f"{weights} was trained with other settings or images.")
        return model.eval()
    load_pretrained(model, config.model)
    val = data.datasets["val"]
    rows = sorted(np.random.default_rng(0).permutation(len(val))[:400].tolist())
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        fit(model, train, val.subset(rows), config, run, Silent(), identity=identity)
        load_weights(model, run.best)
    if weights is not None:
        save_weights(weights, model.state_dict(), {"identity": identity})
    return model.eval()


def scored(model: torch.nn.Module, data: CachedDataset, config: Config, split: str) -> Scored:
    """Every row of ``data`` through the network, with its lungs."""
    names = [str(row) for row in range(len(data))]
    return score_records(
        PyTorchBackend(model), data.decoded(), data.records, names, data.class_names, config.preprocess, split=split,
        keep_lungs=True, distances=False,
    )  # fmt: skip


def pointing(model: torch.nn.Module, data: PreparedData, config: Config, splits: tuple[str, ...]) -> dict[str, Any]:
    """The pointing game on the images of ``splits`` with a marked finding."""
    rows = []
    for name, own in data.datasets.items():
        marked = [row for row, record in enumerate(own.records) if record.boxes or record.region_path]
        if name not in splits or not marked:
            continue
        images = own.subset(marked)
        result = scored(model, images, config, name)
        assert result.lungs is not None
        table = localize(
            images.records, images.decoded().images, result.lungs, result.scores, config.preprocess,
            backend=PyTorchBackend(model), network=model,
        )  # fmt: skip
        rows += list(table.rows) if table else []
    found = localization_result(LocalizationTable(tuple(rows)))
    hits = {method: own["hit"] for method, own in found.methods.items() if "hit" in own}
    less = {
        f"{each.method} less {each.against}": each.difference
        for each in found.differences
        if each.measure == "hit" and (each.method, each.against) == (EVIDENCE, PRIOR)
    }
    return {"images": found.images, **hits, **less}


def on_validation(model: torch.nn.Module, config: Config, data: PreparedData, limit: int) -> dict[str, Any]:
    """Measure a network on the validation split; the shortcut audit on ``limit`` images of it."""
    val = data.datasets["val"]
    result = scored(model, val, config, "val")
    figures = figures_of(result.scores)
    part = np.sort(np.random.default_rng(0).permutation(len(val))[:limit])
    assert result.lungs is not None
    audit = audit_model(
        PyTorchBackend(model), val.decoded().images[part], result.lungs[part], val.labels[part], val.class_names,
        result.scores.clusters()[part], config.preprocess,
    )  # fmt: skip
    return {
        "figures": {name: figures[key] for name, key in FIGURES.items()},
        "shortcut_index": audit.shortcut_index,
        "auc_without_lungs": audit.score(HEADLINE).auc,
        "auc_without_lungs_gray": audit.score(CHECK).auc,
        "refitted_auc_without_lungs": audit.score(HEADLINE).refitted_auc,
        "information_kept": audit.score(HEADLINE).information_kept,
        "accuracy_other_background": audit.score(SWAPPED).accuracy,
    }


def measured(model: torch.nn.Module, config: Config, data: PreparedData, limit: int) -> dict[str, Any]:
    """Measure one variant."""
    return {
        **on_validation(model, config, data, limit),
        "pointing_test": pointing(model, data, config, ("test",)),
        "pointing_train_val": pointing(model, data, config, ("train", "val")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="dataset: a CSV with a split column")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="result file, continued if it exists")
    parser.add_argument(
        "--variant", action="append", choices=list(VARIANTS), help="run this variant only; repeat the option for more"
    )
    parser.add_argument("--passes", type=int, default=6400, help="image passes per run")
    parser.add_argument("--limit", type=int, default=600, help="number of images of the shortcut audit")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="keep trained weights here; use those there")
    parser.add_argument("--train-only", action="store_true", help="train into --weights without measuring")
    arguments = parser.parse_args()
    if arguments.train_only and arguments.weights is None:
        parser.error("--train-only needs --weights")
    result = json.loads(arguments.json.read_text()) if arguments.json.is_file() else {"variants": {}}
    with tempfile.TemporaryDirectory() as folder:
        base = settings(arguments.data, {})
        data = prepare(base, RunFolder(Path(folder)))
        rows = np.random.default_rng(0).permutation(len(data.datasets["train"]))[: arguments.passes]
        train = data.datasets["train"].subset(sorted(rows.tolist()))
        header = {"passes": len(train), "size": base.preprocess.size, "images": arguments.limit, "erased": HEADLINE,
                  "split_digest": data.split.digest,
                  "settings": base.model_dump(mode="json", exclude={"data"})}  # fmt: skip
        if result["variants"] and {key: result.get(key) for key in header} != header:
            raise SystemExit(f"{arguments.json} has other settings than {header}.")
        for name in arguments.variant or VARIANTS:
            if name in result["variants"]:
                continue
            config = settings(arguments.data, VARIANTS[name])
            weights = None if arguments.weights is None else weights_file(arguments.weights, name)
            model = trained(config, data, train, weights)
            print(f"trained: {name}", flush=True)
            if arguments.train_only:
                continue
            result["variants"][name] = as_json(measured(model, config, data, arguments.limit))
            ordered = {known: result["variants"][known] for known in VARIANTS if known in result["variants"]}
            write_json(arguments.json, {**header, "planned": list(VARIANTS), "variants": ordered})
            print(name, json.dumps(result["variants"][name]["figures"]["macro_f1"]), flush=True)


if __name__ == "__main__":
    main()
