"""Random changes: the same for the same (seed, epoch, row), and a mask that moves with its image."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from hilum.config import AugmentConfig, load_config
from hilum.training.augment import AugmentParameters, augment, degrade, draw_parameters
from hilum.types import Batch

STRONG = AugmentConfig(
    flip_p=0.5, rotation_degrees=30, rotation_p=0.7, scale=0.2, translate=0.1, affine_p=0.7,
    gamma=0.4, contrast=0.4, tone_p=0.7, noise_std=0.1, noise_p=0.7,
    blur=0.03, blur_p=0.4, coarsen=0.6, coarsen_p=0.4, codec_p=0.4,
)  # fmt: skip
STILL = AugmentConfig(rotation_p=0, noise_p=0)
SIDE = 48


def make_batch(rows: list[int], *, channels: int = 1, side: int = SIDE) -> Batch:
    """Images that depend on their row alone; every row that is not a multiple of three has a mask."""
    images, masks, places = [], [], []
    for place, row in enumerate(rows):
        random = np.random.default_rng(row)
        images.append(np.repeat(random.random((1, side, side), np.float32), channels, axis=0))
        if row % 3:
            masks.append((random.random((1, side, side)) < 0.5).astype(np.float32))
            places.append(place)
    return Batch(
        image=torch.from_numpy(np.stack(images)),
        mask=torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, 1, side, side),
        mask_rows=torch.tensor(places, dtype=torch.int64),
        label=torch.zeros(len(rows), dtype=torch.int64),
        row=torch.tensor(rows),
    )


def changed(rows: list[int], config: AugmentConfig = STRONG, seed: int = 0, epoch: int = 1, **kinds: Any) -> Batch:
    batch = make_batch(rows, **kinds)
    return augment(batch, draw_parameters(config, seed, epoch, batch.row))


def test_the_result_does_not_depend_on_the_batch() -> None:
    rows = list(range(24))
    whole = changed(rows)
    masks = dict(zip(whole.mask_rows.tolist(), whole.mask, strict=True))
    for part in ([5], [23, 1, 7], [2, 4, 6, 8, 10, 12, 14], rows[::-1]):
        batch = changed(part)
        for place, row in enumerate(part):
            assert torch.equal(batch.image[place], whole.image[row]), (part, row)
        for place, mask in zip(batch.mask_rows.tolist(), batch.mask, strict=True):
            assert torch.equal(mask, masks[part[place]]), (part, place)


def test_threads_that_share_the_work_do_not_change_it() -> None:
    """Large images are split among threads, and how depends on how many images there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        whole = changed(list(range(6)), side=256)
        for row in range(6):
            assert torch.equal(changed([row], side=256).image[0], whole.image[row]), row
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 2}])
def test_another_seed_or_epoch_is_another_change(other: dict[str, int]) -> None:
    rows = list(range(12))
    first, again, different = changed(rows), changed(rows), changed(rows, **other)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.image, different.image)


def test_two_rows_of_one_image_change_differently() -> None:
    batch = make_batch([1, 1])
    result = augment(batch, draw_parameters(STRONG, 0, 1, torch.tensor([1, 2])))
    assert not torch.equal(result.image[0], result.image[1])


def test_one_setting_does_not_change_what_another_draws() -> None:
    rows = torch.arange(50)
    with_flip = draw_parameters(STRONG, 0, 1, rows)
    without = draw_parameters(STRONG.model_copy(update={"flip_p": 0.0, "noise_p": 0.0}), 0, 1, rows)
    assert not without.flip.any()
    for name in ("angle", "scale", "shift", "gamma", "contrast", "noise_seed", "blur", "coarsen", "quality"):
        assert torch.equal(getattr(with_flip, name), getattr(without, name)), name


def parameters(**given: float) -> AugmentParameters:
    """One image's change; what is not given leaves it as it is."""
    plain: dict[str, torch.Tensor] = {
        "flip": torch.tensor([False]),
        "angle": torch.zeros(1),
        "scale": torch.ones(1),
        "shift": torch.zeros(1, 2),
        "gamma": torch.ones(1),
        "contrast": torch.ones(1),
        "noise_std": torch.zeros(1),
        "noise_seed": torch.zeros(1, dtype=torch.int64),
        "blur": torch.zeros(1),
        "coarsen": torch.ones(1),
        "quality": torch.zeros(1, dtype=torch.int64),
    }
    for name, value in given.items():
        plain[name] = torch.full_like(plain[name], value)
    return AugmentParameters(**plain)


def square_batch() -> Batch:
    """A bright square off the center, black around it, and its mask."""
    square = torch.zeros(1, 1, 64, 64)
    square[..., 14:30, 12:36] = 1
    return Batch(square, square.clone(), torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))


@pytest.mark.parametrize(
    "change",
    [
        {"flip": True}, {"angle": 10.0}, {"angle": -25.0}, {"scale": 1.2}, {"scale": 0.8}, {"shift": 0.05},
        {"flip": True, "angle": 7.0, "scale": 1.1, "shift": -0.07},
    ],
)  # fmt: skip
def test_the_mask_moves_with_its_image(change: dict[str, float]) -> None:
    before = square_batch()
    after = augment(before, parameters(**change))
    seen, mask = after.image[0, 0] > 0.5, after.mask[0, 0] > 0.5
    assert set(after.mask.unique().tolist()) == {0.0, 1.0}  # nearest: a mask stays a mask
    assert (seen & mask).sum() / (seen | mask).sum() > 0.95
    still = before.mask[0, 0] > 0.5
    assert (still & mask).sum() / (still | mask).sum() < 0.95  # it did move


def test_the_directions_are_what_their_names_say() -> None:
    def center(**change: float) -> tuple[float, float]:
        mask = augment(square_batch(), parameters(**change)).mask[0, 0]
        y, x = torch.nonzero(mask).float().mean(dim=0).tolist()
        return x, y

    x, y = center()
    assert center(flip=True) == pytest.approx((63 - x, y), abs=0.01)
    assert center(shift=0.125) == pytest.approx((x + 8, y + 8), abs=0.6)
    assert center(angle=90.0) == pytest.approx((63 - y, x), abs=0.6)  # clockwise: what is above goes to the right
    grown = augment(square_batch(), parameters(scale=1.25)).mask.sum() / square_batch().mask.sum()
    assert grown.item() == pytest.approx(1.25**2, rel=0.05)


def test_only_the_images_that_are_drawn_change() -> None:
    """Beside images that move, one that does not stays as it is to the bit, and so does its mask."""
    batch = make_batch([1, 2, 4])
    drawn = draw_parameters(STILL, 0, 1, batch.row)
    drawn = dataclasses.replace(drawn, angle=torch.tensor([0.0, 20.0, 0.0]), gamma=torch.tensor([0.7, 1.0, 1.0]))
    after = augment(batch, drawn)
    assert torch.equal(after.image[2], batch.image[2])
    assert torch.equal(after.mask[0], batch.mask[0])
    assert torch.equal(after.mask[2], batch.mask[2])
    assert not torch.equal(after.mask[1], batch.mask[1])
    assert not torch.equal(after.image[0], batch.image[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_all_off_is_the_identity_to_the_bit(channels: int) -> None:
    batch = make_batch(list(range(9)), channels=channels)
    for config in (STILL, AugmentConfig(rotation_degrees=0, noise_std=0, rotation_p=1, affine_p=1, tone_p=1)):
        after = augment(batch, draw_parameters(config, 0, 1, batch.row))
        for name in Batch._fields:
            assert torch.equal(getattr(after, name), getattr(batch, name)), name


def test_the_batch_that_goes_in_is_left_alone() -> None:
    batch = make_batch(list(range(9)))
    copy = Batch(*(tensor.clone() for tensor in batch))
    augment(batch, draw_parameters(STRONG, 0, 1, batch.row))
    for name in Batch._fields:
        assert torch.equal(getattr(batch, name), getattr(copy, name)), name


@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_in_range_and_gray_stays_gray(channels: int) -> None:
    after = changed(list(range(40)), channels=channels).image
    assert after.shape == (40, channels, SIDE, SIDE)
    assert after.dtype == torch.float32
    assert torch.isfinite(after).all()
    assert after.min() >= 0
    assert after.max() <= 1
    assert torch.equal(after, after[:, :1].expand_as(after))


def test_noise_has_its_standard_deviation() -> None:
    batch = Batch(
        torch.full((1, 1, 128, 128), 0.5), torch.zeros(0, 1, 128, 128), torch.zeros(0, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    after = augment(batch, parameters(noise_std=0.05)).image
    assert after.std().item() == pytest.approx(0.05, rel=0.03)
    assert after.mean().item() == pytest.approx(0.5, abs=0.002)


def test_shares_and_bounds_of_what_is_drawn() -> None:
    drawn = draw_parameters(STRONG, 3, 1, torch.arange(2000))
    for moved, chance in (
        (drawn.flip, 0.5), (drawn.angle != 0, 0.7), (drawn.scale != 1, 0.7), (drawn.gamma != 1, 0.7),
        (drawn.noise_std > 0, 0.7),
    ):  # fmt: skip
        assert moved.float().mean().item() == pytest.approx(chance, abs=0.04)
    assert drawn.angle.abs().max() <= 30
    assert drawn.angle.min() < -25
    assert drawn.angle.max() > 25
    assert 0.8 <= drawn.scale.min() <= drawn.scale.max() <= 1.2
    assert drawn.shift.abs().max() <= 0.1
    assert drawn.gamma.min() >= 0.6 - 1e-6
    assert drawn.gamma.max() <= 1 / 0.6 + 1e-6
    assert drawn.contrast.sub(1).abs().max() <= 0.4 + 1e-6


def test_the_presets_flip_and_nothing_else_does() -> None:
    rows = torch.arange(2000)
    assert not draw_parameters(AugmentConfig(), 0, 1, rows).flip.any()
    for preset in ("default", "original"):
        assert 0.45 < draw_parameters(load_config(preset).augment, 0, 1, rows).flip.float().mean() < 0.55


# Blur, lost resolution and JPEG

LARGE = 64


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 1, LARGE, LARGE, generator=torch.Generator().manual_seed(0))


def degraded(blur: float = 0.0, coarsen: float = 1.0, quality: int = 0, channels: int = 1) -> tuple[torch.Tensor, ...]:
    image = images(2).repeat(1, channels, 1, 1)
    found = degrade(image, torch.tensor([0, blur]), torch.tensor([1, coarsen]), torch.tensor([0, quality]))
    assert torch.equal(found[0], image[0])
    assert torch.equal(image, images(2).repeat(1, channels, 1, 1))  # not in place
    return image[1], found[1]


def detail(image: torch.Tensor) -> float:
    return float((image[..., 1:] - image[..., :-1]).abs().mean())


def test_blur_is_a_gaussian_of_a_share_of_the_side() -> None:
    image, found = degraded(blur=2 / LARGE)
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
