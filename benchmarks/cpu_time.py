"""Measure the time per image on the CPU: the packaged network in ONNX Runtime and the original one in PyTorch eager.

    python benchmarks/cpu_time.py                  256 x 256, batch 1, on 1 and on 2 threads, 15 rounds

Time does not depend on the weights, so both networks are untrained. The packaged network in PyTorch and the original
one in ONNX Runtime are timed too. In every round each network and engine predicts on the same images, in an order that
rotates; the ratio is taken within rounds and shown with its range. Preprocessing is not included. Run it on an idle
machine: the result includes the load average at the start.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from measuring import machine, publish, spread

from hilum.backends.base import Backend, Floats
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.pytorch import PyTorchBackend
from hilum.config import ModelConfig, PreprocessSpec
from hilum.export.onnx import export_onnx
from hilum.models.build import build_model, count_parameters

BOUND = 1 / 6
CLASSES = 4
ORIGINAL = "unet"


def spec_of(name: str, size: int) -> PreprocessSpec:
    """The input of a network: three channels for the original."""
    return PreprocessSpec(size=size, channels=3 if name == ORIGINAL else 1)


def ways(shipped: str, size: int, threads: int) -> dict[str, tuple[Backend, Floats]]:
    """Each way's engine and an image for it; the first is what is shipped, the second what it is measured against."""
    found: dict[str, dict[str, tuple[Backend, Floats]]] = {}
    for name in (shipped, ORIGINAL):
        spec = spec_of(name, size)
        model = build_model(ModelConfig(name=name), spec, CLASSES).eval()
        image = np.random.default_rng(0).random((1, spec.channels, size, size), np.float32)
        found[name] = {
            "ONNX Runtime": (OnnxRuntimeBackend(export_onnx(model, spec), threads=threads), image),
            "PyTorch eager": (PyTorchBackend(model), image),
        }
    order = [
        (shipped, "ONNX Runtime"), (ORIGINAL, "PyTorch eager"), (shipped, "PyTorch eager"), (ORIGINAL, "ONNX Runtime"),
    ]  # fmt: skip
    return {f"{name}, {engine}": found[name][engine] for name, engine in order}


def seconds_of(backend: Backend, image: Floats, count: int) -> tuple[float, float]:
    """Wall and processor time per image; one image before them is not counted."""
    backend.run(image)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        backend.run(image)
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def measure(
    engines: dict[str, tuple[Backend, Floats]], rounds: int, count: int
) -> dict[str, list[tuple[float, float]]]:
    """Per way its times in each round; the first round warms up and is dropped."""
    names = list(engines)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for step in range(len(names)):
            name = names[(turn + step) % len(names)]
            taken[name].append(seconds_of(*engines[name], count))
    return {name: values[1:] for name, values in taken.items()}


def summary(taken: dict[str, list[tuple[float, float]]], threads: int) -> dict[str, Any]:
    """Milliseconds of each way, and its ratio to the second, the original network in PyTorch, within rounds."""
    against = taken[list(taken)[1]]
    rows = []
    for name, times in taken.items():
        wall = [1000 * one for one, _ in times]
        ratios = [one / other for (one, _), (other, _) in zip(times, against, strict=True)]
        processor = spread([1000 * used for _, used in times])
        rows.append({"way": name, "wall_ms": spread(wall), "processor_ms": processor, "ratio": spread(ratios)})
    return {"threads": threads, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=ModelConfig().name, help="packaged network")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=5, help="images per network, engine and round")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/cpu_time.json")
    arguments = parser.parse_args()
    before, results = machine(), []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        engines = ways(arguments.network, arguments.size, threads)
        results.append(summary(measure(engines, arguments.rounds, arguments.count), threads))
    parameters = {
        name: count_parameters(build_model(ModelConfig(name=name), spec_of(name, arguments.size), CLASSES))
        for name in (arguments.network, ORIGINAL)
    }
    result = {
        "command": "python benchmarks/cpu_time.py",
        "size": arguments.size, "batch": 1, "rounds": arguments.rounds, "images_per_round": arguments.count,
        "network": arguments.network, "original": ORIGINAL, "parameters": parameters, "results": results,
        "bound": BOUND, "torch": torch.__version__, "onnxruntime": onnxruntime.__version__,
    }  # fmt: skip
    publish("cpu_time", result | before, arguments.json)
    for own in results:
        met = own["rows"][0]["ratio"]["median"] <= BOUND
        print(f"{own['threads']} threads: {'met' if met else 'NOT met'} by the median: at most 1/6 = {BOUND:.3f}")


if __name__ == "__main__":
    main()
