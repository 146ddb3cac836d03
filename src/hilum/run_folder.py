"""File layout of a run's folder, and the check that a folder can take a new run.

Other modules take these paths from here. Reading and writing the files is done by their own packages.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hilum.errors import ConfigError, DataError, OutputError
from hilum.filesystems import is_uri
from hilum.storage import sha256_text


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run, written by ``hilum train`` and read by ``evaluate``, ``export`` and ``--resume``.

    Attributes:
        root: The run's folder.
    """

    root: Path

    SEEDS: ClassVar[str] = "seeds.json"
    """Name of the file in a folder of runs from several seeds (hilum.seeds)."""

    @property
    def config(self) -> Path:
        """All settings, TOML."""
        return self.root / "config.toml"

    @property
    def compute(self) -> Path:
        """Precision, memory layout and threads where a setting of them is ``auto``, and their measurement, JSON."""
        return self.root / "compute.json"

    @property
    def index(self) -> Path:
        """The indexed records, CSV."""
        return self.root / "index.csv"

    @property
    def findings(self) -> Path:
        """Findings of the file checks, JSON."""
        return self.root / "findings.json"

    @property
    def split(self) -> Path:
        """The split of each record and its hash, JSON."""
        return self.root / "split.json"

    @property
    def state(self) -> Path:
        """Training state after the last completed epoch, for resuming."""
        return self.root / "last.ckpt"

    @property
    def start(self) -> Path:
        """The bundle that a fine-tuning run started from, JSON."""
        return self.root / "start.json"

    @property
    def start_hashes(self) -> Path:
        """Hashes of the images that the bundle in ``start`` was trained on, if it contains them."""
        return self.root / "start_hashes.npy"

    @property
    def best(self) -> Path:
        """Weights of the epoch with the lowest validation loss."""
        return self.root / "best.safetensors"

    def checkpoint(self, epoch: int) -> Path:
        """Return the path of the weights kept after ``epoch``, counted from 1."""
        return self.root / "checkpoints" / f"epoch_{epoch:04d}.safetensors"

    @property
    def metrics(self) -> Path:
        """Metrics of each epoch, CSV with one row per epoch."""
        return self.root / "metrics_epochwise.csv"

    @property
    def plots(self) -> Path:
        """Training curves and sample overlays."""
        return self.root / "plots"

    @property
    def summary(self) -> Path:
        """Summary of the training: versions, data, duration and test metrics, JSON."""
        return self.root / "training_summary.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def calibration(self) -> Path:
        """Calibration fitted on the validation split, and the SHA-256 of its weights, JSON."""
        return self.root / "calibration.json"

    def validation_predictions(self, weights: str) -> Path:
        """Return the path of the predictions on the validation split, at temperature 1, of these weights."""
        return self.root / f"validation_{weights[:12]}.csv"

    def unfinished(self, split: str, weights: str) -> Path:
        """Return the path of the network's output on a split, which is there while it is evaluated."""
        return self.root / f"unfinished_{split}_{weights[:12]}.npz"

    def held_out(self, source: str) -> Path:
        """Return the folder of the run that was trained without ``source``."""
        plain = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in source)
        return self.root / "held_out" / f"{plain}-{sha256_text(source)[:8]}"

    @property
    def bundle(self) -> Path:
        """The exported bundle."""
        return self.root / "bundle"

    def results(self, split: str) -> Path:
        """Return the folder of the evaluation on ``split``, such as ``test/``."""
        return self.root / split


def new_root(out: str | os.PathLike[str] | None) -> Path:
    """Return the folder of a new run: ``out``, or ``runs/<time>``.

    Raises:
        ConfigError: ``out`` is an address.
    """
    if is_uri(out):
        raise ConfigError(
            f"A run is written to a folder of this machine, not to '{out}'.",
            hint="Store its bundle at an address afterwards: hilum export RUN --output s3://bucket/model.hilum",
        )
    return Path(out) if out is not None else Path("runs") / time.strftime("%Y%m%d-%H%M%S")


def seed_run(root: Path, seed: int) -> RunFolder:
    """Return the run of one seed in a folder of runs from several seeds."""
    return RunFolder(root / f"seed-{seed}")


def read_seeds(root: Path) -> dict[str, Any] | None:
    """Return the content of ``seeds.json`` in a folder of runs from several seeds; None where there is none."""
    path = root / RunFolder.SEEDS
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_summary(run: RunFolder) -> dict[str, Any]:
    """Return the content of a run's ``training_summary.json``; empty where there is none."""
    if not run.summary.is_file():
        return {}
    content: dict[str, Any] = json.loads(run.summary.read_text(encoding="utf-8"))
    return content


def require_new(run: RunFolder, data: Path | str | None) -> None:
    """Create the folder of a new run. Checks first that ``data`` exists and that the folder holds no run.

    An address is not checked. Fast, so that it can run before any other work. A folder without a completed epoch does
    not count as a run.

    Raises:
        DataError: ``data`` does not exist; nothing is created.
        OutputError: The folder holds a run, or cannot be written.
    """
    if isinstance(data, Path) and not data.exists():
        raise DataError(f"Dataset '{data}' does not exist.", hint="Name a folder of class folders, or a CSV.")
    if (run.bundle / "bundle.json").exists():
        raise OutputError(
            f"'{run.root}' already contains a finished run.",
            hint=f"Choose another --output, or evaluate the run: hilum evaluate {run.root}",
        )
    if run.state.exists():
        raise OutputError(
            f"'{run.root}' contains an unfinished run.",
            hint=f"Continue it with `hilum train --resume {run.root}`, or choose another --output.",
        )
    require_writable(run)


def require_writable(run: RunFolder) -> None:
    """Create the folder of a run if it does not exist, and check that files can be written to it.

    Raises:
        OutputError: The folder cannot be created or written.
    """
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run.root):
            pass
    except OSError as error:
        raise OutputError(
            f"Cannot write to '{run.root}': {error.strerror or error}.", hint="Choose another --output."
        ) from error
