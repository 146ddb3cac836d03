"""Draw synthetic lung opacities with exact regions. They do not model a particular disease."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from numpy.typing import NDArray

_VISIBLE = 0.25  # the region contains pixels with at least this fraction of the maximum opacity
_EDGE = 0.008  # sigma of the soft edge of the lungs, as a fraction of the side


class _Blob(NamedTuple):
    row: float
    column: float
    angle: float
    long: float
    short: float
    power: float


class _Lesion(NamedTuple):
    blobs: list[_Blob]
    roughness: float
    texture: NDArray[np.float32]  # (cells, cells), smooth noise of random coarseness after interpolation
    density: float


def draw_lesions(randoms: Sequence[np.random.Generator], lung: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one to three irregular opacities with soft edges inside the lungs of each image.

    Args:
        randoms: One generator per image, of number, positions, sizes, density and texture.
        lung: (N, S, S) bool, none of them empty.

    Returns:
        The opacities, (N, S, S) float32 in [0, 1], 0 outside the lungs; and their regions, (N, S, S) bool.
    """
    size = lung.shape[-1]
    drawn = [_draw(random, own, size) for random, own in zip(randoms, lung.cpu().numpy(), strict=True)]
    roughness = _column([one.roughness for one in drawn], lung.device)
    ragged = _fields(drawn, size, lung.device) * (1 + roughness * _textures(drawn, size, lung.device))
    inside = lung.float()
    soft = ragged.clamp(0, 1) * _softened(inside) * inside
    peak = soft.amax(dim=(1, 2), keepdim=True)
    there = peak > 0
    density = _column([one.density for one in drawn], lung.device)
    opacity = torch.where(there, density * soft / peak.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
    return opacity, (soft >= _VISIBLE * peak) & there


def _draw(random: np.random.Generator, lung: NDArray[np.bool_], size: int) -> _Lesion:
    rows, columns = np.nonzero(lung)
    blobs = []
    for _ in range(int(random.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
        center = int(random.integers(rows.size))
        angle = random.uniform(0, np.pi)
        long = random.uniform(0.05, 0.17) * size
        short = long * random.uniform(0.45, 1.0)
        blobs.append(_Blob(rows[center], columns[center], angle, long, short, random.uniform(0.8, 2.0)))
    roughness = random.uniform(0.1, 0.5)
    cells = int(random.integers(6, 24))
    texture = random.standard_normal((cells, cells), np.float32)
    return _Lesion(blobs, roughness, texture, random.uniform(0.45, 0.95))


def _fields(drawn: Sequence[_Lesion], size: int, device: torch.device) -> torch.Tensor:
    """Return the largest of each image's blobs, (N, S, S) float32 in [0, 1]."""
    blobs = torch.tensor([blob for one in drawn for blob in one.blobs], dtype=torch.float32, device=device)
    row, column, angle, long, short, power = blobs[:, :, None, None].unbind(dim=1)  # each (B, 1, 1)
    places = torch.arange(size, dtype=torch.float32, device=device)
    dx, dy = places[None, None, :] - column, places[None, :, None] - row
    along, across = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    fields = torch.exp(-(((along / long) ** 2 + (across / short) ** 2) ** power))  # (B, S, S)
    return torch.stack([own.amax(dim=0) for own in torch.split(fields, [len(one.blobs) for one in drawn])])


def _textures(drawn: Sequence[_Lesion], size: int, device: torch.device) -> torch.Tensor:
    """Return smooth noise (N, S, S) of about unit variance and random coarseness."""
    textures = [_cubic(len(one.texture), size) @ one.texture @ _cubic(len(one.texture), size).T for one in drawn]
    return torch.from_numpy(np.stack(textures)).to(device)


@lru_cache(maxsize=64)
def _cubic(cells: int, size: int) -> NDArray[np.float32]:
    """Return the matrix (size, cells) of cubic interpolation along one axis."""
    return np.asarray(cv2.resize(np.eye(cells, dtype=np.float32), (cells, size), interpolation=cv2.INTER_CUBIC))


def _softened(inside: torch.Tensor) -> torch.Tensor:
    """Blur the lungs (N, S, S) by a Gaussian out to four of its standard deviations."""
    sigma = _EDGE * inside.shape[-1]
    kernel = round(8 * sigma + 1) | 1
    return gaussian_blur2d(inside[:, None], (kernel, kernel), (sigma, sigma))[:, 0]


def _column(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """Return one number per image as (N, 1, 1) float32."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
