"""What the processes of tests/training/test_processes.py run; started by hilum.training.launch, so in a module."""

from __future__ import annotations

import copy
import os
import signal
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from hilum.training.processes import here, joined


def gradients(config: Any, data: Any, keep_masks: str, kind: torch.dtype) -> dict[str, torch.Tensor | None]:
    """The gradients of the first batch, summed over the processes; ``keep_masks`` is all, half or none."""
    from hilum.models.build import build_model
    from hilum.models.losses import MultiTaskLoss
    from hilum.training.dataset import EpochSampler, training_loader
    from hilum.training.device import set_up
    from hilum.training.shortcuts import Treatments
    from hilum.training.step import TrainingStep

    processes, train = here(), data.datasets["train"]
    torch.manual_seed(0)
    model = build_model(config.model, config.preprocess, train.num_classes)
    teacher = copy.deepcopy(model)
    setup = replace(set_up(model.to(kind), config, processes), wrapped=Network(model))
    totals = None if processes.size == 1 else lambda counts: processes.totals(counts, torch.device("cpu"))
    loss = MultiTaskLoss(config.loss, None, None, totals)
    step = TrainingStep(config, setup, loss, Treatments.of(config, train.class_names), teacher)
    sampler = EpochSampler(train.labels, config.training.batch_size, 0, processes=processes)
    setup.wrapped.train()
    batch = next(iter(step.batches(training_loader(train, sampler, 0), 1)))
    first_half = torch.arange(len(batch.row)) + processes.rank * len(batch.row) < config.training.batch_size // 2
    kept = first_half[batch.mask_rows] & (keep_masks != "none") | torch.tensor(keep_masks == "all")
    step.backward(batch._replace(mask=batch.mask[kept], mask_rows=batch.mask_rows[kept]), 1)
    processes.sum_gradients(model)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


class Network(torch.nn.Module):
    """A network whose input gets the type of its weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> Any:
        return self.model(image.to(next(self.model.parameters()).dtype))


def all_gradients(config: Any, data: Any) -> dict[str, dict[str, torch.Tensor | None]]:
    """Gradients in float64, where rounding hides nothing, and in float32."""
    kinds = {"float64": torch.float64, "float32": torch.float32}
    return {
        f"{name}, {keep}": gradients(config, data, keep, kind)
        for name, kind in kinds.items()
        for keep in ("all", "half", "none")
    }


def train_all(config: Any, changed: Any, data: Any, half: Path, out: Path) -> None:
    """Gradients, a whole run, the rest of the run in ``half``, and the beginning of one, by all processes.

    The runs are in float64: AdamW takes whole steps along gradients near 0, whose sign is rounding.
    """
    from training_setup import Killed, Killer, start

    with joined() as processes, torch.random.fork_rng():
        found = all_gradients(changed, data)
        progress, model = start(config, data, out / "whole", kind=torch.float64)
        rest, again = start(config, data, half, kind=torch.float64)
        with suppress(Killed):
            start(config, data, out / "half", Killer(2, 2), kind=torch.float64)
        rows = {"whole": [asdict(row) for row in progress.rows], "rest": [asdict(row) for row in rest.rows]}
        weights = {"whole": model.state_dict(), "rest": again.state_dict()}
        torch.save({"gradients": found, "rows": rows, "weights": weights}, out / f"{processes.rank}.pt")


def die(how: str) -> None:
    """Process 1 ends while process 0 waits for it in a step."""
    from hilum.errors import DataError

    with joined() as processes:
        if processes.rank == 1 and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if processes.rank == 1 and how == "error":
            raise DataError("Not this one.", hint="Another.")
        if processes.rank == 1 and how == "bug":
            raise KeyError("nothing")
        processes.total(torch.ones(1))
