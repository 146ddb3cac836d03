"""Other backgrounds, erased lungs, drawn opacities: what changes, what stays, and what the loss asks for then."""

from __future__ import annotations

import numpy as np
import one_by_one
import pytest
import torch
from torch.nn import functional

from hilum.config import Config, ShortcutConfig
from hilum.errors import ConfigError
from hilum.models.losses import MultiTaskLoss
from hilum.training.lesions import draw_lesions
from hilum.training.shortcuts import (
    BACKGROUND,
    ERASED,
    LESION,
    PLAIN,
    Plan,
    Treated,
    Treatments,
    apply_plan,
    draw_plan,
    label_weights,
    shortcut_loss,
    usable,
)
from hilum.types import Batch, ModelOutput

SIDE, NORMAL = 64, 1


def lung() -> torch.Tensor:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 16:48, 10:26] = mask[:, 16:48, 38:54] = 1
    return mask


def make_batch(labels: list[int]) -> Batch:
    n = len(labels)
    image = 0.3 + 0.4 * torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    image[:, :, :4] = 0  # padding
    return Batch(image, lung().repeat(n, 1, 1, 1), torch.arange(n), torch.tensor(labels), torch.arange(n))


def treated(
    kinds: list[int], labels: list[int] | None = None, known: list[bool] | None = None
) -> tuple[Batch, Treated]:
    batch = make_batch(labels or [NORMAL, 0, 2, NORMAL][: len(kinds)])
    plan = Plan(np.array(kinds), np.arange(len(kinds)))
    sure = torch.ones(len(kinds), dtype=torch.bool) if known is None else torch.tensor(known)
    return batch, apply_plan(batch, batch.mask, sure, plan)


def test_a_plain_image_stays_as_it_is() -> None:
    batch, result = treated([PLAIN, PLAIN])
    assert torch.equal(result.batch.image, batch.image)
    assert torch.equal(result.batch.label, batch.label)
    assert len(result.batch.mask_rows) == 2


def test_an_erased_image_loses_lungs_label_and_mask() -> None:
    batch, result = treated([ERASED, PLAIN])
    inside = lung()[0] > 0
    assert result.batch.image[0, 0][inside].std() < 0.1 < batch.image[0, 0][inside].std()
    assert torch.equal(result.batch.image[0, 0, 4:12, 28:36], batch.image[0, 0, 4:12, 28:36])  # between and above
    assert (result.batch.image[0, 0, :4] == 0).all()  # the padding stays black
    assert result.batch.label.tolist() == [-1, 0]
    assert result.batch.mask_rows.tolist() == [1]


def test_a_new_background_keeps_the_lungs_the_label_and_the_mask() -> None:
    batch, result = treated([BACKGROUND, PLAIN, PLAIN, PLAIN])
    core = (slice(20, 44), slice(14, 22))  # well inside one lung
    torch.testing.assert_close(result.batch.image[0, 0][core], batch.image[0, 0][core], atol=2e-3, rtol=0)
    corner = result.batch.image[0, 0, -6:, -6:]
    givers = [row for row in (1, 2, 3) if torch.allclose(corner, batch.image[row, 0, -6:, -6:], atol=1e-6)]
    assert givers in ([1], [2])  # not itself, not the other normal image
    assert result.batch.label.tolist() == batch.label.tolist()
    assert len(result.batch.mask_rows) == 4


def test_a_background_needs_an_image_of_another_class() -> None:
    batch, result = treated([BACKGROUND, PLAIN], labels=[0, 0])
    assert result.kind.tolist() == [PLAIN, PLAIN]
    assert result.batch.label.tolist() == [-1, 0]
    assert torch.equal(result.batch.image, batch.image)


def test_a_drawn_opacity_brightens_the_lung_and_is_marked() -> None:
    batch, result = treated([LESION, PLAIN])
    change = result.batch.image[0, 0] - batch.image[0, 0]
    region = result.region[0, 0] > 0
    assert change.min() >= 0
    assert change[region].mean() > 5 * change[~region].mean()
    assert (change[lung()[0] == 0] == 0).all()
    assert result.batch.label.tolist() == [-1, 0]
    assert result.batch.mask_rows.tolist() == [0, 1]  # the lung is still there to be found
    assert result.region[1].sum() == 0


def test_where_the_lungs_are_not_known_an_image_stays_and_leaves_the_loss_if_it_was_drawn() -> None:
    batch, result = treated([ERASED, BACKGROUND, LESION, PLAIN], [0, 2, NORMAL, NORMAL], [False, False, False, False])
    assert torch.equal(result.batch.image, batch.image)
    assert result.kind.tolist() == [PLAIN] * 4
    assert result.drawn.tolist() == [ERASED, BACKGROUND, LESION, PLAIN]
    assert result.batch.label.tolist() == [0, 2, -1, NORMAL]
    assert result.batch.mask_rows.tolist() == [0, 1, 2, 3]


def test_the_plan_depends_on_seed_epoch_and_row_alone() -> None:
    config = ShortcutConfig(background_p=0.3, erase_p=0.3, lesion_p=0.5)
    batch = make_batch([NORMAL, 0, 2, NORMAL] * 10)
    whole = draw_plan(config, 0, 1, batch, NORMAL)
    part = draw_plan(config, 0, 1, batch._replace(label=batch.label[5:9], row=batch.row[5:9]), NORMAL)
    assert part.kind.tolist() == whole.kind[5:9].tolist()
    assert part.seeds.tolist() == whole.seeds[5:9].tolist()
    assert draw_plan(config, 0, 2, batch, NORMAL).kind.tolist() != whole.kind.tolist()


def test_the_plan_draws_its_shares_and_spares_what_has_no_label() -> None:
    config = ShortcutConfig(background_p=0.2, erase_p=0.3, lesion_p=0.99)
    label = torch.tensor([NORMAL, 0, -1] * 1000)
    batch = Batch(torch.zeros(0), torch.zeros(0), torch.zeros(0), label, torch.arange(3000))
    kind = draw_plan(config, 0, 1, batch, NORMAL).kind
    assert (kind[label == -1] == PLAIN).all()
    normal, other = kind[label == NORMAL], kind[label == 0]
    assert np.bincount(normal, minlength=4) / 1000 == pytest.approx([0, 0.2, 0.3, 0.5], abs=0.05)
    assert np.bincount(other, minlength=4) / 1000 == pytest.approx([0.5, 0.2, 0.3, 0], abs=0.05)


def test_a_predicted_mask_is_used_when_it_is_sure_and_of_a_lungs_size() -> None:
    good, doubtful = lung() * 0.98 + 0.01, lung() * 0.2 + 0.4
    tiny, whole = torch.zeros(1, SIDE, SIDE), torch.ones(1, SIDE, SIDE)
    assert usable(torch.stack([good, doubtful, tiny, whole])).tolist() == [True, False, False, False]


@pytest.mark.parametrize("seed", range(20))
def test_a_lesion_stays_inside_the_lung_and_is_dense_in_its_region(seed: int) -> None:
    inside = lung()[0] > 0
    shares, regions = draw_lesions([np.random.default_rng(seed)], inside[None])
    share, region = shares[0], regions[0]
    assert share.min() >= 0
    assert 0.4 <= share.max() <= 1
    assert (share[~inside] == 0).all()
    assert region.any()
    assert not region[~inside].any()
    assert share[region].min() > share[~region].max()


# --- the batched form ---------------------------------------------------------------------------------------------


def ellipses(n: int, side: int) -> torch.Tensor:
    """Lungs (n, 1, side, side) of various sizes and places."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side] / side
    masks = np.zeros((n, 1, side, side), np.float32)
    for mask in masks:
        for center in (0.3, 0.7):
            dx, dy = (x - center - random.uniform(-0.05, 0.05)), (y - random.uniform(0.4, 0.6))
            mask[0][(dx / random.uniform(0.1, 0.16)) ** 2 + (dy / random.uniform(0.2, 0.35)) ** 2 < 1] = 1
    return torch.from_numpy(masks)


@pytest.mark.parametrize(("side", "channels"), [(64, 1), (96, 3)])
def test_all_images_at_once_are_changed_as_one_after_the_other(side: int, channels: int) -> None:
    n = 24
    lungs = ellipses(n, side)
    gray = 0.1 + 0.8 * torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(1))
    gray[:, :, :4] = 0  # padding
    label = torch.tensor([NORMAL, 0, 2, -1] * 6)
    batch = Batch(gray.expand(-1, channels, -1, -1), lungs, torch.arange(n), label, torch.arange(n))
    plan = Plan(np.array([BACKGROUND, ERASED, LESION, PLAIN, LESION, BACKGROUND] * 4), 7 * np.arange(n))
    known = torch.tensor([True, True, True, True, True, False] * 4)
    result = apply_plan(batch, lungs, known, plan)
    image, labels, kind, region = one_by_one.change(batch, lungs, torch.nonzero(known)[:, 0].tolist(), plan)
    assert sorted(set(kind.tolist())) == [PLAIN, BACKGROUND, ERASED, LESION]
    assert result.kind.tolist() == kind.tolist()
    assert result.batch.label.tolist() == labels.tolist()
    torch.testing.assert_close(result.batch.image, image, atol=2e-5, rtol=0)
    assert (result.region != region).float().mean() < 1e-4  # a pixel at the very threshold of a region may differ


def test_an_image_is_changed_alike_beside_other_images() -> None:
    """A function of seed, epoch and row: to the bit, whatever else is in the batch. A background needs others."""
    lungs, batch = ellipses(6, SIDE), make_batch([NORMAL, 0, NORMAL, 0, 2, NORMAL])
    plan = Plan(np.array([LESION, ERASED, LESION, ERASED, ERASED, LESION]), np.arange(6))
    whole = apply_plan(batch, lungs, torch.ones(6, dtype=torch.bool), plan)
    for rows in ([0], [1, 2], [5, 4, 3]):
        part = Batch(batch.image[rows], lungs[rows], torch.arange(len(rows)), batch.label[rows], batch.row[rows])
        known = torch.ones(len(rows), dtype=torch.bool)
        alone = apply_plan(part, lungs[rows], known, Plan(plan.kind[rows], plan.seeds[rows]))
        assert torch.equal(alone.batch.image, whole.batch.image[rows])
        assert torch.equal(alone.region, whole.region[rows])


# --- the loss -----------------------------------------------------------------------------------------------------


def lesion_output(where: tuple[slice, slice], logits: list[float]) -> tuple[ModelOutput, Treated]:
    evidence = torch.zeros(1, 3, 8, 8)
    evidence[(slice(None), 0, *where)] = 1.0
    evidence[:, NORMAL] = -5.0
    region = torch.zeros(1, 1, SIDE, SIDE)
    region[:, :, :16, :16] = 1  # the cells [0:2, 0:2]
    batch = make_batch([NORMAL])
    return (
        ModelOutput(torch.zeros(1, 1, SIDE, SIDE), torch.tensor([logits]), evidence),
        Treated(batch, torch.tensor([LESION]), region, torch.tensor([LESION])),
    )


def test_a_drawn_opacity_is_anything_but_normal() -> None:
    output, images = lesion_output((slice(0, 2), slice(0, 2)), [1.0, 0.3, -0.4])
    found = shortcut_loss(output, images, NORMAL, localization_weight=0.0)
    p = torch.tensor([1.0, 0.3, -0.4]).softmax(0)
    assert found.images == 1
    assert float(found.total) == pytest.approx(float(-torch.log(1 - p[NORMAL])), abs=1e-6)


def test_evidence_is_drawn_to_the_opacity() -> None:
    """Half of the evidence in the region costs log 2 more than all of it; none of it, much more."""
    losses = []
    for where in ((slice(0, 2), slice(0, 2)), (slice(0, 2), slice(0, 4)), (slice(6, 8), slice(6, 8))):
        output, images = lesion_output(where, [0.0, 0.0, 0.0])
        losses.append(float(shortcut_loss(output, images, NORMAL, localization_weight=1.0).total))
    assert losses[1] - losses[0] == pytest.approx(np.log(2), abs=1e-4)
    assert losses[2] - losses[0] > 5


def test_an_erased_image_asks_for_the_uniform_answer() -> None:
    batch = make_batch([0, 0])
    kind = torch.tensor([ERASED, PLAIN])
    images = Treated(batch, kind, torch.zeros(2, 1, SIDE, SIDE), kind)
    even = ModelOutput(torch.zeros(2, 1, SIDE, SIDE), torch.tensor([[2.0, 2.0, 2.0], [9.0, 0.0, 0.0]]))
    assert float(shortcut_loss(even, images, None, 1.0).total) == pytest.approx(0, abs=1e-6)
    sure = even._replace(class_logits=torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    log_p = functional.log_softmax(torch.tensor([5.0, 0.0, 0.0]), dim=0)
    expected = float(-log_p.mean() - np.log(3))
    assert float(shortcut_loss(sure, images, None, 1.0).total) == pytest.approx(expected, abs=1e-5)


def test_the_extra_images_join_the_mean() -> None:
    config = Config().loss
    batch, result = treated([ERASED, PLAIN, PLAIN])
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.5, 0.1, 0.2], [0.3, 0.2, 0.1]], requires_grad=True)
    output = ModelOutput(torch.zeros(3, 1, SIDE, SIDE), logits)
    extra = shortcut_loss(output, result, NORMAL, 1.0)
    found = MultiTaskLoss(config)(output, result.batch, extra).classification
    labeled = functional.cross_entropy(logits[1:], result.batch.label[1:], reduction="sum")
    assert float(found.detach()) == pytest.approx(float((labeled + extra.total).detach() / 3), abs=1e-6)
    assert batch.label[0] == NORMAL


# --- in the loop --------------------------------------------------------------------------------------------------


def settings(**shortcuts: object) -> Config:
    return Config.model_validate({"shortcuts": shortcuts})


def test_the_normal_class_is_found_by_its_name() -> None:
    found = Treatments.of(settings(lesion_p=0.5), ("COVID", "NORMAL", "Viral"))
    assert found is not None
    assert found.normal == 1
    assert Treatments.of(settings(lesion_p=0.5), ("COVID", "Viral")) is None  # nothing left to do
    named = Treatments.of(settings(lesion_p=0.5, normal_class="Viral"), ("COVID", "Viral"))
    assert named is not None
    assert named.normal == 1
    with pytest.raises(ConfigError, match="normal_class"):
        Treatments.of(settings(lesion_p=0.5, normal_class="clear"), ("COVID", "Viral"))
    assert Treatments.of(settings(), ("COVID", "Normal")) is None


def test_the_teacher_finds_the_lungs_of_images_without_a_mask() -> None:
    class Teacher(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> ModelOutput:
            logits = (lung() * 20 - 10).repeat(len(image), 1, 1, 1)
            return ModelOutput(logits, torch.zeros(len(image), 3))

    batch = make_batch([0, 2, 0])._replace(
        mask=torch.zeros(0, 1, SIDE, SIDE), mask_rows=torch.zeros(0, dtype=torch.int64)
    )
    teacher = Teacher()
    found = Treatments(ShortcutConfig(erase_p=0.99), 0, None).treat(batch, teacher, 1)
    assert found.kind.tolist() == [ERASED] * 3
    assert teacher.training  # left as it was


def test_normal_images_that_keep_their_label_are_shifted_by_the_share_that_does() -> None:
    """Images that were drawn for another background never get an opacity, so that their class shares do not change."""
    _, result = treated([PLAIN, BACKGROUND, LESION, PLAIN], [NORMAL, NORMAL, NORMAL, 0])
    output = ModelOutput(torch.zeros(4, 1, SIDE, SIDE), torch.zeros(4, 3))
    config = ShortcutConfig(background_p=0.2, erase_p=0.1, lesion_p=0.4)
    shift = Treatments(config, 0, NORMAL).loss(output, result).shift
    assert shift is not None
    expected = torch.zeros(4, 3)
    expected[[0, 3], NORMAL] = float(np.log(0.6))
    torch.testing.assert_close(shift, expected)
    assert Treatments(config.model_copy(update={"lesion_p": 0.0}), 0, NORMAL).loss(output, result).shift is None


def test_labels_weigh_by_how_rarely_an_image_stays_as_it_is() -> None:
    """Of four images without a mask, the lungs of one of the two that were drawn are found."""
    config = ShortcutConfig(background_p=0.3, erase_p=0.1)
    batch = make_batch([0, 2, 0, 2, 0, 2])
    batch = batch._replace(mask=batch.mask[:2], mask_rows=torch.tensor([0, 1]))
    known = torch.tensor([True, True, True, False, False, False])
    plan = Plan(np.array([PLAIN, ERASED, BACKGROUND, ERASED, PLAIN, PLAIN]), np.arange(6))
    result = apply_plan(batch, lung().repeat(6, 1, 1, 1), known, plan)
    weights = label_weights(result, batch, known, config)
    assert weights is not None
    rest = 0.6 / (1 - 0.4 * 0.5)
    assert weights.tolist() == pytest.approx([1, 1, 1, rest, rest, rest])
    assert label_weights(result, batch, known, ShortcutConfig(lesion_p=0.5)) is None


def test_without_a_mask_to_learn_from_there_are_no_treatments() -> None:
    assert Treatments.of(settings(erase_p=0.5), ("COVID", "Normal"), lungs=False) is None
