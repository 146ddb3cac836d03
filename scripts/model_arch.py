"""Train with the original project's settings and flags.

    python scripts/model_arch.py --data_dir DATA

The run is SAVE_DIR/run, as `hilum train --preset original` leaves it; the files under their original names lie in
SAVE_DIR. The same command again goes on with a run that was interrupted.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _shim import run

if TYPE_CHECKING:
    from hilum.config import Config
    from hilum.pipeline import TrainedRun


def main() -> None:
    parser = argparse.ArgumentParser(description="Train with the original project's settings.")
    parser.add_argument("--data_dir", type=Path, required=True, help="data set with class folders")
    parser.add_argument("--num_epochs", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--save_dir", type=Path, default=Path("model_checkpoints"))
    parser.add_argument("--device", help="cuda or cpu; by default cuda where there is one")
    arguments = parser.parse_args()

    from hilum.config import load_config

    training = {
        "epochs": arguments.num_epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
        "device": arguments.device or "auto",
    }
    config = load_config("original", overrides={"data": arguments.data_dir.resolve(), "training": training})
    trained = train(config, arguments.save_dir / "run")
    leave_original_files(trained, config, arguments.save_dir)
    print(f"Model, curves and summary are in {arguments.save_dir}, the whole run in {trained.run.root}.")


def train(config: Config, root: Path) -> TrainedRun:
    """Train into ``root``, or go on with the run there, which must have the same settings."""
    from hilum import pipeline
    from hilum.cli.console import show_findings
    from hilum.cli.progress import StepBars, TrainingBars
    from hilum.progress import Step
    from hilum.run_folder import RunFolder

    folder = RunFolder(root)
    steps = StepBars()
    bars = TrainingBars(steps)
    try:
        step = Step(bars.begin, show_findings)
        return pipeline.train(config, folder, resume=folder.state.exists(), observer=bars, step=step)
    finally:
        bars.close()
        steps.close()


def leave_original_files(trained: TrainedRun, config: Config, save_dir: Path) -> None:
    """Under the original's names; its .pth files are .safetensors, in which nothing can execute."""
    from hilum.data.index import load_index
    from hilum.export.import_original import convert_weights
    from hilum.storage import write_bytes, write_json

    folder, index = trained.run, load_index(trained.run.index)
    kept = {folder.best: "best_covid_model.safetensors"}
    for epoch in range(1, trained.progress.epoch + 1):
        kept[folder.checkpoint(epoch)] = f"checkpoint_epoch_{epoch}.safetensors"
    for weights, name in kept.items():
        if weights.exists():
            convert_weights(weights, save_dir / name, class_names=index.class_names, size=config.preprocess.size)
    write_bytes(save_dir / "training_curves.png", (folder.plots / "training_curves.png").read_bytes())
    summary: dict[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    counts = {f"{name}_samples": count for name, count in summary["images"].items()}
    measured = folder.results("test") / "classification_report.json"  # the original's: val
    summary["final_classification_report"] = json.loads(measured.read_text(encoding="utf-8"))
    summary["dataset_info"] = {
        "total_samples": len(index.records),
        **counts,
        "class_distribution": Counter(record.label for record in index.records if record.label),
    }
    write_json(save_dir / "training_summary.json", summary)


if __name__ == "__main__":
    run(main)
