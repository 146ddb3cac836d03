"""The treatments of hilum.data.treatments inside the loop: finding lungs, treating a batch, its part of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.config import Config, ShortcutConfig
from hilum.data.treatments import PLAIN, Plan, Treated, draw_plan, treat, usable
from hilum.errors import ConfigError
from hilum.models.losses import Extra
from hilum.models.shortcut_loss import shortcut_loss
from hilum.types import Batch, ModelOutput

NORMAL_NAMES = ("normal", "no finding", "no findings", "healthy")


@dataclass(frozen=True)
class Treatments:
    """What a run does against shortcuts: its settings, its seed, and the number of its normal class."""

    config: ShortcutConfig
    seed: int
    normal: int | None

    @classmethod
    def of(cls, config: Config, class_names: Sequence[str]) -> Treatments | None:
        """Those of ``config``; None where all are turned off.

        Raises:
            ConfigError: the normal class that is named is not there.
        """
        settings = config.shortcuts
        normal = _normal_class(settings.normal_class, class_names)
        if normal is None:
            settings = settings.model_copy(update={"lesion_p": 0.0})
        if not settings.background_p and not settings.erase_p and not settings.lesion_p:
            return None
        return cls(settings, config.training.seed, normal)

    @property
    def lesion_share(self) -> float:
        """The share of normal films that lose their label to a drawn opacity."""
        if self.normal is None:
            return 0.0
        return self.config.lesion_p * (1 - self.config.background_p - self.config.erase_p)

    def after_lesions(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Class shares (K,) once drawn opacities count as the other classes, in proportion: what the loss is shown."""
        if self.normal is None or not self.lesion_share:
            return shares
        others = np.arange(len(shares)) != self.normal
        left = shares[self.normal] * (1 - self.lesion_share)
        scale = (1 - left) / shares[others].sum()
        return np.asarray(np.where(others, shares * scale, left), np.float64)

    def treat(self, batch: Batch, teacher: nn.Module, epoch: int) -> Treated:
        """The batch after what is drawn for it; ``teacher`` finds the lungs of films without a mask."""
        plan = draw_plan(self.config, self.seed, epoch, batch, self.normal)
        lungs, known = _lungs(batch, teacher, plan)
        return treat(batch, lungs, known, plan)

    def loss(self, output: ModelOutput, treated: Treated) -> Extra:
        """Of the films that lost their label."""
        return shortcut_loss(output, treated, self.normal, self.config.localisation_weight)


def _normal_class(name: str | None, class_names: Sequence[str]) -> int | None:
    """The number of the class ``name``; for None, of the one class that is called as in NORMAL_NAMES, if any."""
    if name is not None:
        if name not in class_names:
            raise ConfigError(
                f"Expected a class {name!r} without findings, the classes are {', '.join(class_names)}.",
                cure="Name it by --normal-class, or leave that out.",
            )
        return list(class_names).index(name)
    found = [number for number, own in enumerate(class_names) if own.casefold().replace("_", " ") in NORMAL_NAMES]
    return found[0] if len(found) == 1 else None


def _lungs(batch: Batch, teacher: nn.Module, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Lungs (N, 1, S, S) float32 in {0, 1}, and which of them (N,) bool can be relied on."""
    n, _, height, width = batch.image.shape
    lungs = batch.image.new_zeros((n, 1, height, width))
    known = torch.zeros(n, dtype=torch.bool, device=batch.image.device)
    lungs[batch.mask_rows] = batch.mask
    known[batch.mask_rows] = batch.mask.mean(dim=(1, 2, 3)) > 0
    rows = torch.from_numpy(np.flatnonzero(plan.kind != PLAIN)).to(known.device)
    rows = rows[~known[rows]]  # backgrounds come from these and from the films with a mask: no pass for the others
    if len(rows):
        training = teacher.training
        teacher.eval()
        with torch.no_grad():
            probability = torch.sigmoid(teacher(batch.image[rows]).mask_logits.float())
        teacher.train(training)
        lungs[rows] = (probability > 0.5).float()
        known[rows] = usable(probability)
    return lungs, known
