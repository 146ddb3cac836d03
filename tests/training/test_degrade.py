"""Blur, lost resolution and JPEG: each does what it says, and a film without them stays as it is."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from hilum.training.augment import degrade

SIDE = 64


def films(n: int) -> torch.Tensor:
    return torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def degraded(blur: float = 0.0, coarsen: float = 1.0, quality: int = 0, channels: int = 1) -> tuple[torch.Tensor, ...]:
    image = films(2).repeat(1, channels, 1, 1)
    found = degrade(image, torch.tensor([0, blur]), torch.tensor([1, coarsen]), torch.tensor([0, quality]))
    assert torch.equal(found[0], image[0])
    assert torch.equal(image, films(2).repeat(1, channels, 1, 1))  # not in place
    return image[1], found[1]


def detail(image: torch.Tensor) -> float:
    return float((image[..., 1:] - image[..., :-1]).abs().mean())


def test_blur_is_a_gaussian_of_a_share_of_the_side() -> None:
    image, found = degraded(blur=2 / SIDE)
    expected = cv2.GaussianBlur(image[0].numpy(), (0, 0), 2.0)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=2.5 / 255)


def test_lost_resolution_takes_detail_and_leaves_the_mean() -> None:
    image, found = degraded(coarsen=0.5)
    assert detail(found) < 0.6 * detail(image)
    assert abs(float(found.mean() - image.mean())) < 0.01


def test_jpeg_is_opencvs() -> None:
    image, found = degraded(quality=30)
    pixels = (image[0] * 255).round().to(torch.uint8).numpy()
    expected = cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal((found[0] * 255).round().numpy(), expected)
    assert not torch.equal(found, image)


def test_all_channels_stay_alike() -> None:
    _, found = degraded(blur=0.02, coarsen=0.7, quality=50, channels=3)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
