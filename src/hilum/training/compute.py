"""Measure which precision, memory layout and number of threads train a network fastest on this machine.

Settings that are ``auto`` are measured before the first epoch of a run that is long enough, and kept in the run's
``compute.json``, so that a resumed run computes alike. Settings that have a value are not measured.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, Literal

import torch
from torch import nn

from hilum.config import Config
from hilum.cpus import available_cpus, has_bfloat16, processor_name
from hilum.models.losses import MultiTaskLoss
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.storage import write_json
from hilum.training.dataset import CachedDataset
from hilum.training.device import AUTO, Setup, device_of, now, set_up, settled, using_threads
from hilum.types import Batch, Finding

WORTH = 500
"""Least number of steps of a run that is measured: fewer take less time than the measurement saves."""
_WORTH_COMPILING = 5000
"""Least number of steps of a run on a GPU for which compilation, which takes a minute or more, is measured."""
_ROUNDS = 3
_GAIN = 0.05
"""Least gain in time of a choice over the one before it in the list, so that near ties are decided alike."""
_STEP_SECONDS = 1.0
"""About the processor time of a measured step on a CPU, from which the number of images in it follows."""
_FEWEST = 4
"""Least number of images in a measured step: with fewer, the conversion of weights to bfloat16 weighs too much."""

Choice = dict[str, Any]
"""A value of each setting in AUTO."""
Clock = Literal["wall", "processor"]


@dataclass
class _Trial:
    """One choice: a copy of the network, and its seconds per step so far, of wall clock or processor time."""

    choice: Choice
    setup: Setup
    clock: Clock
    seconds: list[float] = field(default_factory=list)


def choose_compute(
    model: nn.Module, train: CachedDataset, config: Config, steps: int, step: Step, run: RunFolder | None = None
) -> Config:
    """Return the settings with a value for each ``auto``, and report the choice as a finding.

    Args:
        model: The network; it is copied for the measurement and stays as it is.
        train: Images of the training split.
        config: All settings.
        steps: Number of steps of the run. Where they are too few to measure, ``auto`` is float32, channels last and
            all threads.
        step: Progress callbacks.
        run: Folder to write the choice to.
    """
    unset = [name for name in AUTO if getattr(config.training, name) == "auto"]
    if not unset:
        return config
    if steps < WORTH:
        return settled(config)
    step.begin("Measuring precision, memory layout and threads")
    device = device_of(config)
    choice, measured, images = _measure(model, train, config, unset, device, steps)
    if run is not None:
        write_json(run.compute, {
            **choice, "device": device.type, "processor": _name(device), "torch": torch.__version__,
            "images_per_step": images, "measured": measured,
        })  # fmt: skip
    step.found([Finding("compute", "info", _sentence(choice, measured, device))])
    return settled(config, choice)


def steps_of(config: Config, images: int) -> int:
    """Return the number of steps of a run that trains on so many images."""
    return config.training.epochs * max(1, images // config.training.batch_size)


def with_choice_of(config: Config, run: RunFolder) -> Config:
    """Return the settings with the choice of another run for each ``auto``, where that run has one for this device."""
    known = _read(run, device_of(config))
    return config if known is None else settled(config, known)


def _read(run: RunFolder, device: torch.device) -> Choice | None:
    if not run.compute.is_file():
        return None
    content = json.loads(run.compute.read_text(encoding="utf-8"))
    return {name: content[name] for name in AUTO} if content["device"] == device.type else None


def _measure(
    model: nn.Module, train: CachedDataset, config: Config, unset: Sequence[str], device: torch.device, steps: int
) -> tuple[Choice, list[dict[str, Any]], int]:
    """Return the best choice, the time of every choice, and the number of images per step.

    Precision and layout are measured together, then threads, then compilation, each with the best so far. The trials of
    a stage take turns, so that a machine that becomes slower in between slows all of them. On a CPU, precision and
    layout are compared by processor time, which other processes do not add to.
    """
    given = {name: getattr(settled(config).training, name) for name in AUTO}
    batch = _images(model, train, config, given, device)
    measured: list[dict[str, Any]] = []
    choice = given
    for names in (("precision", "channels_last"), ("threads",), ("compile",)):
        values = [_values(name, device, steps) if name in unset else [choice[name]] for name in names]
        candidates = [{**choice, **dict(zip(names, own, strict=True))} for own in product(*values)]
        if len(candidates) > 1:
            clock: Clock = "processor" if device.type == "cpu" and "precision" in names else "wall"
            trials = [_Trial(choice, _copy(model, config, choice), clock) for choice in candidates]
            _time(trials, batch, config)
            choice = _best(trials)
            measured += [
                {**one.choice, "clock": clock, "ms_per_image": 1000 * statistics.median(one.seconds) / len(batch.row)}
                for one in trials
            ]
    return choice, measured, len(batch.row)


def _values(name: str, device: torch.device, steps: int) -> list[Any]:
    """Return the values of a setting to measure; the first is preferred where others are not faster."""
    cuda = device.type == "cuda"
    if name == "precision":
        if cuda:
            return ["32-true", "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"]
        return ["32-true", "bf16-mixed"] if has_bfloat16() else ["32-true"]
    if name == "channels_last":
        return [True, False]
    if name == "threads":
        cpus = min(torch.get_num_threads(), available_cpus())
        return [0] if cuda or cpus < 2 else [cpus, cpus // 2]
    return [False, True] if cuda and steps >= _WORTH_COMPILING else [False]


def _images(model: nn.Module, train: CachedDataset, config: Config, choice: Choice, device: torch.device) -> Batch:
    """Return a batch for the measurement: whole on a GPU, on a CPU so many images that a step is not too long."""
    size = min(config.training.batch_size, len(train))
    if device.type == "cpu" and size > _FEWEST:
        trial = _Trial(choice, _copy(model, config, choice), "processor")
        small = train.__getitems__(list(range(_FEWEST)))
        for _ in range(2):
            _step(trial, small, config)
        size = max(_FEWEST, min(size, round(_STEP_SECONDS / (trial.seconds[-1] / _FEWEST))))
    rows = torch.linspace(0, len(train) - 1, size).long().tolist()
    return train.__getitems__(rows)


def _time(trials: Sequence[_Trial], batch: Batch, config: Config) -> None:
    for _ in range(1 + _ROUNDS):
        for trial in trials:
            _step(trial, batch, config)
    for trial in trials:
        del trial.seconds[0]  # the first step allocates, and compiles


def _copy(model: nn.Module, config: Config, choice: Choice) -> Setup:
    training = config.training.model_copy(update={**choice, "ema_decay": 0.0})
    return set_up(copy.deepcopy(model), config.model_copy(update={"training": training}))


def _step(trial: _Trial, batch: Batch, config: Config) -> None:
    """Take one step of training and note its time; random numbers of torch are left as they were."""
    setup, loss = trial.setup, MultiTaskLoss(config.loss)
    moved = setup.fabric.to_device(batch)
    devices = [setup.fabric.device] if setup.fabric.device.type == "cuda" else []
    setup.wrapped.train()
    with using_threads(trial.choice["threads"]), torch.random.fork_rng(devices):
        read = time.process_time if trial.clock == "processor" else partial(now, setup.fabric.device)
        started = read()
        setup.fabric.backward(loss(setup.wrapped(moved.image), moved).total)
        setup.wrapped_optimizer.step()
        setup.wrapped_optimizer.zero_grad()
        trial.seconds.append(read() - started)


def _best(trials: Sequence[_Trial]) -> Choice:
    """Return the fastest choice; a later one must gain at least _GAIN over the best before it."""
    best = trials[0]
    for trial in trials[1:]:
        if statistics.median(trial.seconds) < (1 - _GAIN) * statistics.median(best.seconds):
            best = trial
    return best.choice


def _sentence(choice: Choice, measured: Sequence[Mapping[str, Any]], device: torch.device) -> str:
    said = f"Training on {_name(device)} with {_words(choice)}."
    for clock, unit in (("processor", "Processor time"), ("wall", "Time")):
        times = [f"{_words(one)} {one['ms_per_image']:.1f}" for one in measured if one["clock"] == clock]
        said += f" {unit} per image, ms: {', '.join(times)}." if times else ""
    return said


def _words(choice: Mapping[str, Any]) -> str:
    parts = [str(choice["precision"]), "channels last" if choice["channels_last"] else "channels first"]
    parts += [f"{choice['threads']} thread{'s' * (choice['threads'] > 1)}"] if choice["threads"] else []
    parts += ["compiled"] if choice["compile"] else []
    return " ".join(parts)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
