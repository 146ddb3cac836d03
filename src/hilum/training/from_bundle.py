"""Fine-tuning: start a run from a bundle's network, preprocessing and weights, with its own classes.

Rows of the class layer are kept for classes of the same name and initialized randomly for others; all other weights
are those of the bundle. The run's folder stores what it started from, so that resuming does not need the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from safetensors.torch import load
from torch import nn

from hilum.bundle.bundle import WEIGHTS, Manifest, load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.bundle.training_hashes import Extent, KnownImages, known_images
from hilum.config import Config, PresetName, load_config, show_value
from hilum.data.image_hash import from_bytes, to_bytes
from hilum.errors import ConfigError
from hilum.models.build import load_pretrained
from hilum.models.weights import fit_state
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.storage import write_bytes, write_json
from hilum.training.dataset import CachedDataset
from hilum.types import Finding, SplitName

FINETUNING: Mapping[str, Any] = {"training": {"epochs": 10, "learning_rate": 2e-4}}
"""Default settings of a fine-tuning run."""

_FREE = {"preprocess": {"size"}, "model": {"dropout"}}
"""Settings that may differ from the bundle, since they do not change the weights."""


class ClassLayered(Protocol):
    """A network that names its class parameters."""

    class_parameters: ClassVar[tuple[str, ...]]
    """Names of the tensors in its state dict whose first axis is the class."""


@dataclass(frozen=True)
class Start:
    """The bundle that a run started from.

    Attributes:
        bundle_id: bundle_id of the bundle.
        name: Display name of the bundle.
        classes_kept: Classes of the run whose rows are those of the bundle.
        classes_new: Classes of the run whose rows were initialized randomly.
        sources: Sources of the bundle's training images; empty if unknown.
        training: Settings of the bundle's training runs, see Manifest.
        known_images: Proportion of its training and validation images with a hash in the run's folder.
        split_digest: Digest of the split that it was calibrated on; None if unknown.
    """

    bundle_id: str
    name: str
    classes_kept: tuple[str, ...]
    classes_new: tuple[str, ...]
    sources: tuple[str, ...]
    training: tuple[dict[str, Any], ...] = ()
    known_images: Extent = "none"
    split_digest: str | None = None


def settings_from_bundle(name: str, preset: PresetName, path: Path | None, overrides: Mapping[str, Any]) -> Config:
    """Return the settings of a run that starts from a bundle.

    They are the bundle's network and preprocessing and FINETUNING, overridden by the TOML file and the options.

    Args:
        name: ``default``, or the path of a bundle, which is stored as an absolute path.
        preset: Must be ``default``.
        path: TOML file, see load_config.
        overrides: Options, see load_config.

    Raises:
        ConfigError: As for load_config, or the settings contradict the network or preprocessing of the bundle.
        BundleError: The bundle cannot be loaded.
    """
    if preset != "default":
        raise ConfigError(
            f"--preset {preset} cannot be combined with --from-bundle.",
            hint="Network and preprocessing come from the bundle; use --config or --set for the other settings.",
        )
    place = resolve_bundle(name)
    manifest = load_bundle(place).manifest
    layers = {section: getattr(manifest, section).model_dump() for section in _FREE}
    config = load_config(preset, path, overrides, beneath={**FINETUNING, **layers})
    _check(config, manifest)
    kept = name if name == DEFAULT else str(place.resolve())
    return config.model_copy(update={"training": config.training.model_copy(update={"from_bundle": kept})})


def starting_weights(model: nn.Module, config: Config, class_names: Sequence[str], run: RunFolder) -> str | None:
    """Load the initial weights into ``model``: those of the bundle, or pretrained ones of the encoder.

    The bundle is not read again if the run has a state to resume from.

    Args:
        model: Network from build_model; rows of new classes keep its weights.
        config: All settings.
        class_names: The run's K classes, in the order of the network's outputs.
        run: The run's folder, which stores what the run started from.

    Returns:
        Description of the origin of the encoder's weights; None if they are random.

    Raises:
        BundleError: The bundle cannot be loaded.
        CheckpointError: The weights do not fit the network.
        ConfigError: The settings contradict the bundle.
    """
    if config.training.from_bundle is None:
        run.start.unlink(missing_ok=True)  # of an attempt without a completed epoch
        run.start_hashes.unlink(missing_ok=True)
        return load_pretrained(model, config.model)
    start = read_start(run) if run.state.exists() else None
    if start is None:
        start = load_from_bundle(model, config, class_names)
        known = known_images(load_bundle(resolve_bundle(config.training.from_bundle)))
        write_bytes(run.start_hashes, to_bytes(known.hashes))
        write_json(run.start, asdict(start))
    return f"those of bundle {start.bundle_id[:12]} ({start.name})"


def load_from_bundle(model: nn.Module, config: Config, class_names: Sequence[str]) -> Start:
    """Load the weights of ``config.training.from_bundle`` into ``model``; see starting_weights. Return the Start."""
    bundle = load_bundle(resolve_bundle(config.training.from_bundle or DEFAULT))
    manifest = bundle.manifest
    _check(config, manifest)
    state = load(bundle.read(WEIGHTS))  # may be float16; fit_state copies into float32
    row_of = {name: row for row, name in enumerate(manifest.class_names)}
    kept = [(row, row_of[name]) for row, name in enumerate(class_names) if name in row_of]
    own = model.state_dict()
    for name in cast(ClassLayered, model).class_parameters:
        if name in state and state[name].shape[1:] == own[name].shape[1:]:  # otherwise, fit_state reports the error
            state[name] = _with_rows(own[name], state[name], kept)
    fit_state(model, state, f"{bundle.path}/{WEIGHTS}")
    return Start(
        bundle_id=manifest.bundle_id,
        name=manifest.name,
        classes_kept=tuple(name for name in class_names if name in row_of),
        classes_new=tuple(name for name in class_names if name not in row_of),
        sources=manifest.sources,
        training=manifest.training,
        known_images=known_images(bundle).extent,
        split_digest=manifest.calibration.get("digest"),
    )


def read_start(run: RunFolder) -> Start | None:
    """Return the bundle that a run started from, or None."""
    if not run.start.is_file():
        return None
    content: dict[str, Any] = json.loads(run.start.read_text(encoding="utf-8"))
    content |= {name: tuple(content[name]) for name in ("classes_kept", "classes_new", "sources", "training")}
    return Start(**content)


def images_before(run: RunFolder) -> KnownImages:
    """Return the known training images of the bundle that a run started from.

    Raises:
        DataError: The hashes in the run's folder cannot be read.
    """
    start = read_start(run)
    if start is None:
        return KnownImages("all")
    if start.known_images == "none":
        return KnownImages()
    return KnownImages(start.known_images, from_bytes(run.start_hashes.read_bytes()))


def seen_before(
    run: RunFolder, datasets: Mapping[SplitName, CachedDataset], split_digest: str, step: Step
) -> tuple[Finding, ...]:
    """Check whether test and validation images of a run are training images of the bundle that it starts from.

    Args:
        run: The run's folder, which stores what the run starts from.
        datasets: Dataset of each split. ``test`` is checked, and ``val`` unless the bundle is of the same split, whose
            validation images it has hashes of and was not trained on.
        split_digest: Digest of the run's split.
        step: Progress callbacks.

    Returns:
        A warning ``seen_before`` for each split with such images; nothing without a bundle, or without hashes in it.
    """
    before, start = images_before(run), read_start(run)
    if start is None or not len(before.hashes):
        return ()
    consequence = {
        "test": "the report also gives the metrics on the other images.",
        "val": "the best epoch and the calibration are selected on them.",
    }
    findings = []
    checked: tuple[SplitName, ...] = ("test",) if start.split_digest == split_digest else ("test", "val")
    for name in checked:
        own = datasets[name]
        seen = before.find(own.decoded().images, step.begin(f"Comparing {name} with the bundle's training data"))
        if seen is not None and seen.any():
            message = (
                f"{np.count_nonzero(seen):,} of {len(seen):,} {name} images are in the training data of the bundle "
                f"that is fine-tuned: {consequence[name]}"
            )
            images = tuple(str(own.records[row].image_path) for row in np.flatnonzero(seen))
            findings.append(Finding("seen_before", "warning", message, images))
    return tuple(findings)


def _with_rows(own: torch.Tensor, other: torch.Tensor, rows: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return ``own`` (K, ...) with rows replaced by those of ``other`` (L, ...), given as pairs (own, other)."""
    changed = own.clone()
    for here, there in rows:
        changed[here] = other[there]
    return changed


def _check(config: Config, manifest: Manifest) -> None:
    """Raise ConfigError if the settings contradict the network or preprocessing of the bundle."""
    wrong = []
    for section, free in _FREE.items():
        ours, theirs = getattr(config, section), getattr(manifest, section)
        for field in type(ours).model_fields:
            if field not in free and getattr(ours, field) != getattr(theirs, field):
                values = show_value(getattr(ours, field)), show_value(getattr(theirs, field))
                wrong.append(f"{section}.{field} is {values[0]}, in the bundle {values[1]}")
    if wrong:
        raise ConfigError(
            f"Settings contradict the bundle {manifest.name}: {'; '.join(wrong)}.",
            hint="Omit them: with --from-bundle, they come from the bundle. Only --size and model.dropout may differ.",
        )
