"""The commands that are killed: their arguments, how they are continued, and what they leave."""

from __future__ import annotations

import json
import os
import random
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from killing import work
from killing.compare import contents
from killing.processes import Attempt

Arguments = list[str]
IMAGES, SIDE = 48, 64
CHECKPOINT_MINUTES = 0.003
"""Of the trainings: 0.18 s, a few batches."""


@dataclass(frozen=True)
class Case:
    """A command to kill.

    Attributes:
        name: Its name in the report.
        arguments: Of a first run.
        hooks: Log its work.
        modules: Imported before it is forked.
        rerun: Arguments of a later run; as the first by default.
        prepare: Called before each attempt.
        state: What it leaves outside of its folders.
        main: Whether it is a command of hilum, which can be started anew.
        weight: How often it is drawn.
    """

    name: str
    arguments: Callable[[Attempt], Arguments]
    hooks: Callable[[], None]
    modules: tuple[str, ...]
    rerun: Callable[[Attempt, random.Random], Arguments] | None = None
    prepare: Callable[[Attempt], None] = lambda attempt: None
    state: Callable[[Attempt], dict[str, str]] = lambda attempt: {}
    weight: int = 2

    def again(self, attempt: Attempt, chance: random.Random) -> Arguments:
        """Arguments of a later run."""
        return self.arguments(attempt) if self.rerun is None else self.rerun(attempt, chance)

    def found(self, attempt: Attempt) -> dict[str, str]:
        """The content of its folders, and what it leaves elsewhere."""
        return contents(attempt.place) | self.state(attempt)


@dataclass
class Inputs:
    """Synthetic radiographs, written once; ``url`` is that of the archive."""

    folder: Path
    url: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def phantoms(self) -> Path:
        """A dataset."""
        return self.folder / "phantoms"

    @property
    def images(self) -> Path:
        """Images to predict on, some of which are refused or cannot be read."""
        return self.folder / "images"

    @property
    def dicom(self) -> Path:
        """DICOM files."""
        return self.folder / "dicom"

    def write(self, *, dicom: bool) -> None:
        """Write them."""
        from hilum.phantoms.chest import write_phantoms

        write_phantoms(self.phantoms, IMAGES, size=SIDE)
        write_phantoms(self.images, 16, size=SIDE + 32, seed=1)
        for path in self.images.rglob("*mask*"):
            if path.is_file():
                path.unlink()
        for number in range(2):
            (self.images / f"broken {number}.png").write_bytes(b"no image")
        for path in self.folder.rglob("*"):  # hilum.data.hashes does not trust files of the last seconds
            os.utime(path, (1_700_000_000, 1_700_000_000))
        if dicom:
            sys.path.append(str(Path(__file__).parents[2] / "tests"))
            from dicom_images import content_of, phantom_image

            self.dicom.mkdir()
            for number in range(8):
                content = content_of(phantom_image(4_000_001 + number, size=128))
                (self.dicom / f"{number}.dcm").write_bytes(content)


def cases(inputs: Inputs) -> Mapping[str, Case]:
    """All cases by name."""
    predict = ["predict", str(inputs.images), "--output", "out", "--backend", "onnxruntime", "--quiet"]
    every = ["--save-masks", "--save-overlays", "--save-evidence", "--overlay-size", "96"]
    packaged = ("hilum.cli.predict", "hilum.inference.folder", "hilum.backends.onnxruntime", "onnxruntime", "cv2")
    audit = ["audit", str(inputs.phantoms), "--bundle", "default", "--output", "out/audit", "--limit", "8"]
    audit += ["--permutations", "39", "--resamples", "100"]
    all_of_torch = (
        "hilum.pipeline", "hilum.export.run", "hilum.cli.train", "hilum.export.onnx", "torch.onnx", "monai.metrics",
        "matplotlib.pyplot", "timm", "kornia", "sklearn.covariance",
    )  # fmt: skip
    listed = [
        Case("index", lambda _: ["index", str(inputs.phantoms), "--output", "out/index.csv"], work.files_checked,
             ("hilum.cli.data", "hilum.data.index", "cv2")),
        Case("cache", lambda _: ["cache", str(inputs.phantoms), str(SIDE)], work.files_decoded,
             ("hilum.data.cache", "hilum.data.index", "cv2")),
        Case("predict, CSV", lambda _: [*predict, *every], work.images_prepared, packaged),
        Case("predict, Parquet", lambda _: [*predict, "--save-masks", "--format", "parquet", "--shard-rows", "5"],
             work.images_prepared, (*packaged, "pyarrow.parquet")),
        Case("audit", lambda _: audit, work.steps, ("hilum.audit.run", "hilum.audit.page", "hilum.cli.audit", *packaged,
             "scipy.stats", "matplotlib.pyplot")),
        Case("dicomweb", lambda _: ["dicomweb", inputs.url, "--all"], work.images_stored,
             ("hilum.cli.dicomweb", "hilum.dicomweb.work", "hilum.inference.dicom_out", *packaged),
             prepare=lambda _: _archive(inputs.url, "reset"), state=lambda _: _objects(inputs.url)),
        Case("train", lambda _: _train(inputs), work.batches_and_steps, all_of_torch, rerun=_resume(inputs), weight=3),
    ]  # fmt: skip
    return {case.name: case for case in listed}


def import_all(names: tuple[str, ...]) -> None:
    """Import modules, so that forked processes need not."""
    for name in ("hilum.cli", "hilum.cli.progress", "rich.table", *names):
        import_module(name)


def _train(inputs: Inputs) -> Arguments:
    return [
        "train", str(inputs.phantoms), "--output", "out/run", "--size", str(SIDE), "--epochs", "2",
        "--batch-size", "8", "--set", "model.encoder=tf_efficientnet_lite0", "--set", "training.device=cpu",
        "--set", f"training.checkpoint_minutes={CHECKPOINT_MINUTES}",
    ]  # fmt: skip


def _resume(inputs: Inputs) -> Callable[[Attempt, random.Random], Arguments]:
    def rerun(attempt: Attempt, chance: random.Random) -> Arguments:
        run = attempt.place / "out" / "run"
        begun, saved = (run / "config.toml").exists(), (run / "last.ckpt").exists()
        if saved or (begun and chance.random() < 0.5):
            return ["train", "--resume", "out/run"]
        return _train(inputs)

    return rerun


def _archive(url: str, what: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/{what}", timeout=30) as answer:
        return json.load(answer)


def _objects(url: str) -> dict[str, str]:
    return {f"archive: {uid}": digest for uid, digest in _archive(url, "state")["objects"].items()}


def stored_again(inputs: Inputs) -> int:
    """Objects that the archive got once more."""
    return sum(count - 1 for count in _archive(inputs.url, "state")["stored"].values())
