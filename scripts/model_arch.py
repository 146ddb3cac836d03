"""Train with the original project's settings and options.

    python scripts/model_arch.py --data_dir DATA

The run is written to SAVE_DIR/run, as by `hilum train --preset original`. Files with their original names are in
SAVE_DIR, and next to it in metrices_outputs/ and test_results/; best_covid_model.safetensors replaces the .pth file,
which could execute code when loaded. Repeat the command to resume an interrupted run.
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

BEST = "best_covid_model.safetensors"
CURVES = "training_curves.png"
PANELS = ("loss", "cls_loss", "seg_loss", "accuracy", "dice", "val_auc")
REPORT = "classification_report.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train with the original project's settings.")
    parser.add_argument("--data_dir", type=Path, required=True, help="dataset of class folders")
    parser.add_argument("--num_epochs", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--save_dir", type=Path, default=Path("model_checkpoints"))
    parser.add_argument("--num_workers", type=int, default=0, help="data-loading processes")
    parser.add_argument("--device", help="cuda or cpu (default: cuda if available)")
    arguments = parser.parse_args()

    from hilum.config import load_config

    training = {
        "epochs": arguments.num_epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
        "workers": arguments.num_workers,
        "device": arguments.device or "auto",
    }
    config = load_config("original", overrides={"data": arguments.data_dir.resolve(), "training": training})
    trained = train(config, arguments.save_dir / "run")
    leave_original_files(trained, config, arguments.save_dir)
    print(f"Wrote {arguments.save_dir / BEST} instead of best_covid_model.pth, which could execute code when loaded.")
    print("Plots and tables are in metrices_outputs and test_results, the run is in", trained.run.root)


def train(config: Config, root: Path) -> TrainedRun:
    """Train into ``root``, or resume the run there, which must have the same settings."""
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
    """Copy the run's files to the paths of the original project.

    ``save_dir`` gets the weights, the training curves and the summary; ``metrices_outputs`` and ``test_results``
    next to it get plots and tables. Weights are .safetensors instead of .pth files, which could execute code.
    """
    from hilum.data.index import load_index
    from hilum.export.import_original import convert_weights
    from hilum.storage import write_bytes, write_json

    folder, index = trained.run, load_index(trained.run.index)
    kept = {folder.best: BEST}
    for epoch in range(1, trained.progress.epoch + 1):
        kept[folder.checkpoint(epoch)] = f"checkpoint_epoch_{epoch}.safetensors"
    for weights, name in kept.items():
        if weights.exists():
            convert_weights(weights, save_dir / name, class_names=index.class_names, size=config.preprocess.size)
    test = folder.results("test")  # the original's metrices_outputs were of the validation split
    copies = {
        save_dir: {CURVES: folder.plots / CURVES},
        save_dir.parent / "metrices_outputs": {
            CURVES: folder.plots / CURVES,
            **{f"{name}_curve.png": folder.plots / f"{name}.png" for name in PANELS},
            "metrics_epochwise.csv": folder.metrics,
            "confusion_matrix.png": test / "plots" / "confusion_matrix.png",
            "roc_curves.png": test / "plots" / "roc_curves.png",
            "sample_overlays.png": test / "sample_overlays.png",
            REPORT: test / REPORT,
        },
        save_dir.parent / "test_results": {
            "confusion_matrix_test.png": test / "plots" / "confusion_matrix.png",
            "roc_curves_test.png": test / "plots" / "roc_curves.png",
            REPORT: test / REPORT,
        },
    }
    for place, files in copies.items():
        for name, source in files.items():
            if source.exists():  # a split without labels has no confusion matrix
                write_bytes(place / name, source.read_bytes())
    summary: dict[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    counts = {f"{name}_samples": count for name, count in summary["images"].items()}
    summary["final_classification_report"] = json.loads((test / REPORT).read_text(encoding="utf-8"))
    summary["dataset_info"] = {
        "total_samples": len(index.records),
        **counts,
        "class_distribution": Counter(record.label for record in index.records if record.label),
    }
    write_json(save_dir / "training_summary.json", summary)


if __name__ == "__main__":
    run(main)
