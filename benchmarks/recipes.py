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
from ablation import OFF, RECIPE, on_validation, pointing

from hilum.config import Config, load_config, merge
from hilum.cpus import processor_name
from hilum.models.build import build_model, load_pretrained
from hilum.models.weights import load_weights
from hilum.run_folder import RunFolder
from hilum.storage import as_json, sha256_text, write_json
from hilum.training.loop import fit
from hilum.training.observer import Silent
from hilum.training.prepare import PreparedData, prepare

SHORT: dict[str, Any] = {"epochs": 2, "precision": "bf16-mixed", "device": "cpu"}
NO_MEASURES = {"shortcuts": OFF}
THIN = {"shortcuts": {"background_p": 0.15, "erase_p": 0.1, "lesion_p": 0.2}}


class Recipe(NamedTuple):
    """What each stage changes in the packaged model's settings, and the share of the training images that it uses."""

    stages: Sequence[dict[str, Any]]
    share: float = 1.0


RECIPES = {
    "as packaged": Recipe([{}]),
    "encoder-unet, no measures": Recipe([{**NO_MEASURES, "model": {"name": "encoder-unet"}}]),
    "no measures": Recipe([NO_MEASURES]),
    "thin measures in the second epoch": Recipe([NO_MEASURES, {**THIN, "training": {"learning_rate": 4e-4}}]),
    "decoder of four stages": Recipe([{"model": {"decoder_channels": [96, 48, 24, 16]}}]),
    "cells of 8 pixels": Recipe([{"model": {"evidence_stride": 8}}]),
    "pooling: log-sum-exp": Recipe([{"model": {"pooling": "lse"}}]),
    "label smoothing 0.1": Recipe([{"loss": {"label_smoothing": 0.1}}]),
    "natural sampling": Recipe([{"training": {"sampling": "natural"}}]),
    "half of the images": Recipe([{}], share=0.5),
    "a quarter of the images": Recipe([{}], share=0.25),
}


def settings(data: Path, recipe: Recipe, seed: int) -> list[Config]:
    """The settings of the stages of a recipe, for the same number of image passes in all."""
    epochs = round(SHORT["epochs"] / recipe.share) // len(recipe.stages)
    common = {"data": data, "training": {**SHORT, "epochs": epochs, "seed": seed}}
    return [load_config(path=RECIPE, overrides=merge(common, stage)) for stage in recipe.stages]


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


def measured(model: torch.nn.Module, config: Config, data: PreparedData, limit: int) -> dict[str, Any]:
    """Measure one run."""
    return {
        **on_validation(model, config, data, limit),
        "pointing": pointing(model, data, config, ("train", "val")),
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
        base = load_config(path=RECIPE, overrides={"data": arguments.data, "training": SHORT})
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
