"""Treatments of training images that take the reward of a shortcut away, and the loss of the treated images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from hilum.config import Config, ShortcutConfig
from hilum.errors import ConfigError
from hilum.models.losses import Extra
from hilum.training.lesions import draw_lesion
from hilum.types import UNKNOWN_LABEL, Batch, ModelOutput

PLAIN, BACKGROUND, ERASED, LESION = range(4)


SMALLEST, LARGEST = 0.08, 0.6
"""Share of the square that a mask must cover to pass for lungs."""


SURE = 0.8
"""Least mean of |2 p - 1| over the square for a predicted mask to be used."""


_DILATION, _RING, _EDGE = 0.05, 0.05, 0.012


_STREAM = 7  # keeps these draws apart from those of the augmentation, which are seeded alike


class Treated(NamedTuple):
    """A batch after its treatments.

    Films of kind ERASED and LESION have label -1 in ``batch``, and erased ones no mask, so that whatever sums over
    labels and masks leaves them out.
    """

    batch: Batch
    kind: torch.Tensor  # (N,) int64
    region: torch.Tensor  # (N, 1, S, S) float32 in {0, 1}: the drawn opacity; 0 for other kinds


@dataclass(frozen=True)
class Plan:
    """What was drawn for N films, before it is known whether their lungs are."""

    kind: NDArray[np.int64]  # (N,)
    seeds: NDArray[np.int64]  # (N,)


def draw_plan(config: ShortcutConfig, seed: int, epoch: int, batch: Batch, normal: int | None) -> Plan:
    """A kind for every film; LESION only where the label is ``normal``, others only where there is a label."""
    kinds, seeds = [], []
    for row, label in zip(batch.row.tolist(), batch.label.tolist(), strict=True):
        random = np.random.default_rng([seed, epoch, row, _STREAM])
        chance, lesion, own = random.random(), random.random(), int(random.integers(2**31))
        kind = PLAIN
        if label >= 0 and chance < config.background_p:
            kind = BACKGROUND
        elif label >= 0 and chance < config.background_p + config.erase_p:
            kind = ERASED
        elif label == normal and lesion < config.lesion_p:
            kind = LESION
        kinds.append(kind)
        seeds.append(own)
    return Plan(np.array(kinds, np.int64), np.array(seeds, np.int64))


def usable(probability: torch.Tensor) -> torch.Tensor:
    """Which predicted masks (N, 1, S, S) in [0, 1] are sure, and of a lung's size: (N,) bool."""
    sure = (2 * probability - 1).abs().mean(dim=(1, 2, 3)) >= SURE
    share = (probability > 0.5).float().mean(dim=(1, 2, 3))
    return sure & (share >= SMALLEST) & (share <= LARGEST)


def treat(batch: Batch, lungs: torch.Tensor, known: torch.Tensor, plan: Plan) -> Treated:
    """Carry out ``plan`` where the lungs are known.

    Args:
        batch: N films.
        lungs: (N, 1, S, S) float32 in {0, 1}.
        known: (N,) bool, which of them can be relied on; other films stay PLAIN.
        plan: from draw_plan.
    """
    image, label = batch.image.clone(), batch.label.clone()
    kind = torch.zeros_like(label)
    region = torch.zeros_like(lungs)
    usable_rows = np.flatnonzero(known.cpu().numpy())
    for place in usable_rows.tolist():
        wanted, random = int(plan.kind[place]), np.random.default_rng(int(plan.seeds[place]))
        own, lung = batch.image[place], lungs[place]
        if wanted == BACKGROUND:
            others = [row for row in usable_rows.tolist() if batch.label[row] not in (batch.label[place], -1)]
            if not others:
                continue
            other = int(random.choice(others))
            image[place] = _over(own, lung, _without_lungs(batch.image[other], lungs[other], None))
        elif wanted == ERASED:
            image[place] = _without_lungs(own, lung, random)
            label[place] = UNKNOWN_LABEL
        elif wanted == LESION:
            image[place], region[place] = _with_lesion(own, lung, random)
            label[place] = UNKNOWN_LABEL
        kind[place] = wanted
    kept = kind[batch.mask_rows] != ERASED
    treated = batch._replace(image=image, label=label, mask=batch.mask[kept], mask_rows=batch.mask_rows[kept])
    return Treated(treated, kind, region)


def _without_lungs(image: torch.Tensor, lung: torch.Tensor, random: np.random.Generator | None) -> torch.Tensor:
    """(C, S, S) with the dilated lungs filled: the mean of the ring around them, or a drawn gray with grain."""
    wide = _dilated(lung, _DILATION)
    ring = (_dilated(wide, _RING) > 0) & (wide == 0) & (image[:1] > 0)
    level = float(image[:1][ring].mean()) if bool(ring.any()) else 0.5
    fill = torch.full_like(image, level)
    if random is not None:
        level = level if random.random() < 0.5 else float(random.uniform(0.1, 0.9))
        grain = random.standard_normal(lung.shape, np.float32) * random.choice([0.0, 0.02, 0.06])
        fill = level + torch.from_numpy(grain.astype(np.float32)).to(image.device).expand_as(image)
    area = (wide > 0) & (image[:1] > 0)  # the padding stays black
    return torch.where(area, fill, image).clamp(0, 1)


def _over(image: torch.Tensor, lung: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """The lungs of ``image``, soft-edged, over ``background``."""
    sigma = _EDGE * image.shape[-1]
    kernel = 2 * max(1, round(3 * sigma)) + 1
    weight = gaussian_blur2d(lung[None], (kernel, kernel), (sigma, sigma))[0]
    return weight * image + (1 - weight) * background


def _with_lesion(
    image: torch.Tensor, lung: torch.Tensor, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    inside = lung[0] > 0
    outside = image[0][~inside & (image[0] > 0.05)]
    tissue = float(outside.mean()) if outside.numel() else 0.6
    opacity, region = draw_lesion(random, inside.cpu().numpy())
    share = torch.from_numpy(opacity).to(image.device)[None]
    level = tissue * float(random.uniform(0.9, 1.25))
    drawn = image + share * (level - image).clamp(min=0)
    return drawn.clamp(0, 1), torch.from_numpy(region.astype(np.float32)).to(image.device)[None]


def _dilated(mask: torch.Tensor, share: float) -> torch.Tensor:
    """(1, S, S) grown by a square of ``share`` of the side on each side."""
    radius = max(1, round(share * mask.shape[-1]))
    return functional.max_pool2d(mask[None], 2 * radius + 1, stride=1, padding=radius)[0]


_TINY = 1e-6


def shortcut_loss(output: ModelOutput, treated: Treated, normal: int | None, localization_weight: float) -> Extra:
    """Summed over the films: towards the uniform answer, away from normal, and the evidence into the drawn region.

    - erased: the Kullback-Leibler divergence of the answer from the uniform one, in nats;
    - lesion: -log(1 - p(normal)), plus ``localization_weight`` times -log of the share that the region holds of the
      positive evidence of all classes but ``normal``. A network without evidence has the first part alone.

    Args:
        output: of the treated films.
        treated: from hilum.training.shortcuts.
        normal: the number of the class without findings.
        localization_weight: at least 0.
    """
    logits = output.class_logits.float()
    kind = treated.kind.to(logits.device)
    log_p = functional.log_softmax(logits, dim=1)
    erased, lesion = kind == ERASED, kind == LESION
    films = int((erased | lesion).sum())
    total = logits.new_zeros(())
    if bool(erased.any()):
        classes = logits.shape[1]
        total = total + (-log_p[erased].mean(dim=1) - torch.log(logits.new_tensor(float(classes)))).sum()
    if bool(lesion.any()) and normal is not None:
        others = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        others[normal] = False
        total = total - torch.logsumexp(log_p[lesion][:, others], dim=1).sum()
        if output.evidence is not None and localization_weight:
            found = output.evidence[lesion][:, others].float().clamp(min=0).sum(dim=1)  # (L, h, w)
            region = functional.adaptive_max_pool2d(treated.region[lesion], found.shape[-2:])[:, 0]
            share = ((found * region).sum(dim=(1, 2)) + _TINY) / (found.sum(dim=(1, 2)) + _TINY)
            total = total - localization_weight * share.log().sum()
    return Extra(total, films)


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
        return shortcut_loss(output, treated, self.normal, self.config.localization_weight)


def _normal_class(name: str | None, class_names: Sequence[str]) -> int | None:
    """The number of the class ``name``; for None, of the one class that is called as in NORMAL_NAMES, if any."""
    if name is not None:
        if name not in class_names:
            raise ConfigError(
                f"Expected a class {name!r} without findings, the classes are {', '.join(class_names)}.",
                hint="Name it by --normal-class, or leave that out.",
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
