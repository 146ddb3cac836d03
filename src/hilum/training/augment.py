"""Random augmentation of training batches, on their device.

Parameters are drawn from a seed per (run, epoch, row) and applied deterministically, so the augmentation of an image
does not depend on its batch or process, or on whether the run was resumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from kornia.enhance import adjust_contrast_with_mean_subtraction, adjust_gamma
from kornia.geometry.transform import get_affine_matrix2d, warp_affine
from numpy.typing import NDArray

from hilum.config import AugmentConfig
from hilum.types import Batch


@dataclass(frozen=True)
class AugmentParameters:
    """Augmentation parameters of N images; every tensor has length N."""

    flip: torch.Tensor  # bool
    angle: torch.Tensor  # float32, degrees, clockwise
    scale: torch.Tensor  # float32, factor
    shift: torch.Tensor  # (N, 2) float32, x and y, as fractions of the side
    gamma: torch.Tensor  # float32, exponent
    contrast: torch.Tensor  # float32, factor about the image's mean
    noise_std: torch.Tensor  # float32, for intensities in [0, 1]
    noise_seed: torch.Tensor  # int64
    blur: torch.Tensor  # float32, sigma as a fraction of the side
    coarsen: torch.Tensor  # float32, factor on the side
    quality: torch.Tensor  # int64, JPEG quality; 0 for none


def draw_parameters(config: AugmentConfig, seed: int, epoch: int, rows: torch.Tensor) -> AugmentParameters:
    """Draw the augmentation parameters of N images.

    Args:
        config: Probabilities and ranges.
        seed: Random seed of the run.
        epoch: The epoch.
        rows: (N,) int64, Batch.row.
    """
    drawn = [_draw_one(config, np.random.default_rng([seed, epoch, row])) for row in rows.tolist()]
    columns = list(zip(*drawn, strict=True))
    flip, angle, scale, x, y, gamma, contrast, noise_std, noise_seed, blur, coarsen, quality = (
        torch.tensor(column) for column in columns
    )
    shift = torch.stack([x, y], dim=1)
    return AugmentParameters(
        flip=flip,
        angle=angle.float(),
        scale=scale.float(),
        shift=shift.float(),
        gamma=gamma.float(),
        contrast=contrast.float(),
        noise_std=noise_std.float(),
        noise_seed=noise_seed,
        blur=blur.float(),
        coarsen=coarsen.float(),
        quality=quality,
    )


def _draw_one(config: AugmentConfig, random: np.random.Generator) -> tuple[bool | float | int, ...]:
    # All numbers are always drawn, so that changing one setting does not change the draws of others.
    flip, rotate, move, tone, noise = random.random(5)
    angle, scale, x, y, gamma, contrast = random.uniform(-1, 1, 6)
    noise_seed = int(random.integers(2**62))
    blur_chance, coarsen_chance, codec_chance, blur, coarsen = random.random(5)  # new draws go last
    quality = int(random.integers(config.codec_quality, 96))
    rotated, moved, toned = rotate < config.rotation_p, move < config.affine_p, tone < config.tone_p
    return (
        bool(flip < config.flip_p),
        angle * config.rotation_degrees if rotated else 0.0,
        1 + scale * config.scale if moved else 1.0,
        x * config.translate if moved else 0.0,
        y * config.translate if moved else 0.0,
        (1 - config.gamma) ** gamma if toned else 1.0,
        1 + contrast * config.contrast if toned else 1.0,
        config.noise_std if noise < config.noise_p else 0.0,
        noise_seed,
        blur * config.blur if blur_chance < config.blur_p else 0.0,
        1 - coarsen * config.coarsen if coarsen_chance < config.coarsen_p else 1.0,
        quality if codec_chance < config.codec_p else 0,
    )


def augment(batch: Batch, parameters: AugmentParameters) -> Batch:
    """Return the augmented batch; masks are transformed with their images, by nearest neighbor."""
    image = batch.image
    flip = parameters.flip.to(image.device)
    image = torch.where(flip[:, None, None, None], image.flip(-1), image)
    mask = torch.where(flip[batch.mask_rows, None, None, None], batch.mask.flip(-1), batch.mask)
    image, mask = _warp(image, mask, batch.mask_rows, parameters)
    image = _add_noise(_tone(image, parameters), parameters)
    return batch._replace(image=degrade(image, parameters.blur, parameters.coarsen, parameters.quality), mask=mask)


def _warp(
    image: torch.Tensor, mask: torch.Tensor, mask_rows: torch.Tensor, parameters: AugmentParameters
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate, scale and shift images and masks about the center, with black outside."""
    side = image.shape[-1]
    n = len(image)
    center = torch.full((n, 2), (side - 1) / 2)
    scale = parameters.scale[:, None].expand(-1, 2)
    matrix = get_affine_matrix2d(parameters.shift * side, center, scale, parameters.angle)[:, :2].to(image.device)
    still = (parameters.angle == 0) & (parameters.scale == 1) & (parameters.shift == 0).all(dim=1)
    moved = (~still).to(image.device)  # (N,); other images stay bit-identical
    if bool(moved.any()):
        image = image.clone()
        image[moved] = warp_affine(image[moved], matrix[moved], (side, side), mode="bilinear")
    moved_masks = moved[mask_rows]  # (M,)
    if bool(moved_masks.any()):
        mask = mask.clone()
        matrices = matrix[mask_rows][moved_masks]
        mask[moved_masks] = warp_affine(mask[moved_masks], matrices, (side, side), mode="nearest")
    return image, mask


def _tone(image: torch.Tensor, parameters: AugmentParameters) -> torch.Tensor:
    """Apply gamma, then contrast about the image's mean, and clip to [0, 1]."""
    toned = torch.nonzero((parameters.gamma != 1) | (parameters.contrast != 1)).flatten().tolist()
    image = image.clone() if toned else image
    for position in toned:
        # One image at a time, since the summation order of a mean over several images depends on threads.
        own = slice(position, position + 1)
        gamma, contrast = parameters.gamma[own].to(image.device), parameters.contrast[own].to(image.device)
        image[own] = adjust_contrast_with_mean_subtraction(adjust_gamma(image[own], gamma), contrast)
    return image


def _add_noise(image: torch.Tensor, parameters: AugmentParameters) -> torch.Tensor:
    """Add Gaussian noise, the same on all channels of an image, and clip to [0, 1]."""
    noise = torch.zeros_like(image[:, :1])
    for position in torch.nonzero(parameters.noise_std).flatten().tolist():
        generator = torch.Generator(image.device).manual_seed(int(parameters.noise_seed[position]))
        drawn = torch.randn(noise.shape[1:], generator=generator, device=image.device)
        noise[position] = drawn * parameters.noise_std[position].item()
    return (image + noise).clamp(0, 1)


def degrade(image: torch.Tensor, blur: torch.Tensor, coarsen: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Blur, downsample and JPEG-compress each image by its parameters, and return the images.

    Images without a degradation stay bit-identical. Others are processed on the CPU in 8-bit gray, which is repeated
    over the channels.

    Args:
        image: (N, C, S, S) float32 in [0, 1].
        blur: (N,) sigma of a Gaussian blur as a fraction of S; 0 for none.
        coarsen: (N,) factor in (0, 1] by which the image is downsampled (area), then upsampled (cubic).
        quality: (N,) int64, JPEG quality from 1 to 100; 0 for none.
    """
    rows = torch.nonzero((blur > 0) | (coarsen < 1) | (quality > 0)).flatten().tolist()
    if not rows:
        return image
    image = image.clone()
    for row in rows:
        gray = (image[row, 0] * 255).round().to(torch.uint8).cpu().numpy()
        changed = _degraded(gray, float(blur[row]), float(coarsen[row]), int(quality[row]))
        image[row] = torch.from_numpy(changed.astype(np.float32) / 255).to(image.device)
    return image


def _degraded(image: NDArray[np.uint8], blur: float, coarsen: float, quality: int) -> NDArray[np.uint8]:
    """Degrade one image (S, S); see degrade."""
    side = image.shape[0]
    changed = image
    if blur > 0:
        changed = cv2.GaussianBlur(changed, (0, 0), blur * side).astype(np.uint8)
    if coarsen < 1:
        small = max(8, round(coarsen * side))
        changed = cv2.resize(changed, (small, small), interpolation=cv2.INTER_AREA).astype(np.uint8)
        changed = cv2.resize(changed, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    if quality:
        _, coded = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, quality])
        changed = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return changed
