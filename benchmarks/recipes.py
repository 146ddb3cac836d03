"""Compare training recipes in short runs, from several random seeds each.

    python benchmarks/recipes.py ../shared/data/metadata.csv --json benchmarks/results/recipes.json

Every recipe is trained from ImageNet weights for two epochs of the training split in bfloat16, with the settings of the
packaged model (configs/default-model.toml) and what the recipe changes in them. A recipe of two stages has one epoch
for each; one with a share of the images has more epochs of them. Runs are measured on the validation split without
calibration: classes, AUROCs within a source, Dice, the shortcut audit on images drawn from it, and the pointing game on
the marked images of train and val, whose marks no training sees. The intervals of a run are of the images; the spread
over the seeds is of training again. Runs that the result file already has are skipped, so that it can be made in
pieces.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hilum.audit.model_shortcuts import audit_model
from hilum.audit.treatments import HEADLINE, SWAPPED
from hilum.backends.pytorch import PyTorchBackend
from hilum.config import Config, load_config, merge
from hilum.cpus import processor_name
from hilum.evaluation.localization import EVIDENCE, PREDICTED, PRIOR, localization_result, localize
from hilum.evaluation.localization_table import LocalizationTable
from hilum.evaluation.measure import Scored, score_records
from hilum.metrics.table import Key, figures_of
from hilum.models.build import build_model, load_pretrained
from hilum.models.weights import load_weights
from hilum.run_folder import RunFolder
from hilum.storage import as_json, sha256_text, write_json
from hilum.training.dataset import CachedDataset
from hilum.training.loop import fit
from hilum.training.observer import Silent
from hilum.training.prepare import PreparedData, prepare

BASE = Path(__file__).resolve().parents[1] / "configs" / "default-model.toml"
SHORT: dict[str, Any] = {"epochs": 2, "precision": "bf16-mixed", "device": "cpu"}
OFF = {"shortcuts": {"background_p": 0.0, "erase_p": 0.0, "lesion_p": 0.0}}
THIN = {"shortcuts": {"background_p": 0.15, "erase_p": 0.1, "lesion_p": 0.2}}


class Recipe(NamedTuple):
    """What each stage changes in the settings of BASE, and the share of the training images that it uses."""

    stages: Sequence[dict[str, Any]]
    share: float = 1.0


RECIPES = {
    "as packaged": Recipe([{}]),
    "encoder-unet, no measures": Recipe([{**OFF, "model": {"name": "encoder-unet"}}]),
    "no measures": Recipe([OFF]),
    "thin measures in the second epoch": Recipe([OFF, {**THIN, "training": {"learning_rate": 4e-4}}]),
    "decoder of four stages": Recipe([{"model": {"decoder_channels": [96, 48, 24, 16]}}]),
    "cells of 8 pixels": Recipe([{"model": {"evidence_stride": 8}}]),
    "pooling: log-sum-exp": Recipe([{"model": {"pooling": "lse"}}]),
    "label smoothing 0.1": Recipe([{"loss": {"label_smoothing": 0.1}}]),
    "natural sampling": Recipe([{"training": {"sampling": "natural"}}]),
    "half of the images": Recipe([{}], share=0.5),
    "a quarter of the images": Recipe([{}], share=0.25),
}
FIGURES = {
    "accuracy": Key("accuracy"),
    "macro_f1": Key("macro_f1"),
    "dice": Key("dice"),
    "kermany_normal_opacity": Key("roc_auc", "Lung_Opacity", "kermany", "Normal"),
    "kermany_viral_bacterial": Key("roc_auc", "Lung_Opacity", "kermany", "Viral Pneumonia"),
    "nih_normal_opacity": Key("roc_auc", "Lung_Opacity", "nih", "Normal"),
}


def settings(data: Path, recipe: Recipe, seed: int) -> list[Config]:
    """The settings of the stages of a recipe, for the same number of image passes in all."""
    epochs = round(SHORT["epochs"] / recipe.share) // len(recipe.stages)
    common = {"data": data, "training": {**SHORT, "epochs": epochs, "seed": seed}}
    return [load_config(path=BASE, overrides=merge(common, stage)) for stage in recipe.stages]


def trained(configs: Sequence[Config], data: PreparedData, share: float) -> torch.nn.Module:
    """The network after all stages, each of which begins with the best weights of the one before.

    A share below 1 of the training images is drawn by the seed.
    """
    train, val = data.datasets["train"], data.datasets["val"]
    first = configs[0]
    if share < 1:
        drawn = np.random.default_rng(first.training.seed).permutation(len(train))[: round(share * len(train))]
        train = train.subset(np.sort(drawn).tolist())
    torch.manual_seed(first.training.seed)
    model = build_model(first.model, first.preprocess, train.num_classes)
    load_pretrained(model, first.model)
    rows = np.sort(np.random.default_rng(0).permutation(len(val))[:400]).tolist()
    for config in configs:
        identity = sha256_text(f"{config.model_dump_json(exclude={'data'})} {data.split.digest}")
        with tempfile.TemporaryDirectory() as folder:
            run = RunFolder(Path(folder))
            fit(model, train, val.subset(rows), config, run, Silent(), identity=identity)
            load_weights(model, run.best)
    return model.eval()


def scored(model: torch.nn.Module, data: CachedDataset, config: Config, split: str) -> Scored:
    """Every row of ``data`` through the network, with its lungs."""
    names = [str(row) for row in range(len(data))]
    return score_records(
        PyTorchBackend(model), data.decoded(), data.records, names, data.class_names, config.preprocess, split=split,
        keep_lungs=True, distances=False,
    )  # fmt: skip


def pointing(model: torch.nn.Module, data: PreparedData, config: Config) -> dict[str, Any]:
    """The pointing game on the images of train and val with a marked finding."""
    rows = []
    for name in ("train", "val"):
        own = data.datasets[name]
        images = own.subset([row for row, record in enumerate(own.records) if record.boxes or record.region_path])
        if not len(images):
            continue
        result = scored(model, images, config, name)
        assert result.lungs is not None
        table = localize(
            images.records, images.decoded().images, result.lungs, result.scores, config.preprocess,
            backend=PyTorchBackend(model), network=model,
        )  # fmt: skip
        rows += list(table.rows) if table else []
    found = localization_result(LocalizationTable(tuple(rows)))
    hits = {method: own["hit"] for method, own in found.methods.items() if "hit" in own}
    return {"images": found.images, **{name: hits[name] for name in (PREDICTED, EVIDENCE, PRIOR) if name in hits}}


def measured(model: torch.nn.Module, config: Config, data: PreparedData, limit: int) -> dict[str, Any]:
    """Measure one run."""
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
        "refitted_auc_without_lungs": audit.score(HEADLINE).refitted_auc,
        "accuracy_other_background": audit.score(SWAPPED).accuracy,
        "pointing": pointing(model, data, config),
    }


def continued(file: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """The result file, or an empty result with this header.

    Raises:
        SystemExit: The file was made with other settings.
    """
    if not file.is_file():
        return {**header, "recipes": {}}
    result: dict[str, Any] = json.loads(file.read_text())
    if {key: result.get(key) for key in header} != header:
        raise SystemExit(f"{file} has other settings than {header}.")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="dataset: a CSV with a split column")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="result file, continued if it exists")
    parser.add_argument(
        "--recipe", action="append", choices=list(RECIPES), help="run this recipe only; repeat the option for more"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="random seeds")
    parser.add_argument("--limit", type=int, default=600, help="number of images of the shortcut audit")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = load_config(path=BASE, overrides={"data": arguments.data, "training": SHORT})
        data = prepare(base, RunFolder(Path(folder)))
        header = {
            "command": "python benchmarks/recipes.py metadata.csv",
            "passes": SHORT["epochs"] * len(data.datasets["train"]),
            "images": arguments.limit, "split_digest": data.split.digest,
            "settings": base.model_dump(mode="json", exclude={"data"}),
        }  # fmt: skip
        result = continued(arguments.json, header)
        for seed in arguments.seeds:
            for name in arguments.recipe or RECIPES:
                runs = result["recipes"].setdefault(name, {})
                if str(seed) in runs:
                    continue
                recipe = RECIPES[name]
                configs = settings(arguments.data, recipe, seed)
                run = measured(trained(configs, data, recipe.share), configs[0], data, arguments.limit)
                runs[str(seed)] = as_json({"processor": processor_name(), **run})
                write_json(arguments.json, result)
                figures = runs[str(seed)]["figures"]
                print(name, seed, *(f"{key} {figures[key]['value']:.3f}" for key in figures), flush=True)


if __name__ == "__main__":
    main()
