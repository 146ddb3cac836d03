"""The learning rate, the averaged weights, the device, and what is said when its memory is exhausted."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from hilum.config import Config, TrainingConfig, load_config
from hilum.errors import ConfigError, DeviceError
from hilum.training.device import explaining_out_of_memory, open_fabric
from hilum.training.optim import Schedule, build_ema, build_optimizer, check_batch_size


def make(config: TrainingConfig, steps_per_epoch: int) -> tuple[torch.optim.Optimizer, Schedule]:
    torch.manual_seed(0)
    optimizer = build_optimizer(nn.Linear(3, 2), config)
    return optimizer, Schedule(optimizer, config, steps_per_epoch)


def rates_of(config: TrainingConfig, steps_per_epoch: int) -> list[float]:
    """The learning rate of every step of a run."""
    optimizer, schedule = make(config, steps_per_epoch)
    rates = []
    for _ in range(config.epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.after_step()
    return rates


# --- the learning rate --------------------------------------------------------------------------------------------


def test_cosine_warms_up_and_falls_to_nothing() -> None:
    config = TrainingConfig(epochs=10, learning_rate=0.1, warmup_epochs=2, schedule="cosine")
    rates = rates_of(config, steps_per_epoch=5)
    assert rates[:10] == pytest.approx([0.01 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.05)  # half way between step 10 and step 50
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 39 / 40)))


def test_cosine_without_warm_up_starts_at_the_peak() -> None:
    rates = rates_of(TrainingConfig(epochs=4, learning_rate=0.1, warmup_epochs=0), steps_per_epoch=3)
    assert rates[0] == 0.1
    assert rates[1] < 0.1
    assert max(rates) == 0.1


def test_the_learning_rate_never_falls_below_its_floor() -> None:
    rates = rates_of(TrainingConfig(epochs=5, learning_rate=0.1, min_learning_rate=0.02), steps_per_epoch=4)
    assert min(rates[4:]) == pytest.approx(0.02)


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    rates = rates_of(TrainingConfig(epochs=2, learning_rate=0.1, warmup_epochs=10), steps_per_epoch=2)
    assert rates == pytest.approx([0.005, 0.01, 0.015, 0.02])


def test_plateau_waits_for_its_patience() -> None:
    config = TrainingConfig(schedule="plateau", learning_rate=0.1, plateau_patience=2, min_learning_rate=0.04)
    optimizer, schedule = make(config, 5)
    rates = []
    for loss in (1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95):
        schedule.after_step()
        schedule.after_epoch(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1] * 4 + [0.05] * 3 + [0.04] * 2)


@pytest.mark.parametrize("name", ["cosine", "plateau"])
def test_a_schedule_goes_on_where_it_was(name: str) -> None:
    config = TrainingConfig.model_validate({"schedule": name, "epochs": 6, "plateau_patience": 0, "warmup_epochs": 1.5})
    losses = (1.0, 1.1, 0.9, 0.95, 0.96, 0.5)

    def run(optimizer: torch.optim.Optimizer, schedule: Schedule, epochs: tuple[float, ...]) -> list[float]:
        rates = []
        for loss in epochs:
            for _ in range(3):
                optimizer.step()
                schedule.after_step()
                rates.append(optimizer.param_groups[0]["lr"])
            schedule.after_epoch(loss)
        return [*rates, optimizer.param_groups[0]["lr"]]

    whole = run(*make(config, 3), losses)
    optimizer, schedule = make(config, 3)
    first = run(optimizer, schedule, losses[:3])[:-1]
    again, resumed = make(config, 3)
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert [*first, *run(again, resumed, losses[3:])] == whole


# --- the averaged weights -----------------------------------------------------------------------------------------


def test_the_average_is_of_weights_and_of_batch_norm_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema = build_ema(model, TrainingConfig(ema_decay=0.5))
    assert ema is not None
    expected: dict[str, torch.Tensor] = {}
    for step in range(1, 7):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(4, 3))  # type: ignore[operator]
        model(torch.randn(8, 3))  # moves the running mean and variance
        ema.update(model, step=step)
        # timm's warm-up: nothing of the start is kept, then 1 - (step)^(-2/3) until the decay is reached
        decay = min(0.5, 1 - step ** (-2 / 3)) if step > 1 else 0.0
        for name, tensor in model.state_dict().items():
            old = expected.get(name, tensor)
            blend = decay * old + (1 - decay) * tensor if tensor.is_floating_point() else tensor
            expected[name] = blend.clone()
    for name, tensor in ema.module.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
    assert ema.module.state_dict()["1.num_batches_tracked"] == 6
    assert not torch.allclose(ema.module[1].running_mean, model[1].running_mean)  # type: ignore[index, arg-type]
    assert not ema.module.training


def test_no_average_without_a_decay() -> None:
    assert build_ema(nn.Linear(1, 1), TrainingConfig(ema_decay=0)) is None


# --- the device ---------------------------------------------------------------------------------------------------


def on(device: str) -> Config:
    return load_config(overrides={"training": {"device": device}})


def test_cpu_is_always_there() -> None:
    assert open_fabric(on("cpu")).device == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:one", "cuda:-1", "", "mps"])
def test_an_unknown_device_is_a_bad_setting(name: str) -> None:
    with pytest.raises(ConfigError, match="--device"):
        open_fabric(on(name))


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_without_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError) as caught:
        open_fabric(on(name))
    assert name in caught.value.message
    assert "--device cpu" in caught.value.hint


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="cuda:99"):
        open_fabric(on("cuda:99"))


def test_auto_takes_the_cpu_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_fabric(on("auto")).device.type == "cpu"


def out_of_memory(**settings: object) -> DeviceError:
    size = settings.pop("size", 256)
    config = load_config(overrides={"training": settings, "preprocess": {"size": size}})
    with pytest.raises(DeviceError) as caught, explaining_out_of_memory(config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    return caught.value


def test_out_of_memory_names_the_options_that_help() -> None:
    error = out_of_memory(batch_size=16, accumulate=2)
    assert "16 images of 256 x 256" in error.message
    for flag in ("--batch-size 8", "--set training.accumulate=4", "--precision bf16-mixed", "--size 128"):
        assert flag in error.hint


def test_out_of_memory_names_no_option_that_cannot_help() -> None:
    hint = out_of_memory(batch_size=1, precision="bf16-mixed", size=64).hint
    assert "--batch-size" not in hint
    assert "--precision" not in hint
    assert "--size 32" in hint
    assert out_of_memory(batch_size=1, precision="bf16-mixed", size=32).hint == "Try --device cpu."


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shape"), explaining_out_of_memory(Config()):
        raise RuntimeError("shape")


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        ({"model": {"name": "unet"}}, True),
        ({"preprocess": {"size": 32}}, True),
        ({"preprocess": {"size": 64}}, False),
        ({"model": {"name": "unet"}, "training": {"batch_size": 2}}, False),
    ],
)
def test_a_batch_of_one_where_batch_norm_cannot_take_it(overrides: dict[str, dict[str, object]], refused: bool) -> None:
    config = load_config(overrides={"training": {"batch_size": 1}, **overrides})
    if not refused:
        check_batch_size(config)
        return
    with pytest.raises(ConfigError, match="batch size of at least 2"):
        check_batch_size(config)
