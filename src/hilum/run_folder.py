"""The places of a run's files. Every path in a run's folder is named here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
