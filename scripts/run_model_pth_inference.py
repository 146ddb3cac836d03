"""Predict with PyTorch and the original project's options: annotated images and a table.

    python scripts/run_model_pth_inference.py --data_dir DATA --checkpoint best_covid_model.pth

To predict with a bundle, use `hilum predict --backend pytorch`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _shim import CHECKPOINT, answer, choose_samples, find_checkpoint, parse_inference, run


def main() -> None:
    parser = argparse.ArgumentParser(description="Predict on radiographs with PyTorch.")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--device", help="cuda or cpu (default: cuda if available)")
    arguments = parse_inference(parser, save_dir="output_results")

    from hilum.backends.pytorch import PyTorchBackend
    from hilum.bundle.bundle import Bundle
    from hilum.config import load_config
    from hilum.export.import_original import read_checkpoint
    from hilum.inference.predictor import Predictor
    from hilum.training.device import open_fabric

    file = find_checkpoint(arguments.checkpoint)
    original = read_checkpoint(file)
    device = open_fabric(load_config("original", overrides={"training": {"device": arguments.device or "auto"}})).device
    bundle = Bundle(original.manifest.sealed({file.name: file.read_bytes()}), {}, file)
    predictor = Predictor(bundle, backend=PyTorchBackend(original.model, str(device)))
    samples = choose_samples(arguments, original.manifest.class_names)
    answer(predictor, samples, arguments.save_dir, "sample")


if __name__ == "__main__":
    run(main)
