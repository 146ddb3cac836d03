"""The paths of a run's files, which are named here and nowhere else, and whether a folder can take a new run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hilum.errors import DataError, OutputError
from hilum.storage import sha256_text


@dataclass(frozen=True)
class RunFolder:
    """A run's folder: what ``hilum train`` leaves and ``evaluate``, ``export`` and ``--resume`` read."""

    root: Path

    @property
    def config(self) -> Path:
        """The whole configuration, as TOML."""
        return self.root / "config.toml"

    @property
    def index(self) -> Path:
        """The records trained on, as CSV."""
        return self.root / "index.csv"

    @property
    def findings(self) -> Path:
        """What was wrong with the data's files when they were indexed, as JSON."""
        return self.root / "findings.json"

    @property
    def split(self) -> Path:
        """Which record is in which split, as JSON with its hash."""
        return self.root / "split.json"

    @property
    def state(self) -> Path:
        """Everything needed to go on after the last whole epoch."""
        return self.root / "last.ckpt"

    @property
    def start(self) -> Path:
        """What a run that fine-tunes a bundle started from, as JSON."""
        return self.root / "start.json"

    @property
    def start_hashes(self) -> Path:
        """The hashes of the images that the bundle of ``start`` was trained on, where it carries them."""
        return self.root / "start_hashes.npy"

    @property
    def best(self) -> Path:
        """The weights of the epoch with the lowest validation loss."""
        return self.root / "best.safetensors"

    def checkpoint(self, epoch: int) -> Path:
        """The weights kept after ``epoch``, counted from 1."""
        return self.root / "checkpoints" / f"epoch_{epoch:04d}.safetensors"

    @property
    def metrics(self) -> Path:
        """One row per epoch."""
        return self.root / "metrics_epochwise.csv"

    @property
    def plots(self) -> Path:
        """Training curves and sample overlays."""
        return self.root / "plots"

    @property
    def summary(self) -> Path:
        """What was trained, for how long, and what came out."""
        return self.root / "training_summary.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def calibration(self) -> Path:
        """What was fitted on the validation split, as JSON, with the SHA-256 of the weights it is of."""
        return self.root / "calibration.json"

    def held_out(self, source: str) -> Path:
        """The run that was trained without ``source``; its name as a folder can have it."""
        plain = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in source)
        return self.root / "held_out" / f"{plain}-{sha256_text(source)[:8]}"

    @property
    def bundle(self) -> Path:
        """The exported bundle."""
        return self.root / "bundle"

    def results(self, split: str) -> Path:
        """The folder of an evaluation on ``split``: ``test/``."""
        return self.root / split


def require_new(run: RunFolder, data: Path | None) -> None:
    """Create the folder of a new run, and check that it can be written and holds no run, and that the data exist.

    Cheap, so that it comes before all work. What an attempt left that trained no epoch is no run.

    Raises:
        DataError: There is nothing at ``data``; nothing is created.
        OutputError: The folder holds a run, or cannot be written.
    """
    if data is not None and not data.exists():
        raise DataError(f"The data '{data}' do not exist.", hint="Name a folder of class folders, or a CSV.")
    if (run.bundle / "bundle.json").exists():
        raise OutputError(
            f"{run.root} holds a finished run.",
            hint=f"Choose another --output, or measure the run with `hilum evaluate {run.root}`.",
        )
    if run.state.exists():
        raise OutputError(
            f"{run.root} holds a run that is not finished.",
            hint=f"Continue it with `hilum train --resume {run.root}`, or choose another --output.",
        )
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run.root):
            pass
    except OSError as error:
        raise OutputError(
            f"Cannot write to {run.root}: {error.strerror or error}.", hint="Choose another --output."
        ) from error
