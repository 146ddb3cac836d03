"""The choice of precision, memory layout and threads: measured, kept for resuming; nothing where all is set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_setup import Killed, make_config, same_tensors

from hilum import pipeline
from hilum.config import Config
from hilum.models.build import build_model
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.training import compute
from hilum.training.compute import WORTH, choose_compute, steps_of, with_choice_of
from hilum.training.device import keep_float32, set_up, settled
from hilum.training.prepare import PreparedData
from hilum.types import Finding

MEASURED = {"precision": "auto", "channels_last": "auto", "threads": "auto", "compile": "auto"}


class Clock:
    """A machine where a step takes as long as its settings say."""

    def __init__(self, milliseconds: dict[tuple[str, bool], float]) -> None:
        self.milliseconds, self.seen = milliseconds, 0

    def __call__(self, trial: Any, batch: Any, config: Any) -> None:
        choice, self.seen = trial.choice, self.seen + 1
        slower = 1.0 if choice["threads"] in (0, 4) else 1.5
        trial.seconds.append(self.milliseconds[choice["precision"], choice["channels_last"]] * slower / 1000)


@pytest.fixture
def network(phantoms: Path, prepared: PreparedData) -> nn.Module:
    torch.manual_seed(0)
    config = make_config(phantoms)
    return build_model(config.model, config.preprocess, len(prepared.index.class_names))


def choose(
    clock: Clock, network: nn.Module, prepared: PreparedData, root: Path, monkeypatch: pytest.MonkeyPatch, **set_: Any
) -> tuple[dict[str, Any], list[Finding]]:
    found: list[Finding] = []
    monkeypatch.setattr(compute, "_step", clock)
    monkeypatch.setattr(compute, "has_bfloat16", lambda: True)
    monkeypatch.setattr(compute, "available_cpus", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    config = make_config(Path("data"), training={**MEASURED, **set_})
    step = Step(found=found.extend)
    chosen = choose_compute(network, prepared.datasets["train"], config, WORTH, step, RunFolder(root)).training
    return {name: getattr(chosen, name) for name in MEASURED}, found


FAST_BF16 = {("32-true", True): 40.0, ("32-true", False): 60.0, ("bf16-mixed", True): 25.0, ("bf16-mixed", False): 30.0}
NEAR_TIE = {("32-true", True): 40.0, ("32-true", False): 39.0, ("bf16-mixed", True): 38.5, ("bf16-mixed", False): 50.0}


@pytest.mark.parametrize(
    ("clock", "set_", "expected"),
    [
        (FAST_BF16, {}, ("bf16-mixed", True, 4)),
        (NEAR_TIE, {}, ("32-true", True, 4)),
        (FAST_BF16, {"precision": "32-true"}, ("32-true", True, 4)),
        (FAST_BF16, {"channels_last": False, "threads": 2}, ("bf16-mixed", False, 2)),
    ],
)
def test_the_fastest_is_chosen_and_what_is_set_stays(
    clock: dict[tuple[str, bool], float],
    set_: dict[str, Any],
    expected: tuple[str, bool, int],
    network: nn.Module,
    prepared: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, found = choose(Clock(clock), network, prepared, tmp_path, monkeypatch, **set_)
    assert (chosen["precision"], chosen["channels_last"], chosen["threads"]) == expected
    assert chosen["compile"] is False
    assert [(one.check, one.severity) for one in found] == [("compute", "info")]
    kept = json.loads(RunFolder(tmp_path).compute.read_text())
    assert {name: kept[name] for name in MEASURED} == chosen
    assert all(entry["ms_per_image"] > 0 for entry in kept["measured"])


def test_a_resumed_run_and_runs_of_other_seeds_compute_alike(
    network: nn.Module, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, _ = choose(Clock(FAST_BF16), network, prepared, tmp_path, monkeypatch)
    config = make_config(Path("data"), training=MEASURED)
    again = with_choice_of(config, RunFolder(tmp_path)).training
    assert {name: getattr(again, name) for name in MEASURED} == chosen
    slower = make_config(Path("data"), training={**MEASURED, "precision": "32-true"})
    assert with_choice_of(slower, RunFolder(tmp_path)).training.precision == "32-true"
    assert with_choice_of(config, RunFolder(tmp_path / "other")) == config


def test_nothing_is_measured_where_all_is_set_or_the_run_is_short(
    network: nn.Module, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock({})
    monkeypatch.setattr(compute, "_step", clock)
    train, run = prepared.datasets["train"], RunFolder(tmp_path)
    everything = make_config(Path("data"), training=AS_SET)
    assert choose_compute(network, train, everything, WORTH, Step(), run) == everything
    short = make_config(Path("data"), training=MEASURED)
    assert choose_compute(network, train, short, WORTH - 1, Step(), run) == settled(short)
    assert clock.seen == 0
    assert not run.compute.exists()
    assert steps_of(make_config(Path("data"), training={"epochs": 5, "batch_size": 4}), 41) == 50


AS_SET = {"precision": "bf16-mixed", "channels_last": False, "threads": 3, "compile": False}


def test_a_measurement_leaves_network_and_random_numbers_as_they_were(
    network: nn.Module, prepared: PreparedData, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    config = make_config(Path("data"), training={**MEASURED, "device": "cpu"})
    choose_compute(network, prepared.datasets["train"], config, WORTH, Step(), RunFolder(tmp_path))
    assert torch.equal(torch.rand(3), expected)
    assert same_tensors(network.state_dict(), before)
    measured = json.loads(RunFolder(tmp_path).compute.read_text())["measured"]
    assert {entry["channels_last"] for entry in measured} == {True, False}


def test_a_run_trains_with_the_choice_and_goes_on_with_it(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[Any, ...]] = []

    def record(model: nn.Module, train: Any, val: Any, config: Config, *given: Any, **named: Any) -> None:
        trained.append((*(getattr(config.training, name) for name in MEASURED), torch.get_num_threads()))
        raise Killed

    clock = Clock(FAST_BF16)
    monkeypatch.setattr(pipeline, "fit", record)
    monkeypatch.setattr(compute, "_step", clock)
    monkeypatch.setattr(compute, "has_bfloat16", lambda: True)
    monkeypatch.setattr(compute, "WORTH", 1)
    config = make_config(phantoms, training={**MEASURED, "threads": 2})
    for resume in (False, True):
        with pytest.raises(Killed):
            pipeline.train(config, RunFolder(tmp_path), resume=resume)
        assert (clock.seen > 0) is not resume  # the second time, nothing is measured
        clock.seen = 0
    assert trained == [("bf16-mixed", True, 2, False, 2)] * 2


# --- convolutions in float32 --------------------------------------------------------------------------------------


def test_slow_depthwise_convolutions_stay_in_float32_inside_mixed_precision(phantoms: Path) -> None:
    convolutions = nn.Sequential(
        nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 8, 3, stride=2, groups=8), nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 5), nn.Conv2d(8, 8, 5, groups=2),
    )  # fmt: skip
    keep_float32(convolutions)
    seen: list[torch.dtype] = []
    for module in convolutions:
        module.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        convolutions(torch.rand(1, 8, 40, 40)).sum().backward()
    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.bfloat16, torch.bfloat16]
    assert all(module.weight.grad is not None for module in convolutions)
    assert (
        convolutions.state_dict().keys() == nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(5))).state_dict().keys()
    )


def test_a_network_set_up_in_mixed_precision_is_the_same_outside_of_it(network: nn.Module) -> None:
    image = torch.rand(2, 1, 32, 32)
    expected = network.eval()(image).class_logits
    config = make_config(Path("data"), training={**AS_SET, "threads": 1, "ema_decay": 0.9})
    setup = set_up(network, config)
    assert any(type(module).__name__.startswith("Float32") for module in network.modules())
    for found in (network, setup.ema.module if setup.ema else network):
        torch.testing.assert_close(found.eval()(image).class_logits, expected)
    set_up(network, config)  # again: nothing is wrapped twice
    assert not any(type(module).__name__.startswith("Float32Float32") for module in network.modules())


def test_a_compiled_network_keeps_its_names_and_its_average_is_not_compiled(network: nn.Module) -> None:
    names = list(network.state_dict())
    config = make_config(Path("data"), training={**AS_SET, "precision": "32-true", "compile": True, "ema_decay": 0.9})
    setup = set_up(network, config)
    assert network._compiled_call_impl is not None
    assert list(network.state_dict()) == names
    assert setup.ema is not None
    assert setup.ema.module._compiled_call_impl is None
