"""Measure prediction on a folder, from files to files, beside the original project's way.

    python benchmarks/folder.py --images DIR --native DIR --json benchmarks/results/folder.json
    python benchmarks/folder.py --images DIR --memory 100000        memory alone, on links to the images

The original's way is one image after the other: decoding, its network of 6.6 million parameters at 256 x 256 in ONNX
Runtime with its default threads, an overlay as PNG, and a row of a CSV file. Time does not depend on the weights, so
this network is untrained. In every round each way takes the same files once, in an order that rotates, and ratios are
taken within rounds. --images are copied as gray PNG of 299 px, the size of the original's dataset; --native is read as
it is. Phantoms are drawn without --images. The network alone gets prepared images in batches of 8, on all threads of
one session ("all threads") or on one thread per processor ("per processor"), as `hilum predict` runs it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from measuring import command_of, engine_of, machine, publish, spread
from numpy.typing import NDArray
from service import growth, resident

from hilum.backends.base import Backend, ThreadedBackend
from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.config import ModelConfig, PreprocessSpec
from hilum.cpus import available_cpus
from hilum.data.find import find_images
from hilum.imaging.read import read_radiograph
from hilum.inference.folder import predict_folder
from hilum.inference.predictor import Predictor, Ready
from hilum.inference.saving import Wanted
from hilum.phantoms.chest import draw_phantom

ORIGINAL = "original, with overlays"
BOUNDS = {"copies": {"overlays": 10, "masks": 14}, "native": {"overlays": 5, "masks": 8}}
"""Least ratio of the original's time to ours."""
MEMORY_BOUNDS = {"growth": 0.05, "max_mib": 700}
SIDE = 299
_BATCH = 8
_CLASSES = 4

Way = Callable[[Sequence[Path], Path], None]


def as_the_original_draws(image: NDArray[np.uint8], mask: NDArray[np.float32], label: str) -> NDArray[np.uint8]:
    """The original's overlay at the image's size: the lungs (h, w) tinted, and the class in a corner; in place."""
    lung = cv2.resize(mask, image.shape[1::-1]) > 0.5
    image[lung] = (0.7 * image[lung] + (0, 76.5, 0)).astype(np.uint8)
    cv2.putText(image, label, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 0), 2)
    return image


class Original:
    """The original's way of predicting on a folder."""

    def __init__(self) -> None:
        from hilum.export.onnx import export_onnx  # imports torch
        from hilum.models.build import build_model

        spec = PreprocessSpec(size=256, channels=3)
        model = build_model(ModelConfig(name="unet"), spec, _CLASSES).eval()
        self._session = onnxruntime.InferenceSession(export_onnx(model, spec), providers=["CPUExecutionProvider"])

    def __call__(self, files: Sequence[Path], out: Path) -> None:
        (out / "overlays").mkdir(parents=True, exist_ok=True)
        with (out / "predictions.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            for file in files:
                image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
                small = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
                mask, logits = self._session.run(
                    ["segmentation", "classification"], {"input": small.transpose(2, 0, 1)[None]}
                )
                label = str(int(logits[0].argmax()))
                drawn = as_the_original_draws(image, mask[0, 0], label)
                cv2.imwrite(str(out / "overlays" / f"{file.stem}.png"), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
                writer.writerow([file, label, *(f"{value:.6f}" for value in logits[0])])


def hilum_way(predictor: Predictor, save: Wanted) -> Way:
    """`hilum predict` with some options, without its start."""

    def run(files: Sequence[Path], out: Path) -> None:
        predict_folder(predictor, files, out, save=save)

    return run


def network_way(predictor: Predictor, *, per_processor: bool) -> Way:
    """The network alone, on as many prepared images as there are files."""
    backend: Backend | None = predictor.backend
    if per_processor:
        assert isinstance(backend, ThreadedBackend)
        backend = backend.on_one_thread()
    assert backend is not None
    alone, prepared = backend, {}

    def run(files: Sequence[Path], out: Path) -> None:
        if not prepared:
            ready = [item for item in map(predictor.prepare, files[:64]) if isinstance(item, Ready)]
            prepared["batch"] = np.stack([item.image for item in itertools.islice(itertools.cycle(ready), _BATCH)])
        batches = [prepared["batch"]] * (len(files) // _BATCH)
        with ThreadPoolExecutor(available_cpus() if per_processor else 1) as pool:
            list(pool.map(alone.run, batches))

    return run


def ways(predictor: Predictor) -> dict[str, Way]:
    """All ways, by the name of their row."""
    return {
        ORIGINAL: Original(),
        "csv": hilum_way(predictor, Wanted()),
        "masks": hilum_way(predictor, Wanted(masks=True)),
        "overlays": hilum_way(predictor, Wanted(overlays=True)),
        "overlays as JPEG": hilum_way(predictor, Wanted(overlays=True, overlay_format="jpg")),
        "network alone, all threads": network_way(predictor, per_processor=False),
        "network alone, per processor": network_way(predictor, per_processor=True),
    }


def measure(
    named: dict[str, Way], files: Sequence[Path], rounds: int, out: Path
) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor time per image of each way in each round, ms; a few files before them are not counted."""
    names = list(named)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number, way in enumerate(named.values()):
        way(files[: 2 * _BATCH], out / "warm" / str(number))
    for turn in range(rounds):
        for step in range(len(names)):
            name = names[(turn + step) % len(names)]
            wall, processor = time.perf_counter(), time.process_time()
            named[name](files, out / str(turn) / str(step))
            per_image = 1000 / len(files)
            taken[name].append(
                ((time.perf_counter() - wall) * per_image, (time.process_time() - processor) * per_image)
            )
            print(f"round {turn + 1}, {name}: {taken[name][-1][0]:.1f} ms", file=sys.stderr, flush=True)
    return taken


def summary(taken: dict[str, list[tuple[float, float]]], files: int, bounds: dict[str, float]) -> dict[str, Any]:
    """Times of each way, how many times the original's speed it has, and what share of the network's, within rounds."""
    rows = []
    for name, times in taken.items():
        walls = [wall for wall, _ in times]
        faster = [other / own for (other, _), own in zip(taken[ORIGINAL], walls, strict=True)]
        networks = zip(taken["network alone, per processor"], taken["network alone, all threads"], strict=True)
        shares = [(one / own, every / own) for ((one, _), (every, _)), own in zip(networks, walls, strict=True)]
        rows.append({
            "way": name, "wall_ms": spread(walls), "processor_ms": spread([used for _, used in times]),
            "times_the_original": spread(faster), "bound": bounds.get(name),
            "share_of_network_per_processor": spread([one for one, _ in shares]),
            "share_of_network_all_threads": spread([every for _, every in shares]),
        })  # fmt: skip
    return {"files": files, "rows": rows}


def copies(files: Sequence[Path] | None, count: int, folder: Path) -> list[Path]:
    """Gray PNG of 299 px of so many of the files, which are repeated, or of phantoms."""
    folder.mkdir()
    for number in range(count):
        if files is None:
            pixels = draw_phantom(number % 100, ("Normal", "COVID")[number % 2], size=SIDE).image
        else:
            whole = read_radiograph(files[number % len(files)])
            pixels = np.asarray(cv2.resize(whole.pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        cv2.imwrite(str(folder / f"{number:06}.png"), pixels)
    return find_images(folder)


def links(files: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """So many symbolic links to the files."""
    folder.mkdir()
    for number in range(count):
        target = files[number % len(files)]
        (folder / f"{number:06}{target.suffix}").symlink_to(target.resolve())
    return sorted(folder.iterdir())


@contextmanager
def watching(seconds: float) -> Iterator[list[float]]:
    """The resident memory of this process, MiB, every so many seconds."""
    seen: list[float] = []
    ended, own = threading.Event(), os.getpid()

    def watch() -> None:
        while not ended.wait(seconds):
            seen.append(resident(own))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def memory(predictor: Predictor, files: Sequence[Path], out: Path, seconds: float = 1.0) -> dict[str, Any]:
    """Memory while masks and overlays of many files are written; outputs of one name are replaced."""
    with watching(seconds) as seen:
        predict_folder(predictor, files, out, save=Wanted(masks=True, overlays=True))
    figures = {"files": len(files), "max_mib": max(seen), "first_mib": seen[0], "last_mib": seen[-1]}
    return figures | {"growth": growth(seen), "bounds": MEMORY_BOUNDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, metavar="DIR", help="radiographs to copy at 299 px")
    parser.add_argument("--native", type=Path, metavar="DIR", help="radiographs at their own size")
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--count", type=int, default=2000, help="files of 299 px per round")
    parser.add_argument(
        "--native-count", type=int, default=120, help="files at native size per round; links repeat them"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, metavar="N", help="measure the memory on N files instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="result file: folder.json, or folder_memory.json")
    arguments = parser.parse_args()
    before = machine()
    predictor = Predictor(load_bundle(resolve_bundle(arguments.bundle)))
    result: dict[str, Any] = {
        "command": "python benchmarks/folder.py --images DIR --native DIR", "rounds": arguments.rounds,
        "drawn": arguments.images is None, "engine": engine_of(predictor.backend), "sets": {},
        "onnxruntime": onnxruntime.__version__,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        found = None if arguments.images is None else find_images(arguments.images)
        sets = {
            "copies": copies(
                found, min(arguments.count, 500) if arguments.memory else arguments.count, place / "copies"
            )
        }
        if arguments.memory:
            files = links(sets["copies"], arguments.memory, place / "links")
            result = {"command": command_of(parser, arguments),
                      "drawn": arguments.images is None, "engine": engine_of(predictor.backend),
                      "images": len(sets["copies"]), **memory(predictor, files, place / "out")}  # fmt: skip
            publish("folder_memory", result | before, arguments.json)
            return
        if arguments.native is not None:
            sets["native"] = links(find_images(arguments.native), arguments.native_count, place / "links")
        for name, files in sets.items():
            taken = measure(ways(predictor), files, arguments.rounds, place / f"out-{name}")
            result["sets"][name] = summary(taken, len(files), BOUNDS[name])
    publish("folder", result | before, arguments.json)


if __name__ == "__main__":
    main()
