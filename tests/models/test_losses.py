"""The loss: what is missing takes no part, and what is there is counted as written down."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses.dice import DiceLoss
from torch import nn
from torch.nn import functional

from hilum.config import LossConfig
from hilum.errors import ConfigError
from hilum.models.encoder_unet import EncoderUNet
from hilum.models.losses import Extra, MultiTaskLoss, class_weights, prior_shift
from hilum.types import UNKNOWN_LABEL, Batch, ModelOutput

SIDE = 64


def make_batch(labels: list[int], mask_rows: list[int]) -> Batch:
    random = torch.Generator().manual_seed(1)
    return Batch(
        image=torch.rand(len(labels), 1, SIDE, SIDE, generator=random),
        mask=(torch.rand(len(mask_rows), 1, SIDE, SIDE, generator=random) > 0.5).float(),
        mask_rows=torch.tensor(mask_rows, dtype=torch.int64),
        label=torch.tensor(labels),
        row=torch.arange(len(labels)),
    )


def make_output(n: int, classes: int = 3) -> ModelOutput:
    random = torch.Generator().manual_seed(2)
    return ModelOutput(
        torch.randn(n, 1, SIDE, SIDE, generator=random).requires_grad_(),
        torch.randn(n, classes, generator=random).requires_grad_(),
    )


@pytest.fixture(scope="module")
def network() -> EncoderUNet:
    torch.manual_seed(0)
    return EncoderUNet("mobilenetv3_small_050", 3, (16, 8, 8, 4, 4)).eval()


def gradients(network: nn.Module, batch: Batch, config: LossConfig) -> dict[str, torch.Tensor | None]:
    network.zero_grad(set_to_none=True)
    loss = MultiTaskLoss(config)(network(batch.image), batch)
    loss.total.backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}


def equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other is None or (one is not None and other is not None and torch.equal(one, other))


# --- what is missing ----------------------------------------------------------------------------------------------


def test_missing_masks_add_exactly_no_gradient(network: EncoderUNet) -> None:
    batch = make_batch([0, 1, 2, 0], [])
    both = gradients(network, batch, LossConfig())
    alone = gradients(network, batch, LossConfig(segmentation_weight=0))
    for name in both:
        assert equal(both[name], alone[name]), name
        if name.startswith(("decoder.", "segmentation_head.")):
            assert both[name] is None, name  # AdamW then leaves it alone: not even decay or momentum moves it
        elif name.endswith("classifier.weight"):
            assert both[name] is not None


def test_missing_labels_add_exactly_no_gradient(network: EncoderUNet) -> None:
    batch = make_batch([UNKNOWN_LABEL] * 3, [0, 2])
    both = gradients(network, batch, LossConfig())
    alone = gradients(network, batch, LossConfig(classification_weight=0))
    for name in both:
        assert equal(both[name], alone[name]), name
        assert (both[name] is None) == name.startswith("classifier."), name


def test_a_mask_does_add_gradient(network: EncoderUNet) -> None:
    """The other way round, or the tests above would pass with a loss that has no segmentation at all."""
    with_mask = gradients(network, make_batch([0, 1, 2, 0], [1]), LossConfig())
    without = gradients(network, make_batch([0, 1, 2, 0], []), LossConfig())
    assert not equal(with_mask["encoder.model.conv_stem.weight"], without["encoder.model.conv_stem.weight"])


def test_half_the_masks_give_the_loss_of_that_half() -> None:
    batch, output = make_batch([0, 1, 2, 0], [1, 3]), make_output(4)
    half = Batch(batch.image[[1, 3]], batch.mask, torch.tensor([0, 1]), batch.label[[1, 3]], torch.tensor([0, 1]))
    loss = MultiTaskLoss(LossConfig())
    mine = loss(output, batch)
    other = loss(ModelOutput(output.mask_logits[[1, 3]], output.class_logits[[1, 3]]), half)
    assert torch.equal(mine.segmentation, other.segmentation)
    (gradient,) = torch.autograd.grad(mine.segmentation, output.mask_logits)
    assert torch.equal(gradient[[0, 2]], torch.zeros(2, 1, SIDE, SIDE))
    assert gradient[[1, 3]].abs().sum() > 0


def test_unknown_labels_are_left_out_exactly() -> None:
    batch, output = make_batch([2, -1, 0, -1], []), make_output(4)
    for config, weights in (
        (LossConfig(), None),
        (LossConfig(label_smoothing=0.1), None),
        (LossConfig(keep_prior=False), torch.tensor([0.5, 1.0, 2.0])),
    ):
        loss = MultiTaskLoss(config, weights)
        mine = loss.classification(output.class_logits, batch.label)
        assert torch.equal(mine, loss.classification(output.class_logits[[0, 2]], batch.label[[0, 2]]))
        (gradient,) = torch.autograd.grad(mine, output.class_logits)
        assert torch.equal(gradient[[1, 3]], torch.zeros(2, 3))


def test_a_batch_with_neither_is_zero_and_can_go_backward(network: EncoderUNet) -> None:
    batch = make_batch([UNKNOWN_LABEL] * 2, [])
    output = network(batch.image)
    losses = MultiTaskLoss(LossConfig(), torch.ones(3))(output, batch)
    assert [float(part.detach()) for part in losses] == [0.0, 0.0, 0.0]
    for name, gradient in gradients(network, batch, LossConfig()).items():
        assert gradient is None or not gradient.any(), name


# --- what is there ------------------------------------------------------------------------------------------------


def test_dice_has_squared_denominators() -> None:
    """By hand, and as MONAI computes it: 1 - (2 sum p t + e) / (sum p^2 + sum t^2 + e), per image, then averaged."""
    batch, logits = make_batch([-1, -1, -1], [0, 1, 2]), make_output(3).mask_logits.detach()
    batch.mask[2] = 0  # an image with an empty mask is an image with a mask
    p, t, e = torch.sigmoid(logits), batch.mask, 1e-5
    sums = [(2 * p * t).sum((1, 2, 3)), p.square().sum((1, 2, 3)) + t.square().sum((1, 2, 3))]
    dice = (1 - (sums[0] + e) / (sums[1] + e)).mean()
    bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    mine = MultiTaskLoss(LossConfig()).segmentation(logits, batch)
    assert float(mine) == pytest.approx(float(dice + bce), abs=1e-6)
    monai = DiceLoss(sigmoid=True, squared_pred=True)(logits, t)
    other = DiceLoss(sigmoid=True)(logits, t)
    assert float(mine - bce) == pytest.approx(float(monai), abs=1e-6)
    assert abs(float(monai - other)) > 1e-3  # the two denominators do differ here


def test_a_perfect_answer_costs_almost_nothing_and_its_opposite_a_lot() -> None:
    batch = make_batch([0, 1, 2], [0, 1, 2])
    right = ModelOutput((batch.mask * 2 - 1) * 20, functional.one_hot(batch.label, 3) * 40.0)
    wrong = ModelOutput(-right.mask_logits, -right.class_logits)
    loss = MultiTaskLoss(LossConfig())
    assert float(loss(right, batch).total) < 1e-4
    assert float(loss(wrong, batch).total) > 50


def test_the_total_is_the_weighted_sum() -> None:
    batch, output = make_batch([0, 2], [1]), make_output(2)
    parts = MultiTaskLoss(LossConfig(segmentation_weight=0.25, classification_weight=3))(output, batch)
    expected = 3 * parts.classification + 0.25 * parts.segmentation
    assert torch.equal(parts.total, expected)
    default = MultiTaskLoss(LossConfig())
    assert default.weigh(1.0, 10.0) == 12.0
    assert math.isnan(default.weigh(float("nan"), 1.0))  # a network that diverged must not look well


def test_half_precision_logits_are_summed_in_single() -> None:
    batch, output = make_batch([0, 2], [0, 1]), make_output(2)
    half = ModelOutput(output.mask_logits.bfloat16(), output.class_logits.bfloat16())
    parts = MultiTaskLoss(LossConfig())(half, batch)
    assert parts.segmentation.dtype == parts.classification.dtype == torch.float32


# --- class weights ------------------------------------------------------------------------------------------------


def test_no_class_weights() -> None:
    assert class_weights([5, 1], "none") is None


def test_inverse_frequency_by_hand() -> None:
    weights = class_weights([1, 3, 4], "inverse")
    assert weights is not None
    assert weights.tolist() == pytest.approx([8 / 3, 8 / 9, 8 / 12])  # n / (K n_k)


def test_effective_number_by_hand() -> None:
    raw = [0.1 / (1 - 0.9**n) for n in (1, 10)]
    mean = (raw[0] * 1 + raw[1] * 10) / 11
    weights = class_weights([1, 10], "effective", beta=0.9)
    assert weights is not None
    assert weights.tolist() == pytest.approx([value / mean for value in raw])


@pytest.mark.parametrize("scheme", ["inverse", "effective"])
@pytest.mark.parametrize("counts", [[1, 1], [3616, 6012, 10192, 1345], [1, 1_000_000]])
def test_weights_have_mean_one_over_the_images(scheme: str, counts: list[int]) -> None:
    weights = class_weights(counts, scheme)
    assert weights is not None
    assert weights.dtype == torch.float32
    n = torch.tensor(counts)
    assert float((weights * n).sum() / n.sum()) == pytest.approx(1, rel=1e-5)
    assert (weights.diff() * n.diff() <= 0).all()  # rarer never weighs less


def test_a_class_without_images_has_no_weight() -> None:
    with pytest.raises(ConfigError):
        class_weights([3, 0, 2], "inverse")


def test_class_weights_reach_the_loss_divided_by_the_number_of_labels() -> None:
    output, batch = make_output(4), make_batch([1, 2, UNKNOWN_LABEL, 1], [])
    weights, known = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 3])
    per_image = functional.cross_entropy(output.class_logits[known], batch.label[known], reduction="none")
    expected = (2 * per_image[0] + 4 * per_image[1] + 2 * per_image[2]) / 3
    for config in (LossConfig(), LossConfig(keep_prior=False)):
        torch.testing.assert_close(MultiTaskLoss(config, weights)(output, batch).classification, expected)


def test_a_network_that_keeps_the_prior_is_validated_without_weights() -> None:
    output, batch = make_output(3), make_batch([0, 2, 1], [])
    weights = torch.tensor([0.5, 1.0, 2.0])
    plain = MultiTaskLoss(LossConfig()).classification(output.class_logits, batch.label)
    kept = MultiTaskLoss(LossConfig(), weights).classification(output.class_logits, batch.label)
    moved = MultiTaskLoss(LossConfig(keep_prior=False), weights).classification(output.class_logits, batch.label)
    assert torch.equal(kept, plain)
    assert not torch.isclose(moved, plain)


def test_weights_have_mean_one_over_what_is_sampled() -> None:
    weights = class_weights([10, 40], "inverse", [0.5, 0.5])
    assert weights is not None
    assert weights.tolist() == pytest.approx([1.6, 0.4])


# --- sampling that is not natural ---------------------------------------------------------------------------------


def test_the_prior_shift_gives_the_natural_posterior() -> None:
    """One feature value per class mixture: the best logits on balanced draws, less the shift, are the data's own."""
    natural, sampled = [0.7, 0.2, 0.1], [1 / 3] * 3
    shift = prior_shift(natural, sampled)
    likelihood = torch.tensor([0.2, 0.5, 0.3])  # of the feature, per class
    trained = (likelihood * torch.tensor(sampled)).log()  # what cross-entropy on the draws leads logits + shift to
    posterior = (trained - shift).softmax(0)
    expected = likelihood * torch.tensor(natural)
    torch.testing.assert_close(posterior, expected / expected.sum())


def test_the_prior_shift_makes_up_for_class_weights() -> None:
    natural, sampled, weights = [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], torch.tensor([0.5, 1.0, 3.0])
    likelihood = torch.tensor([0.2, 0.5, 0.3])
    trained = (likelihood * torch.tensor(sampled) * weights).log()  # minimizes the weighted cross-entropy on the draws
    posterior = (trained - prior_shift(natural, sampled, weights)).softmax(0)
    expected = likelihood * torch.tensor(natural)
    torch.testing.assert_close(posterior, expected / expected.sum())
    with pytest.raises(ConfigError):
        prior_shift([0.5, 0.5, 0.0], sampled)


def test_each_image_can_have_a_shift_of_its_own() -> None:
    output, batch = make_output(2), make_batch([0, 2], [])
    extra = Extra(torch.zeros(()), 0, torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 0.5]]))
    assert extra.shift is not None
    moved = functional.cross_entropy(output.class_logits + extra.shift, batch.label)
    torch.testing.assert_close(MultiTaskLoss(LossConfig())(output, batch, extra).classification, moved)
    weighted = extra._replace(shift=None, weight=torch.tensor([0.5, 2.0]))
    losses = functional.cross_entropy(output.class_logits, batch.label, reduction="none")
    found = MultiTaskLoss(LossConfig())(output, batch, weighted).classification
    torch.testing.assert_close(found, (0.5 * losses[0] + 2 * losses[1]) / 2)
    plain = MultiTaskLoss(LossConfig(keep_prior=False))(output, batch, extra).classification
    torch.testing.assert_close(plain, functional.cross_entropy(output.class_logits, batch.label))


def test_the_shift_is_for_training_alone() -> None:
    output, batch = make_output(4), make_batch([0, 1, 2, 0], [])
    shifted = MultiTaskLoss(LossConfig(), prior_shift=torch.tensor([0.5, 0.0, -2.0]))
    plain = MultiTaskLoss(LossConfig())
    moved = functional.cross_entropy(output.class_logits + torch.tensor([0.5, 0.0, -2.0]), batch.label)
    torch.testing.assert_close(shifted(output, batch).classification, moved)
    measured = shifted.classification(output.class_logits, batch.label)
    assert torch.equal(measured, plain.classification(output.class_logits, batch.label))
