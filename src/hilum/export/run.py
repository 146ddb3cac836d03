"""Export the best weights of a run as a bundle, after checking parity between PyTorch and ONNX Runtime."""

from __future__ import annotations

import copy
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from hilum._version import __version__
from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.pytorch import PyTorchBackend
from hilum.bundle.bundle import (
    FEATURES,
    MODEL_CARD,
    ONNX_INT8_MODEL,
    ONNX_MODEL,
    SELF_TEST,
    TRAINING_HASHES,
    WEIGHTS,
    Manifest,
    load_bundle,
    write_bundle,
)
from hilum.bundle.calibration import with_calibration
from hilum.bundle.card import model_card
from hilum.bundle.container import check_replaceable
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.bundle.self_test import TOLERANCE
from hilum.bundle.training_hashes import KnownImages, united
from hilum.config import INDIFFERENT, Config, PreprocessSpec
from hilum.data.cache import open_cache
from hilum.data.image_hash import image_hashes
from hilum.data.index import Index
from hilum.data.split import Split, records_of
from hilum.errors import CheckpointError
from hilum.evaluation.results import REPORT_FILE, load_report
from hilum.evaluation.run import subject_of
from hilum.export.feature_statistics import gate_statistics
from hilum.export.onnx import OUTPUTS, export_onnx, round_weights
from hilum.export.parity import (
    Parity,
    compare,
    random_batches,
    require_parity,
    require_small_rounding,
)
from hilum.export.quantize import import_nncf, quantize_network
from hilum.export.self_test import make_self_test
from hilum.gate import GateThresholds, LearnedThresholds
from hilum.gate.stored import GATE_MODEL, load_gate
from hilum.imaging.preprocess import preprocess
from hilum.imaging.read import read_radiograph
from hilum.progress import Step
from hilum.run_folder import RunFolder, read_seeds, read_summary
from hilum.storage import cache_folder
from hilum.training.from_bundle import Start, images_before, read_start
from hilum.training.prepare import index_and_split
from hilum.training.runs import load_model, open_run
from hilum.types import CalibratedPer, Record

_FILES = (ONNX_MODEL, ONNX_INT8_MODEL, WEIGHTS, MODEL_CARD, FEATURES, GATE_MODEL, TRAINING_HASHES, SELF_TEST)
_PARITY_FILES = 16
_PARITY_BATCH = 4
_ROUNDING_FILES = 200  # more than for parity, since the effect of rounding varies between images


def export_run(
    root: Path,
    out: Path,
    *,
    opset: int = 17,
    name: str | None = None,
    half_weights: bool = False,
    gate: Path | None = None,
    training_hashes: bool | None = None,
    calibrate_per: CalibratedPer | None = None,
    int8: bool = False,
    step: Step | None = None,
) -> Manifest:
    """Export a run as a bundle and return its manifest.

    The bundle is written only if PyTorch and ONNX Runtime agree on random batches and on images of the test split.

    Args:
        root: The run's folder.
        out: The bundle to write: a folder, or a ``.hilum`` file.
        opset: ONNX operator set version.
        name: Display name; the folder's name by default.
        half_weights: Round and store weights of convolutions and linear layers as float16, which halves the file size.
            Calibration and metrics are those of the unrounded weights; the manifest contains the effect of rounding.
        gate: Folder of a gate trained by hilum train-gate; the packaged gate by default.
        training_hashes: Include perceptual hashes of training and validation images, also those of a fine-tuned
            bundle; by default as in the run's settings.
        calibrate_per: See hilum.evaluation.run.subject_of.
        int8: Add an int8 network and the agreement of reduced precisions, see hilum.export.quantize.
        step: Progress callbacks.

    Raises:
        CheckpointError: The run has no trained weights.
        MissingExtraError: NNCF or OpenVINO is not installed, for ``int8``.
        ParityError: PyTorch and ONNX Runtime disagree, rounding changes a probability too much, or no int8 network is
            accepted; nothing is written.
        OutputError: ``out`` cannot be written.
    """
    check_replaceable(out, _FILES)
    if int8:
        import_nncf()
    run, config = open_run(root)
    step = step or Step()
    if not run.best.exists():
        raise CheckpointError(f"Run '{root}' has no trained weights.", hint=f"Finish it: hilum train --resume {root}")
    index, split = index_and_split(config, run, step)
    model = load_model(run, config, len(index.class_names))
    step.begin("Exporting to ONNX")
    unrounded = copy.deepcopy(model) if half_weights else None
    state = round_weights(model) if half_weights else model.state_dict()
    graph = export_onnx(model, config.preprocess, opset=opset, half_weights=half_weights)
    parity = _prove(model, graph, unrounded, config.preprocess, records_of(index, split, "test"))
    manifest = _describe(run, config, index, split, name or root.resolve().name, opset, graph)
    stored = {"weights_dtype": "float16 storage"} if half_weights else {}
    manifest = manifest.model_copy(update={"parity": parity, **stored})
    if (calibration := subject_of(run, config, index, split, step, calibrate_per).calibration) is not None:
        fitted_on = {"weights": "float32, before they were rounded"} if half_weights else {}
        manifest = with_calibration(manifest, calibration, **fitted_on)
    bounds, gate_files = _gate(gate)
    backend = OnnxRuntimeBackend(graph)
    answer, reference = gate_statistics(backend, index, split, config.preprocess, manifest.mask_threshold, step)
    manifest = manifest.model_copy(update={"gate": GateThresholds(learned=bounds, answer=answer)})
    hash_files: dict[str, bytes] = {}
    if config.training.training_hashes if training_hashes is None else training_hashes:
        facts, hash_files = _trained_on(run, config, index, split, step).files()
        manifest = manifest.model_copy(update=facts)
    card = model_card(manifest, _data_facts(run, config, index, split))
    contents = {ONNX_MODEL: graph, WEIGHTS: save(state), MODEL_CARD: card.encode(), **gate_files}
    contents |= {**hash_files, SELF_TEST: make_self_test(backend, config.preprocess).content()}
    contents |= {} if reference is None else {FEATURES: reference.content()}
    if int8:
        reduced = quantize_network(graph, manifest, index, split, step=step)
        manifest = manifest.model_copy(update={"agreement": reduced.agreement})
        contents[ONNX_INT8_MODEL] = reduced.graph
    return write_bundle(out, manifest, contents)


def _gate(folder: Path | None) -> tuple[LearnedThresholds | None, dict[str, bytes]]:
    """Return thresholds and ONNX file of the gate in ``folder``, or of the packaged gate."""
    if folder is not None:
        model, stored = load_gate(folder)
        return stored.thresholds, {GATE_MODEL: model}
    packaged = load_bundle(resolve_bundle(DEFAULT))
    if GATE_MODEL not in packaged:
        return None, {}
    return packaged.manifest.gate.learned, {GATE_MODEL: packaged.read(GATE_MODEL)}


def _prove(
    model: nn.Module, graph: bytes, unrounded: nn.Module | None, spec: PreprocessSpec, test: tuple[Record, ...]
) -> dict[str, Any]:
    """Check the parity of ``model`` and ``graph`` and the effect of rounding; return them for the manifest."""
    reference, candidate = PyTorchBackend(model), OnnxRuntimeBackend(graph)
    threshold = Manifest.model_fields["mask_threshold"].default
    noise = compare(reference, candidate, random_batches(spec), threshold)
    require_parity(noise)
    files = compare(reference, candidate, _file_batches(_spread(test, _PARITY_FILES), spec), threshold)
    require_parity(files)
    entry = _parity_entry(noise, files)
    if unrounded is not None:
        more = _file_batches(_spread(test, _ROUNDING_FILES), spec)
        rounding = compare(PyTorchBackend(unrounded), reference, more, threshold)
        require_small_rounding(rounding)
        entry["rounding"] = rounding.as_dict()
    return entry


def _describe(
    run: RunFolder, config: Config, index: Index, split: Split, name: str, opset: int, graph: bytes
) -> Manifest:
    names = OnnxRuntimeBackend(graph).output_names
    start = read_start(run)
    return Manifest(
        name=name,
        class_names=index.class_names,
        preprocess=config.preprocess,
        model=config.model.model_copy(update={"encoder_weights": None}),  # a path of the training machine
        outputs={output: OUTPUTS[output] for output in names},
        opset=opset,
        metrics={"test": _figures(run)},
        sources=_sources(index, split, start),
        started_from=None if start is None else start.bundle_id,
        training=(*(start.training if start else ()), _settings(config)),
        split_digest=split.digest,
        index_digest=index.digest,
        hilum_version=__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _trained_on(run: RunFolder, config: Config, index: Index, split: Split, step: Step) -> KnownImages:
    """Return the training images of the run and of the bundle that it started from."""
    hashes = []
    for name in ("train", "val"):
        if records := records_of(index, split, name):
            cache = open_cache(records, config.preprocess, cache_folder())
            hashes.append(image_hashes(cache.images, step.begin(f"Hashing {name}")))
    return united([KnownImages("all", np.concatenate(hashes)), images_before(run)])


def _sources(index: Index, split: Split, start: Start | None) -> tuple[str, ...]:
    """Return the sources of all training images; empty if those of the fine-tuned bundle are unknown."""
    own = {record.source for record in records_of(index, split, "train") if record.source is not None}
    if start is None:
        return tuple(sorted(own))
    return tuple(sorted(own.union(start.sources))) if start.sources else ()


def _settings(config: Config) -> dict[str, Any]:
    """Return all settings that determine the weights, without paths."""
    return config.model_dump(mode="json", exclude={"data": True, "model": {"encoder_weights"}, "training": INDIFFERENT})


def _figures(run: RunFolder) -> list[dict[str, Any]]:
    """Return the metrics of the run's test report on unseen images; empty without a report."""
    report = run.results("test") / REPORT_FILE
    return [figure.model_dump() for figure in load_report(report).unseen_figures] if report.is_file() else []


def _seen_of_test(run: RunFolder) -> tuple[int, int] | None:
    """Return the number of test images in the fine-tuned bundle's training data and in total, or None if unknown."""
    report = run.results("test") / REPORT_FILE
    if not report.is_file():
        return None
    content = load_report(report)
    overlap = content.training_overlap
    return (overlap.seen, content.split.images) if overlap is not None and overlap.seen is not None else None


def _data_facts(run: RunFolder, config: Config, index: Index, split: Split) -> dict[str, Any]:
    summary = read_summary(run)
    own = config.model.encoder_weights
    rows = {name: records_of(index, split, name) for name in ("train", "val", "test")}
    return {
        "images": {name: len(records) for name, records in rows.items()},
        "masks": {name: sum(record.mask_path is not None for record in records) for name, records in rows.items()},
        "sources": dict(Counter(record.source for record in index.records if record.source).most_common()),
        "epoch": summary.get("best_epoch", "unknown"),
        "seeds": read_seeds(run.root.resolve().parent),
        "started_from": read_start(run),
        "seen_of_test": _seen_of_test(run),
        "pretrained": own.name if own else summary.get("pretrained"),  # no path of the training machine
    }


def _spread(records: tuple[Record, ...], count: int) -> tuple[Record, ...]:
    """Return at most ``count`` records at equal steps, which covers all classes of a sorted index."""
    return records[:: max(1, -(-len(records) // count))]


def _file_batches(records: tuple[Record, ...], spec: PreprocessSpec) -> list[NDArray[np.float32]]:
    """Read and preprocess files as for prediction, and return batches (N, C, S, S) float32."""
    images = [preprocess(read_radiograph(record.image_path), spec) for record in records]
    return [np.stack(images[start : start + _PARITY_BATCH]) for start in range(0, len(images), _PARITY_BATCH)]


def _parity_entry(random: Parity, files: Parity) -> dict[str, Any]:
    return {"tolerance": TOLERANCE, "random_batches": random.as_dict(), "files": files.as_dict()}
