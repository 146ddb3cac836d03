"""Training films that take a shortcut's reward away: other backgrounds, no lungs, drawn opacities.

After augmentation a film stays as it is, or one of these happens to it:

- **background**: its lungs over another film's surroundings, the label stays (after Xiao et al. 2021, ICLR);
- **erased**: its lungs are filled, and no answer is right: the target is uniform (after DeGrave et al. 2021);
- **lesion**: an opacity is drawn into the lungs of a normal film, which is then anything but normal, for a reason whose
  place is known (after Tan et al. 2020, arXiv:2011.04197, who blend patches).

All need the lungs: a person's mask where there is one, else that of the averaged network, where it is sure of it. What
is drawn depends on (seed, epoch, row) alone; which film lends its background, on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from numpy.typing import NDArray
from torch.nn import functional

from hilum.config import ShortcutConfig
from hilum.training.lesions import draw_lesion
from hilum.types import Batch

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
            label[place] = -1
        elif wanted == LESION:
            image[place], region[place] = _with_lesion(own, lung, random)
            label[place] = -1
        kind[place] = wanted
    kept = kind[batch.mask_rows] != ERASED
    treated = batch._replace(image=image, label=label, mask=batch.mask[kept], mask_rows=batch.mask_rows[kept])
    return Treated(treated, kind, region)


def _without_lungs(image: torch.Tensor, lung: torch.Tensor, random: np.random.Generator | None) -> torch.Tensor:
    """(C, S, S) with the dilated lungs filled: the mean of the ring around them, or a drawn grey with grain."""
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
