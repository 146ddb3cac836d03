"""Augmentation against shortcut learning, and the loss of images whose label it removes.

There are three kinds, drawn per image. They need the lungs, from the mask or else from the network in training:

    BACKGROUND  the lungs are pasted onto an image of another class, so the background does not indicate the class
    ERASED      the lungs are filled, and the target is uniform over the classes
    LESION      a normal image gets a synthetic opacity; the target is any other class, with evidence in the opacity

All draws are functions of (seed, epoch, row), as in hilum.training.augment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
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
from hilum.training.lesions import draw_lesions
from hilum.training.processes import ALONE, Processes
from hilum.types import UNKNOWN_LABEL, Batch, ModelOutput

Autocast = AbstractContextManager[object]

PLAIN, BACKGROUND, ERASED, LESION = range(4)

NORMAL_NAMES = ("normal", "no finding", "no findings", "healthy")
"""Names by which the class without findings is recognized if ``shortcuts.normal_class`` is not set."""

_STREAM = 7  # distinguishes these draws from those of the augmentation, which have the same seeds
_SMALLEST, _LARGEST = 0.08, 0.6  # plausible lung fraction of the square for a predicted mask
_SURE = 0.8  # minimum mean of |2 p - 1| over the square for a predicted mask to be used
_DILATION, _RING, _EDGE = 0.05, 0.05, 0.012  # fractions of the side: lung margin, ring around it, sigma of soft edges
_TINY = 1e-6


class Treated(NamedTuple):
    """A batch after augmentation.

    Images of kind ERASED and LESION have label -1 in ``batch``, and erased images no mask, so that the ordinary loss
    ignores them. So have images that stayed as they are though they were drawn for LESION and their lungs are not
    known, or for BACKGROUND and no other class is in the batch: the fraction that keeps its label is then known.
    """

    batch: Batch
    kind: torch.Tensor  # (N,) int64
    region: torch.Tensor  # (N, 1, S, S) float32 in {0, 1}, region of the synthetic opacity
    drawn: torch.Tensor  # (N,) int64, the kind of the plan, which differs where the lungs are not known
    weight: torch.Tensor | None = None  # (N,) float32, of the labels: see label_weights; None for equal weights


class Others(NamedTuple):
    """Images that lie beside those of a batch: the N of the whole batch, where processes have parts of it."""

    image: torch.Tensor  # (N, C, S, S)
    lungs: torch.Tensor  # (N, 1, S, S) float32 in {0, 1}
    known: torch.Tensor  # (N,) bool, whether the lungs are reliable
    label: torch.Tensor  # (N,) int64


@dataclass(frozen=True)
class Plan:
    """Kinds and seeds drawn for N images; the pixels of images without known lungs stay unchanged."""

    kind: NDArray[np.int64]  # (N,)
    seeds: NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class Treatments:
    """Augmentation against shortcuts in a run.

    Attributes:
        config: Probabilities and weights.
        seed: Random seed of the run.
        normal: Index of the normal class, or None.
    """

    config: ShortcutConfig
    seed: int
    normal: int | None

    @classmethod
    def of(cls, config: Config, class_names: Sequence[str], *, lungs: bool = True) -> Treatments | None:
        """Return the augmentation of the settings, or None if it is disabled.

        Args:
            config: All settings.
            class_names: The K class names.
            lungs: Whether lungs can be known: a training image has a mask, or the network has learned masks before.

        Raises:
            ConfigError: ``shortcuts.normal_class`` is not one of the classes.
        """
        settings = config.shortcuts
        normal = _normal_class(settings.normal_class, class_names)
        if normal is None:
            settings = settings.model_copy(update={"lesion_p": 0.0})
        if not lungs or not (settings.background_p or settings.erase_p or settings.lesion_p):
            return None
        return cls(settings, config.training.seed, normal)

    def treat(
        self,
        batch: Batch,
        teacher: nn.Module,
        epoch: int,
        autocast: Callable[[], Autocast] = nullcontext,
        processes: Processes = ALONE,
    ) -> Treated:
        """Augment a batch.

        Args:
            batch: The batch, or this process's part of it.
            teacher: Predicts the lungs of images without a mask, inside an ``autocast()`` block.
            epoch: The epoch.
            autocast: Returns the block.
            processes: The processes that have the other parts, from which backgrounds are taken as well.
        """
        plan = draw_plan(self.config, self.seed, epoch, batch, self.normal)
        with autocast():
            lungs, known = _find_lungs(batch, teacher, plan)
        others = Others(batch.image, lungs, known, batch.label)
        if processes.size > 1 and self.config.background_p:
            gray, *rest = (processes.gather(part) for part in (batch.image[:, :1], lungs, known, batch.label))
            others = Others(gray.expand(-1, batch.image.shape[1], -1, -1), *rest)
        treated = apply_plan(batch, lungs, known, plan, others)
        return treated._replace(weight=label_weights(treated, batch, known, self.config, processes))

    def loss(self, output: ModelOutput, treated: Treated) -> Extra:
        """Return the loss of the images whose label was removed (shortcut_loss), and shift and weight of the others.

        Of the normal images that are not drawn for BACKGROUND or ERASED, ``1 - lesion_p`` keep their label. The shift
        is the logarithm of this fraction, as for a class that is sampled less often (hilum.models.losses.prior_shift).
        Images drawn for BACKGROUND have none, since they never get an opacity.
        """
        extra = shortcut_loss(output, treated, self.normal, self.config.localization_weight)
        extra = extra._replace(weight=treated.weight)
        if self.normal is None or not self.config.lesion_p:
            return extra
        shift = torch.zeros_like(output.class_logits, dtype=torch.float32)
        shift[treated.drawn.to(shift.device) == PLAIN, self.normal] = float(np.log1p(-self.config.lesion_p))
        return extra._replace(shift=shift)


def draw_plan(config: ShortcutConfig, seed: int, epoch: int, batch: Batch, normal: int | None) -> Plan:
    """Draw a kind for every image: LESION only for the class ``normal``, others only for labeled images."""
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


def apply_plan(
    batch: Batch, lungs: torch.Tensor, known: torch.Tensor, plan: Plan, others: Others | None = None
) -> Treated:
    """Apply drawn kinds to the images with known lungs.

    Args:
        batch: The batch of N images.
        lungs: (N, 1, S, S) float32 in {0, 1}.
        known: (N,) bool, True if the lungs are reliable; other images stay as they are, and lose their label where
            they were drawn for LESION.
        plan: Kinds and seeds, from draw_plan.
        others: The images to take backgrounds from; those of the batch by default.
    """
    others = others or Others(batch.image, lungs, known, batch.label)
    image, label = batch.image.clone(), batch.label.clone()
    drawn = torch.from_numpy(plan.kind).to(label.device)
    label[drawn == LESION] = UNKNOWN_LABEL
    kind = torch.zeros_like(label)
    region = torch.zeros_like(lungs)
    changes, alone = _choose(batch, known, plan, others)
    label[alone] = UNKNOWN_LABEL
    if own := [change for change in changes if change.kind == BACKGROUND]:
        rows, behind = [change.row for change in own], [int(change.random.choice(change.others)) for change in own]
        background = _without_lungs(others.image[behind], others.lungs[behind])
        image[rows] = _over(batch.image[rows], lungs[rows], background)
        kind[rows] = BACKGROUND
    if own := [change for change in changes if change.kind == ERASED]:
        rows, randoms = [change.row for change in own], [change.random for change in own]
        image[rows] = _without_lungs(batch.image[rows], lungs[rows], randoms)
        label[rows], kind[rows] = UNKNOWN_LABEL, ERASED
    if own := [change for change in changes if change.kind == LESION]:
        rows, randoms = [change.row for change in own], [change.random for change in own]
        image[rows], region[rows] = _with_lesions(batch.image[rows], lungs[rows], randoms)
        kind[rows] = LESION
    kept = kind[batch.mask_rows] != ERASED
    treated = batch._replace(image=image, label=label, mask=batch.mask[kept], mask_rows=batch.mask_rows[kept])
    return Treated(treated, kind, region, drawn)


class _Change(NamedTuple):
    """A change of one image: its kind and generator and, for BACKGROUND, the rows of Others that can be behind it."""

    row: int
    kind: int
    random: np.random.Generator
    others: list[int]


def _choose(batch: Batch, known: torch.Tensor, plan: Plan, beside: Others) -> tuple[list[_Change], list[int]]:
    """Return the changes, and the rows drawn for BACKGROUND that have no image of another class beside them."""
    labels, others_labels = batch.label.tolist(), beside.label.tolist()
    usable_rows = np.flatnonzero(beside.known.cpu().numpy()).tolist()
    changes, alone = [], []
    for row in np.flatnonzero(known.cpu().numpy()).tolist():
        kind = int(plan.kind[row])
        others = [other for other in usable_rows if others_labels[other] not in (labels[row], UNKNOWN_LABEL)]
        if kind == BACKGROUND and not others:
            alone.append(row)
        elif kind != PLAIN:
            changes.append(_Change(row, kind, np.random.default_rng(int(plan.seeds[row])), others))
    return changes, alone


def shortcut_loss(output: ModelOutput, treated: Treated, normal: int | None, localization_weight: float) -> Extra:
    """Return the summed loss of the images whose label was removed.

    - ERASED: Kullback-Leibler divergence of the prediction from the uniform distribution, in nats;
    - LESION: -log(1 - p(normal)), plus ``localization_weight`` times -log of the fraction of the positive evidence of
      all other classes that is inside the region. The second term needs a network with evidence.

    Args:
        output: Output of the network for the augmented images.
        treated: The augmented batch, from apply_plan.
        normal: Index of the normal class, or None.
        localization_weight: Weight of the localization term, at least 0.
    """
    logits = output.class_logits.float()
    kind = treated.kind.to(logits.device)
    log_p = functional.log_softmax(logits, dim=1)
    erased, lesion = kind == ERASED, kind == LESION
    images = int((erased | lesion).sum())
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
    return Extra(total, images)


def label_weights(
    treated: Treated, batch: Batch, known: torch.Tensor, config: ShortcutConfig, processes: Processes = ALONE
) -> torch.Tensor | None:
    """Return weights (N,) float32 of the labels in the loss: the inverse of the probability to stay as it is, scaled.

    Where masks exist for some classes only, and the network does not find other lungs yet, those classes would
    otherwise be rarer among the images that stay as they are (inverse probability weights: Horvitz & Thompson 1952).
    An image with a mask stays with probability 1 - background_p - erase_p; for the others, the fraction of lungs that
    were found in the batch is taken into account.

    Args:
        treated: The augmented batch.
        batch: The batch before.
        known: (N,) bool, whether the lungs of an image that was drawn are reliable.
        config: The probabilities.
        processes: The processes that have the other parts of the batch.

    Returns:
        The weights, 1 for images that were changed; None if no image is to be changed, or every image.
    """
    leave = config.background_p + config.erase_p
    if not 0 < leave < 1:
        return None
    masked = torch.zeros_like(known)
    masked[batch.mask_rows] = batch.mask.mean(dim=(1, 2, 3)) > 0
    sought = ~masked & (treated.drawn != PLAIN)
    counts = processes.total(torch.stack([(known & sought).sum(), sought.sum()])).float()
    found = counts[0] / counts[1].clamp(min=1)
    stays = torch.where(masked, 1 - leave, 1 - leave * found)
    return torch.where(treated.kind == PLAIN, (1 - leave) / stays, torch.ones_like(stays))


def usable(probability: torch.Tensor) -> torch.Tensor:
    """Return which predicted masks (N, 1, S, S) in [0, 1] are confident and of plausible size, (N,) bool."""
    sure = (2 * probability - 1).abs().mean(dim=(1, 2, 3)) >= _SURE
    share = (probability > 0.5).float().mean(dim=(1, 2, 3))
    return sure & (share >= _SMALLEST) & (share <= _LARGEST)


def _normal_class(name: str | None, class_names: Sequence[str]) -> int | None:
    """Return the index of the class ``name``, or if it is None, of the only class with one of NORMAL_NAMES."""
    if name is not None:
        if name not in class_names:
            raise ConfigError(
                f"shortcuts.normal_class {name!r} is not one of the classes {', '.join(class_names)}.",
                hint="Set one of them with --set shortcuts.normal_class=NAME, or omit it.",
            )
        return list(class_names).index(name)
    found = [number for number, own in enumerate(class_names) if own.casefold().replace("_", " ") in NORMAL_NAMES]
    return found[0] if len(found) == 1 else None


def _find_lungs(batch: Batch, teacher: nn.Module, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lungs (N, 1, S, S) float32 in {0, 1}, and which are reliable, (N,) bool."""
    n, _, height, width = batch.image.shape
    lungs = batch.image.new_zeros((n, 1, height, width))
    known = torch.zeros(n, dtype=torch.bool, device=batch.image.device)
    lungs[batch.mask_rows] = batch.mask
    known[batch.mask_rows] = batch.mask.mean(dim=(1, 2, 3)) > 0
    rows = torch.from_numpy(np.flatnonzero(plan.kind != PLAIN)).to(known.device)
    rows = rows[~known[rows]]  # other images need no lungs
    if len(rows):
        training = teacher.training
        teacher.eval()
        with torch.inference_mode():
            probability = torch.sigmoid(teacher(batch.image[rows]).mask_logits.float())
        teacher.train(training)
        lungs[rows] = (probability > 0.5).float()
        known[rows] = usable(probability)
    return lungs, known


def _without_lungs(
    image: torch.Tensor, lung: torch.Tensor, randoms: Sequence[np.random.Generator] | None = None
) -> torch.Tensor:
    """Return images (N, C, S, S) with the dilated lungs filled by the mean of the surrounding ring or random gray."""
    wide = _dilated(lung, _DILATION)
    inside = image[:, :1] > 0  # the padding stays black
    level = _means(image[:, :1], (_dilated(wide, _RING) > 0) & (wide == 0) & inside, otherwise=0.5)  # (N, 1, 1, 1)
    fill = level
    if randoms is not None:
        levels, grains = zip(*(_draw_fill(random, lung.shape[1:]) for random in randoms), strict=True)
        even = torch.tensor(levels, dtype=torch.float32, device=image.device)[:, None, None, None]
        fill = torch.where(even.isnan(), level, even) + torch.from_numpy(np.stack(grains)).to(image.device)
    return torch.where((wide > 0) & inside, fill, image).clamp(0, 1)


def _draw_fill(random: np.random.Generator, shape: Sequence[int]) -> tuple[float, NDArray[np.float32]]:
    """Draw a gray level in [0.1, 0.9], or NaN for that of the ring, and the grain of a filling."""
    level = float("nan") if random.random() < 0.5 else float(random.uniform(0.1, 0.9))
    grain = random.standard_normal(tuple(shape), np.float32) * random.choice([0.0, 0.02, 0.06])
    return level, grain.astype(np.float32)


def _over(image: torch.Tensor, lung: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Paste the lungs of the images onto the backgrounds with soft edges."""
    sigma = _EDGE * image.shape[-1]
    kernel = 2 * max(1, round(3 * sigma)) + 1
    weight = gaussian_blur2d(lung, (kernel, kernel), (sigma, sigma))
    return weight * image + (1 - weight) * background


def _with_lesions(
    image: torch.Tensor, lung: torch.Tensor, randoms: Sequence[np.random.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images with a synthetic opacity in their lungs, and the regions of the opacities (N, 1, S, S)."""
    inside = lung > 0
    tissue = _means(image[:, :1], ~inside & (image[:, :1] > 0.05), otherwise=0.6)
    opacity, region = draw_lesions(randoms, inside[:, 0])
    brightness = torch.tensor([random.uniform(0.9, 1.25) for random in randoms], device=image.device)
    level = tissue * brightness.float()[:, None, None, None]
    drawn = image + opacity[:, None] * (level - image).clamp(min=0)
    return drawn.clamp(0, 1), region[:, None].float()


def _means(image: torch.Tensor, where: torch.Tensor, otherwise: float) -> torch.Tensor:
    """Return the mean of each image (N, 1, S, S) over the pixels ``where``, (N, 1, 1, 1) float32.

    Summed in float64, so that the rounded result depends neither on the other images nor on the threads.
    """
    count = where.sum(dim=(1, 2, 3), keepdim=True)
    total = torch.where(where, image, 0.0).sum(dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    return torch.where(count > 0, total / count.clamp(min=1), otherwise).float()


def _dilated(mask: torch.Tensor, share: float) -> torch.Tensor:
    """Dilate masks (N, 1, S, S) by ``share`` of their side in every direction."""
    radius = max(1, round(share * mask.shape[-1]))
    rows = functional.max_pool2d(mask, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return functional.max_pool2d(rows, (1, 2 * radius + 1), stride=1, padding=(0, radius))
