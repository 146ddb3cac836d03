"""A folder prediction to be killed, with a network of no weights: ``main`` takes IN OUT FORMAT LOG."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import BackendOutput
from hilum.bundle.bundle import Bundle, Manifest
from hilum.config import ModelConfig, PreprocessSpec
from hilum.data.find import find_images
from hilum.gate import ClassicGate, Thresholds
from hilum.inference.folder import predict_folder
from hilum.inference.predictor import Predictor
from hilum.inference.saving import Wanted

SHARD_ROWS = 16


class Slow:
    """Lung where it is bright; the class by the mean; 10 ms a batch."""

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        time.sleep(0.01)
        mean = images.mean((1, 2, 3))
        return BackendOutput(images[:, :1], np.stack([0.3 - mean, mean - 0.3], 1), None)

    def on_one_thread(self) -> Slow:
        return self


class Logging(Predictor):
    """Appends the name of each image that it prepares to a file."""

    log: Path

    def prepare(self, source):  # type: ignore[no-untyped-def]
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{source.name!r}\n".encode())
        os.close(descriptor)
        return super().prepare(source)


Kind = TypeVar("Kind", bound=Predictor)


def bright(kind: type[Kind] = Predictor, name: str = "bright") -> Kind:  # type: ignore[assignment]
    """A predictor of images of 64 pixels with two threads."""
    manifest = Manifest(
        name=name, class_names=("dark", "bright"), preprocess=PreprocessSpec(size=64), model=ModelConfig()
    )
    gate = ClassicGate(Thresholds(minimum_side=48))
    return kind(Bundle(manifest, {}, Path("bright")), backend=Slow(), gate=gate, batch_size=4, threads=2)


def predict(
    images: Path,
    out: Path,
    kind: Literal["csv", "parquet"],
    log: Path,
    *,
    name: str = "bright",
    save: Wanted = Wanted(masks=True, overlays=True, overlay_size=64),  # noqa: B008  # frozen
    **options: object,
) -> int:
    """Predict and return the number of images done earlier."""
    predictor = bright(Logging, name=name)
    predictor.log = log
    found = find_images(images)
    done = predict_folder(
        predictor,
        found,
        out,
        save=save,
        table_format=kind,
        shard_rows=SHARD_ROWS,
        **options,  # type: ignore[arg-type]
    )
    return done.resumed


def main() -> None:
    """Predict as the command line says."""
    images, out, kind, log = sys.argv[1:]
    assert kind in ("csv", "parquet")
    predict(Path(images), Path(out), kind, Path(log))  # type: ignore[arg-type]
