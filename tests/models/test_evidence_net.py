"""The evidence network: the map is the computation, the lung the gate, and the poolings those of their papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import ConfigError
from hilum.evaluation.gradcam import grad_cam
from hilum.models.build import build_model
from hilum.models.evidence import EvidenceNet
from hilum.models.pooling import POOLINGS

SMALL = "mobilenetv3_small_050"


def small(pooling: str = "attention", stride: int = 16, *, gate: bool = True) -> EvidenceNet:
    torch.manual_seed(0)
    network = EvidenceNet(SMALL, 4, (16, 8, 8, 4, 4), pooling=pooling, stride=stride, lung_gate=gate).eval()
    with torch.no_grad():
        network.bias.copy_(torch.tensor([3.0, -2.0, 0.5, 10.0]))
        network.scores.weight.mul_(20)  # an untrained network's scores are small, and so would its errors be
    return network


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_evidence_adds_up_to_the_logit_less_the_bias(pooling: str, stride: int) -> None:
    with torch.inference_mode():
        network = small(pooling, stride)
        output = network(torch.rand(3, 1, 64, 64))
    assert output.evidence is not None
    assert output.evidence.shape == (3, 4, 64 // stride, 64 // stride)
    assert output.mask_logits.shape == (3, 1, 64, 64)
    error = output.evidence.sum(dim=(2, 3)) + network.bias - output.class_logits
    assert error.abs().max() < 1e-4
    assert output.class_logits.std(dim=0).max() > 1e-4  # it does depend on the image


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_lies_outside_the_gate_cannot_count(pooling: str) -> None:
    scores, attention = maps(2, 4, 6, 6), maps(2, 1, 6, 6, seed=1)
    gate = torch.zeros(2, 1, 6, 6)
    gate[:, :, 1:4, 2:5] = 0.7
    inside = POOLINGS[pooling](scores, attention, gate)
    assert (inside[(gate == 0).expand_as(inside)] == 0).all()
    changed_scores = torch.where(gate > 0, scores, scores - 5)
    changed_attention = torch.where(gate > 0, attention, attention - 5)
    changed = POOLINGS[pooling](changed_scores, changed_attention, gate)
    torch.testing.assert_close(changed.sum(dim=(2, 3)), inside.sum(dim=(2, 3)), atol=1e-4, rtol=1e-4)
    assert (POOLINGS[pooling](scores, attention, torch.zeros_like(gate)) == 0).all()


def test_the_poolings_are_their_papers() -> None:
    scores, attention, gate = maps(2, 3, 4, 4), maps(2, 1, 4, 4, seed=1), torch.ones(2, 1, 4, 4)
    pooled = {name: pool(scores, attention, gate).sum(dim=(2, 3)) for name, pool in POOLINGS.items()}
    torch.testing.assert_close(pooled["average"], scores.mean(dim=(2, 3)))
    weights = attention.flatten(2).softmax(dim=2)  # (N, 1, P)
    torch.testing.assert_close(pooled["attention"], (scores.flatten(2) * weights).sum(dim=2), atol=1e-5, rtol=1e-5)
    sigmoid = scores.sigmoid()
    expected = (scores * sigmoid).sum(dim=(2, 3)) / sigmoid.sum(dim=(2, 3))
    torch.testing.assert_close(pooled["pcam"], expected, atol=1e-5, rtol=1e-5)
    expected = ((4 * scores.flatten(2)).exp().mean(dim=2)).log() / 4
    torch.testing.assert_close(pooled["lse"], expected, atol=1e-4, rtol=1e-4)


def test_a_network_that_finds_no_lung_answers_with_its_biases() -> None:
    network = small()
    with torch.no_grad():
        network.segmentation_head[0].weight.zero_()
        network.segmentation_head[0].bias.fill_(-200.0)
    with torch.inference_mode():
        output = network(torch.rand(2, 1, 64, 64))
    torch.testing.assert_close(output.class_logits, network.bias.expand(2, -1))


def test_without_the_gate_the_mask_has_no_say() -> None:
    gated, free = small(), small(gate=False)
    free.load_state_dict(gated.state_dict())
    image = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        before = [network(image).class_logits.clone() for network in (gated, free)]
        for network in (gated, free):
            network.segmentation_head[0].weight.mul_(-30)
        after = [network(image).class_logits for network in (gated, free)]
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_the_classifier_cannot_move_the_mask() -> None:
    network = small()
    network(torch.rand(2, 1, 64, 64)).class_logits.sum().backward()
    assert all(parameter.grad is None for parameter in network.segmentation_head.parameters())
    assert network.attention.weight.grad is not None


def test_evidence_is_never_negative() -> None:
    with torch.inference_mode():
        output = small()(torch.rand(2, 1, 64, 64))
    assert output.evidence is not None
    assert output.evidence.min() >= 0
    assert (output.evidence.amax(dim=(2, 3)) > 0).all()  # each class has a place, were it ever so faint


@pytest.mark.parametrize(("stride", "changed"), [(8, -1), (16, -1)])
def test_evidence_is_read_above_the_deepest_level(stride: int, changed: int) -> None:
    """What the deepest level holds reaches the mask, and the classes by no other way than the gate."""
    network = small(stride=stride, gate=False)
    levels = network.encoder(torch.rand(1, 3, 64, 64))
    before = network.scores(network.neck(levels[network._level]))
    levels[changed] = levels[changed] + 1
    assert torch.equal(network.scores(network.neck(levels[network._level])), before)


@pytest.mark.parametrize(("pooling", "stride"), [("max", 16), ("attention", 4)])
def test_an_unknown_pooling_or_stride_is_refused(pooling: str, stride: int) -> None:
    with pytest.raises(ConfigError):
        EvidenceNet(SMALL, 4, (16, 8, 8, 4, 4), pooling=pooling, stride=stride)


def test_it_is_the_default() -> None:
    model = build_model(ModelConfig(encoder=SMALL, decoder_channels=(16, 8, 8, 4, 4)), PreprocessSpec(size=64), 3)
    assert isinstance(model, EvidenceNet)


def test_grad_cam_reads_the_neck() -> None:
    images = np.random.default_rng(0).random((2, 1, 64, 64), np.float32)
    found = grad_cam(small(), images, np.array([0, 2]))
    assert found.shape == (2, 4, 4)
    assert found.min() >= 0
