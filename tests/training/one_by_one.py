"""The changes against shortcuts as they were made before: one image after the other, for the same random numbers."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from numpy.typing import NDArray
from torch.nn import functional

from hilum.training.shortcuts import BACKGROUND, ERASED, LESION, Plan
from hilum.types import UNKNOWN_LABEL, Batch


def change(
    batch: Batch, lungs: torch.Tensor, known: list[int], plan: Plan
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, labels, kinds and regions."""
    image, label = batch.image.clone(), batch.label.clone()
    label[torch.from_numpy(plan.kind) == LESION] = UNKNOWN_LABEL
    kind, region = torch.zeros_like(label), torch.zeros_like(lungs)
    for row in known:
        wanted, random = int(plan.kind[row]), np.random.default_rng(int(plan.seeds[row]))
        own, lung = batch.image[row], lungs[row]
        if wanted == BACKGROUND:
            others = [other for other in known if batch.label[other] not in (batch.label[row], UNKNOWN_LABEL)]
            if not others:
                label[row] = UNKNOWN_LABEL
                continue
            other = int(random.choice(others))
            image[row] = over(own, lung, without_lungs(batch.image[other], lungs[other], None))
        elif wanted == ERASED:
            image[row] = without_lungs(own, lung, random)
            label[row] = UNKNOWN_LABEL
        elif wanted == LESION:
            image[row], region[row] = with_lesion(own, lung, random)
        kind[row] = wanted
    return image, label, kind, region


def without_lungs(image: torch.Tensor, lung: torch.Tensor, random: np.random.Generator | None) -> torch.Tensor:
    wide = dilated(lung)
    ring = (dilated(wide) > 0) & (wide == 0) & (image[:1] > 0)
    level = float(image[:1][ring].mean()) if bool(ring.any()) else 0.5
    fill = torch.full_like(image, level)
    if random is not None:
        level = level if random.random() < 0.5 else float(random.uniform(0.1, 0.9))
        grain = random.standard_normal(lung.shape, np.float32) * random.choice([0.0, 0.02, 0.06])
        fill = level + torch.from_numpy(grain.astype(np.float32)).expand_as(image)
    return torch.where((wide > 0) & (image[:1] > 0), fill, image).clamp(0, 1)


def over(image: torch.Tensor, lung: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    sigma = 0.012 * image.shape[-1]
    kernel = 2 * max(1, round(3 * sigma)) + 1
    weight = gaussian_blur2d(lung[None], (kernel, kernel), (sigma, sigma))[0]
    return weight * image + (1 - weight) * background


def with_lesion(
    image: torch.Tensor, lung: torch.Tensor, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    inside = lung[0] > 0
    outside = image[0][~inside & (image[0] > 0.05)]
    tissue = float(outside.mean()) if outside.numel() else 0.6
    opacity, region = draw_lesion(random, inside.numpy())
    level = tissue * float(random.uniform(0.9, 1.25))
    drawn = image + torch.from_numpy(opacity)[None] * (level - image).clamp(min=0)
    return drawn.clamp(0, 1), torch.from_numpy(region.astype(np.float32))[None]


def dilated(mask: torch.Tensor) -> torch.Tensor:
    radius = max(1, round(0.05 * mask.shape[-1]))
    return functional.max_pool2d(mask[None], 2 * radius + 1, stride=1, padding=radius)[0]


def draw_lesion(random: np.random.Generator, lung: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    size = lung.shape[0]
    rows, columns = np.nonzero(lung)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    field = np.zeros(lung.shape, np.float32)
    for _ in range(int(random.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
        center = int(random.integers(rows.size))
        angle = random.uniform(0, np.pi)
        long = random.uniform(0.05, 0.17) * size
        short = long * random.uniform(0.45, 1.0)
        dx, dy = x - columns[center], y - rows[center]
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        r = (along / long) ** 2 + (across / short) ** 2
        field = np.maximum(field, np.exp(-(r ** float(random.uniform(0.8, 2.0)))))
    ragged = field * (1 + random.uniform(0.1, 0.5) * texture(random, size))
    edge = cv2.GaussianBlur(lung.astype(np.float32), (0, 0), 0.008 * size)
    soft = np.clip(ragged, 0, 1) * edge * lung
    peak = float(soft.max())
    if peak <= 0:
        return np.zeros(lung.shape, np.float32), np.zeros(lung.shape, np.bool_)
    density = random.uniform(0.45, 0.95)
    return (density * soft / peak).astype(np.float32), soft >= 0.25 * peak


def texture(random: np.random.Generator, size: int) -> NDArray[np.float32]:
    cells = int(random.integers(6, 24))
    nodes = random.standard_normal((cells, cells), np.float32)
    return np.asarray(cv2.resize(nodes, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
