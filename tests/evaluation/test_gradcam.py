"""Grad-CAM against gradients worked out by hand, by differences, and against the identity with class activation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import ConfigError
from hilum.evaluation.gradcam import grad_cam
from hilum.models.build import build_model
from hilum.models.encoder_unet import EncoderUNet
from hilum.models.unet import MultiTaskUNet
from hilum.types import ModelOutput

HEAD = np.array([[1.5, -2.0], [0.5, 3.0], [-1.0, -1.0]], np.float32)  # (K, F)


class _Tiny(nn.Module):
    """Features (x, x squared), pooled, through tanh and HEAD; as a list of levels, as encoders give them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Squares()
        self.head = nn.Parameter(torch.from_numpy(HEAD.copy()))

    def forward(self, image: torch.Tensor) -> ModelOutput:
        pooled = torch.tanh(self.encoder(image)[-1].mean(dim=(2, 3)))  # (N, F)
        return ModelOutput(image, pooled @ self.head.T)


class _Squares(nn.Module):
    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image, torch.cat([image, image**2], dim=1)]


def _images(n: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((n, 1, size, size), dtype=np.float32)


def _encoder_unet() -> EncoderUNet:
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(name="encoder-unet", encoder="tf_efficientnet_lite0", pretrained=False),
        PreprocessSpec(size=64),
        3,
    )
    assert isinstance(model, EncoderUNet)
    for module in model.modules():  # running statistics of 0 and 1 would leave hardly anything of an untrained net
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.rand(4, 1, 64, 64))
    return model.eval()


def test_the_map_is_the_one_worked_out_by_hand() -> None:
    images, classes = _images(5, 4), np.array([0, 1, 2, 0, 1])
    features = np.concatenate([images, images**2], axis=1).astype(np.float64)  # (N, F, h, w)
    pooled = features.mean(axis=(2, 3))
    gradient = HEAD[classes] * (1 - np.tanh(pooled) ** 2) / 16  # of the logit by each place of a feature: (N, F)
    expected = np.maximum((gradient[:, :, None, None] * features).sum(axis=1), 0)
    found = grad_cam(_Tiny(), images, classes)
    assert found.shape == (5, 4, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert not expected[2].any()  # its weights are all negative
    assert expected[1].any()


def test_with_one_linear_layer_after_pooling_it_is_the_positive_part_of_the_evidence() -> None:
    model, images = _encoder_unet(), _images(3, 64)
    with torch.no_grad():
        evidence = model(torch.from_numpy(images)).evidence
    assert evidence is not None
    for k in range(3):
        own = np.maximum(evidence[:, k].numpy(), 0)
        assert own.max() > 1e-3
        np.testing.assert_allclose(grad_cam(model, images, np.full(3, k)), own, rtol=1e-4, atol=1e-6)


def test_the_unet_against_gradients_by_differences() -> None:
    torch.manual_seed(0)
    model, images, k = MultiTaskUNet(1, 2).eval(), _images(2, 32), 1
    with torch.no_grad():
        features = model.backbone(torch.from_numpy(images)).double()  # (2, 64, 32, 32)
        head = model.classifier.double()
        pooled, step = features.mean(dim=(2, 3)), 1e-5
        steps = step * torch.eye(64, dtype=torch.float64)
        slopes = torch.stack([(head(p + steps)[:, k] - head(p - steps)[:, k]) / (2 * step) for p in pooled])  # (2, 64)
        expected = torch.relu((slopes[:, :, None, None] * features).sum(dim=1)).numpy() / 32**2
        head.float()
    found = grad_cam(model, images, np.full(2, k))
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_images_of_a_batch_do_not_touch_each_other_and_nothing_is_left_behind() -> None:
    model, images, classes = _encoder_unet().train(), _images(5, 64), np.array([0, 1, 2, 1, 0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together = grad_cam(model, images, classes)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for size in (1, 2):
        apart = grad_cam(model, images, classes, batch_size=size)
        np.testing.assert_allclose(apart, together, rtol=0, atol=1e-3 * together.max())


def test_a_frozen_network_without_gradients_gives_the_same_map() -> None:
    images, classes = _images(2, 4), np.array([0, 1])
    frozen = _Tiny().requires_grad_(False)
    with torch.no_grad():
        found = grad_cam(frozen, images, classes)
    assert found.any()
    np.testing.assert_array_equal(found, grad_cam(_Tiny(), images, classes))


def test_no_hook_is_left_when_the_network_fails() -> None:
    model = _Tiny()
    with pytest.raises(RuntimeError):
        grad_cam(model, _images(1, 4), np.array([7]))
    assert not model.encoder._forward_hooks


def test_another_network_is_refused() -> None:
    with pytest.raises(ConfigError):
        grad_cam(nn.Linear(1, 1), _images(1, 4), np.array([0]))
