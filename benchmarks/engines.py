"""Measure the packaged network in every engine and precision of this machine, at 128 and at 224 pixels.

    python benchmarks/engines.py --json                writes benchmarks/results/engines-PROCESSOR.json
    python benchmarks/engines.py --sizes 128 --rounds 3

At another size than its own, the packaged network is exported again with the same weights, and where it has an int8
graph, it is quantized again; time does not depend on the calibration images, so phantoms are used. In every round each
network, engine and way takes its turn for a moment, in an order that rotates; the ratio is to ONNX Runtime in fp32 at
the least size, in the same way and round. "per processor" is the way of `hilum predict`: each
processor runs batches of 4 on one thread. Labels and logits are compared with ONNX Runtime in fp32 at the same size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from measuring import machine, named_by_processor, publish, spread
from tables import RESULTS

from hilum.backends.base import CHUNK, ENGINE_TITLES, Backend, Floats, ThreadedBackend
from hilum.backends.choice import is_accepted
from hilum.backends.measure import REFERENCE, compare_classes, phantom_batch, run_burst
from hilum.backends.open import Engine, installed_engines, open_engine
from hilum.bundle.bundle import ONNX_INT8_MODEL, ONNX_MODEL, WEIGHTS, Bundle, load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.config import PreprocessSpec
from hilum.cpus import available_cpus

BOUND = 1.0
"""Least speed of the best accepted engine at 224 pixels, as a multiple of ONNX Runtime in fp32 at 128 pixels."""
_COMPARED = 64


class Row(NamedTuple):
    """One network in one engine."""

    size: int
    engine: Engine


class Way(NamedTuple):
    """How a network is run."""

    name: str
    batch: int
    per_processor: bool


WAYS = (
    Way("batch 1, all threads", 1, False),
    Way("batch 8, all threads", 8, False),
    Way("batch 4, per processor", CHUNK, True),
)


def at_size(bundle: Bundle, size: int) -> Bundle:
    """The bundle with the same weights for images of another size, and an int8 graph if it has one."""
    spec = bundle.manifest.preprocess
    if size == spec.size:
        return bundle
    from safetensors.torch import load

    from hilum.export.onnx import export_onnx
    from hilum.models.build import build_model
    from hilum.models.weights import fit_state

    spec = spec.model_copy(update={"size": size})
    model = build_model(bundle.manifest.model, spec, len(bundle.manifest.class_names)).eval()
    fit_state(model, load(bundle.read(WEIGHTS)), WEIGHTS)
    files = {name: bundle.read(name) for name in bundle.manifest.files if name != ONNX_INT8_MODEL}
    files[ONNX_MODEL] = export_onnx(model, spec)
    if ONNX_INT8_MODEL in bundle:
        files[ONNX_INT8_MODEL] = quantized_as(bundle.read(ONNX_INT8_MODEL), files[ONNX_MODEL], spec)
    return Bundle(bundle.manifest.model_copy(update={"preprocess": spec}), files, bundle.path)


def quantized_as(own: bytes, content: bytes, spec: PreprocessSpec) -> bytes:
    """The network of another size with the layers in int8 that the bundle's own int8 graph has in int8."""
    import onnx

    from hilum.export.graph import fold_graph, quantized_nodes
    from hilum.export.quantize import quantize_graph

    base = fold_graph(content)
    int8 = {*quantized_nodes(onnx.load_from_string(own).graph)}
    in_float = [node.name for node in base.graph.node if node.name not in int8]
    graph: bytes = quantize_graph(base, phantom_batch(spec, _COMPARED), in_float).SerializeToString()
    return graph


def networks(bundle: Bundle, sizes: Sequence[int]) -> Iterator[tuple[Row, Backend, Floats]]:
    """Every network, loaded, with its images."""
    for size in sizes:
        own = at_size(bundle, size)
        images = phantom_batch(own.manifest.preprocess, _COMPARED)
        for engine in installed_engines(own):
            yield Row(size, engine), open_engine(own, engine), images


def run_way(backend: Backend, way: Way, images: Floats, seconds: float) -> float | None:
    """Milliseconds per image; None where the engine has no such way."""
    workers = 1
    if way.per_processor:
        alone = backend.on_one_thread() if isinstance(backend, ThreadedBackend) else None
        if alone is None:
            return None
        backend, workers = alone, available_cpus()
    return 1000 / run_burst(backend, images[: way.batch], workers, seconds).images_per_second


def agreement(backend: Backend, reference: Backend, images: Floats) -> dict[str, float]:
    """The maximum difference of a logit and the fraction of images with the same class."""
    return dict(zip(("logit_difference", "labels_agree"), compare_classes(backend, reference, images), strict=True))


def measure(
    opened: dict[Row, tuple[Backend, Floats]], rounds: int, seconds: float
) -> dict[tuple[Row, Way], list[float]]:
    """Milliseconds per image of every network in every way, one figure for each round."""
    taken: dict[tuple[Row, Way], list[float]] = {}
    cells = [(row, way) for way in WAYS for row in opened]
    for turn in range(-1, rounds):  # the first round is not counted
        for step in range(len(cells)):
            row, way = cells[(turn + step) % len(cells)]
            backend, images = opened[row]
            found = run_way(backend, way, images, 0 if turn < 0 else seconds)
            if found is not None and turn >= 0:
                taken.setdefault((row, way), []).append(found)
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return taken


def summary(
    taken: dict[tuple[Row, Way], list[float]], agreements: dict[Row, dict[str, float]], base: int, bundle: Bundle
) -> list[dict[str, Any]]:
    """A row for each network: times and ratios in every way, agreement, and whether auto may use it."""
    rows = []
    for row, found in agreements.items():
        ways = {}
        for way in WAYS:
            if (row, way) not in taken:
                continue
            usual = taken[Row(base, REFERENCE), way]
            speedups = [one / own for one, own in zip(usual, taken[row, way], strict=True)]
            ways[way.name] = {"ms": spread(taken[row, way]), "times_as_fast": spread(speedups)}
        title = f"{ENGINE_TITLES[row.engine.backend]} {row.engine.precision}"
        rows.append({
            "size": row.size, "engine": title, "accepted": is_accepted(bundle.manifest, *row.engine), **found,
            "ways": ways,
        })  # fmt: skip
    return rows


def best_at(rows: Sequence[dict[str, Any]], size: int, *, accepted: bool) -> dict[str, Any]:
    """The fastest network of a size as `hilum predict` runs it, of all or of those that auto may use."""
    way = WAYS[-1].name
    able = [row for row in rows if row["size"] == size and row["accepted"] >= accepted and way in row["ways"]]
    best = min(able, key=lambda row: row["ways"][way]["ms"]["median"])
    times = best["ways"][way]["times_as_fast"]
    return {"size": size, "engine": best["engine"], "accepted": accepted, "times_as_fast": times, "bound": BOUND}


def main() -> None:
    name = named_by_processor("engines")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[128, 224], help="sizes of the input; the least is the base"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a network in a way and a round, at least")
    parser.add_argument("--json", action="store_true", help=f"write the figures: benchmarks/results/{name}.json")
    arguments = parser.parse_args()
    bundle = load_bundle(resolve_bundle(arguments.bundle))
    base = min(arguments.sizes)
    before = machine()
    opened = {row: (backend, images) for row, backend, images in networks(bundle, arguments.sizes)}
    agreements = {
        row: agreement(backend, opened[Row(row.size, REFERENCE)][0], images)
        for row, (backend, images) in opened.items()
    }
    taken = measure(opened, arguments.rounds, arguments.seconds)
    rows = summary(taken, agreements, base, bundle)
    result = {
        "command": "python benchmarks/engines.py", "rounds": arguments.rounds, "compared": _COMPARED,
        "base": base, "rows": rows, "ways": [way.name for way in WAYS],
        "best": [
            best_at(rows, size, accepted=accepted)
            for size in arguments.sizes if size != base for accepted in (True, False)
        ],
    }  # fmt: skip
    publish("engines_of_one", result | before, RESULTS / f"{name}.json" if arguments.json else None)
    missed = [found for found in result["best"] if found["accepted"] and found["times_as_fast"]["median"] < BOUND]
    if missed:
        sys.exit(f"at {missed[0]['size']} pixels {missed[0]['engine']} is slower than ONNX Runtime at {base} pixels")


if __name__ == "__main__":
    main()
