"""Fine-tuning: a run that starts from a bundle's network, preprocessing and weights, on classes of its own.

Rows of the class layer are kept where a class has the same name in both, and drawn anew where it has not. All other
weights are the bundle's. What the run started from is kept in its folder, so that it goes on without the bundle.
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
"""Settings of a run that starts from a bundle, where the user sets no others."""

_FREE = {"preprocess": {"size"}, "model": {"dropout"}}
"""What may differ from the bundle: the networks are convolutional, and dropout has no weights."""


class ClassLayered(Protocol):
    """A network that names its tensors with one row per class."""

    class_parameters: ClassVar[tuple[str, ...]]
    """The tensors of its state dict whose first axis is the class, and no others."""


@dataclass(frozen=True)
class Start:
    """The bundle that a run started from.

    Attributes:
        bundle_id: Of the bundle.
        name: Its name for people.
        classes_kept: The run's classes whose rows are the bundle's.
        classes_new: Those whose rows were drawn.
        sources: Of the images that the bundle was trained on; empty: not known.
        training: The settings that made it, see Manifest.
        known_images: Of how many of its training and validation images there is a hash, beside it in the run's folder.
    """

    bundle_id: str
    name: str
    classes_kept: tuple[str, ...]
    classes_new: tuple[str, ...]
    sources: tuple[str, ...]
    training: tuple[dict[str, Any], ...] = ()
    known_images: Extent = "none"


def settings_from_bundle(name: str, preset: PresetName, path: Path | None, overrides: Mapping[str, Any]) -> Config:
    """Return the settings of a run that starts from the bundle ``name``.

    They are its network and preprocessing, then FINETUNING, changed by the user's TOML file and options as in
    load_config.

    Args:
        name: ``default``, or the path of a bundle, which the settings keep as an absolute one.
        preset: Must be ``default``.
        path, overrides: See load_config.

    Raises:
        ConfigError: See load_config; or the user's settings are of another network or preprocessing.
        BundleError: The bundle cannot be opened.
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
    """Put the initial weights into ``model``: those of the bundle, or pretrained ones of the encoder.

    A run that has a state goes on with that, so its bundle is not read again.

    Args:
        model: From build_model, whose own weights new classes keep.
        config: All settings.
        class_names: The run's K classes, in the order of the network's rows.
        run: Keeps what it started from.

    Returns:
        The origin of the encoder's weights in words, None where they are random.

    Raises:
        BundleError, CheckpointError, ConfigError: The bundle cannot be opened, or is of another network.
    """
    if config.training.from_bundle is None:
        run.start.unlink(missing_ok=True)  # of an attempt that trained no epoch
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
    """Put the weights of the bundle ``config.training.from_bundle`` into ``model``; see starting_weights."""
    bundle = load_bundle(resolve_bundle(config.training.from_bundle or DEFAULT))
    manifest = bundle.manifest
    _check(config, manifest)
    state = load(bundle.read(WEIGHTS))  # float16 as stored; fit_state copies into the network's float32
    row_of = {name: row for row, name in enumerate(manifest.class_names)}
    kept = [(row, row_of[name]) for row, name in enumerate(class_names) if name in row_of]
    own = model.state_dict()
    for name in cast(ClassLayered, model).class_parameters:
        if name in state and state[name].shape[1:] == own[name].shape[1:]:  # else fit_state says what is wrong
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
    )


def read_start(run: RunFolder) -> Start | None:
    """Read which bundle a run started from; None where it started from none."""
    if not run.start.is_file():
        return None
    content: dict[str, Any] = json.loads(run.start.read_text(encoding="utf-8"))
    content |= {name: tuple(content[name]) for name in ("classes_kept", "classes_new", "sources", "training")}
    return Start(**content)


def images_before(run: RunFolder) -> KnownImages:
    """What is known of the images that a run's weights had seen before it began.

    Raises:
        DataError: The hashes in the run's folder cannot be read.
    """
    start = read_start(run)
    if start is None:
        return KnownImages("all")
    if start.known_images == "none":
        return KnownImages()
    return KnownImages(start.known_images, from_bytes(run.start_hashes.read_bytes()))


def seen_before(run: RunFolder, datasets: Mapping[SplitName, CachedDataset], step: Step) -> tuple[Finding, ...]:
    """What to say before a run trains: how many images to be measured are in its bundle's training data.

    Args:
        run: Whose folder keeps what it starts from, see starting_weights.
        datasets: Of each split; ``test`` and ``val`` are looked at.
        step: Is told of the work.

    Returns:
        A warning ``seen_before`` for each of the two splits that has such images; nothing for a run that starts from
        no bundle, or from one without hashes.
    """
    before = images_before(run)
    if not len(before.hashes):
        return ()
    consequence = {
        "test": "the report gives the figures on the others beside.",
        "val": "the best epoch and the calibration are chosen on them.",
    }
    findings = []
    for name in ("test", "val"):
        own = datasets[name]
        seen = before.find(own.decoded().images, step.begin(f"Comparing {name} with the bundle's training data"))
        if seen is not None and seen.any():
            message = (
                f"{np.count_nonzero(seen):,} of {len(seen):,} {name} images are in the training data of the bundle "
                f"that this run starts from: {consequence[name]}"
            )
            images = tuple(str(own.records[row].image_path) for row in np.flatnonzero(seen))
            findings.append(Finding("seen_before", "warning", message, images))
    return tuple(findings)


def _with_rows(own: torch.Tensor, other: torch.Tensor, rows: Sequence[tuple[int, int]]) -> torch.Tensor:
    """``own`` (K, ...) with some rows of ``other`` (L, ...): pairs (row here, row there)."""
    changed = own.clone()
    for here, there in rows:
        changed[here] = other[there]
    return changed


def _check(config: Config, manifest: Manifest) -> None:
    """Raise ConfigError where the settings are of another network or preprocessing than the bundle's."""
    wrong = []
    for section, free in _FREE.items():
        ours, theirs = getattr(config, section), getattr(manifest, section)
        for field in type(ours).model_fields:
            if field not in free and getattr(ours, field) != getattr(theirs, field):
                values = show_value(getattr(ours, field)), show_value(getattr(theirs, field))
                wrong.append(f"{section}.{field} is {values[0]}, the bundle's {values[1]}")
    if wrong:
        raise ConfigError(
            f"Settings contradict the bundle {manifest.name}: {'; '.join(wrong)}.",
            hint="Leave them out: with --from-bundle they come from the bundle. --size may be changed.",
        )
