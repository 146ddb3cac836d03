"""Checkpoints of the original project load, give the original's answers, and cannot execute anything."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from safetensors.torch import save_file
from torch import nn

from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.backends.open import open_backend
from hilum.bundle.bundle import Bundle, load_bundle
from hilum.errors import CheckpointError
from hilum.export.import_original import (
    _NUMPY,
    ORIGINAL_CLASSES,
    convert_weights,
    import_checkpoint,
    read_checkpoint,
)
from hilum.models.build import count_parameters
from hilum.training.checkpoint import read_torch_file

CLASSES = ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"]
SIZE = 64


class OriginalNetwork(nn.Module):
    """The original's network as its checkpoints imply it: its attribute names, and a sigmoid ending seg_head."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.backbone = UNet(
            2, 3, 64, (32, 64, 128, 256, 512), (2, 2, 2, 2), num_res_units=2, norm="batch", dropout=0.1
        )
        self.seg_head = nn.Sequential(
            nn.Conv2d(64, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.Sigmoid()
        )
        layers: list[nn.Module] = []
        for inputs, outputs, dropout in ((64, 256, 0.5), (256, 128, 0.3)):
            layers += [nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.ReLU(), nn.BatchNorm1d(outputs)]
        self.classifier = nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(128, num_classes))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone(image)
        return self.seg_head(features), self.classifier(features.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def original() -> OriginalNetwork:
    """With running statistics and outputs that differ from those of a fresh network, so that any mix-up shows."""
    torch.manual_seed(0)
    network = OriginalNetwork()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        for layer in (network.seg_head[3], network.classifier[1], network.classifier[9]):
            layer.weight.mul_(30)
    return network.eval()


@pytest.fixture(scope="module")
def content(original: OriginalNetwork) -> dict[str, Any]:
    """What the original saves for its best epoch; sklearn and NumPy leave numbers of their own types."""
    optimizer = torch.optim.AdamW(original.seg_head.parameters(), lr=1e-4)
    original.seg_head(torch.zeros(1, 64, 8, 8)).sum().backward()
    optimizer.step()  # after it, the optimizer has a state; the weights saved below are those after it
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=15, min_lr=1e-7)
    schedule.step(np.float64(1.5))
    metrics = {"losses": [1.5, np.float64(1.25)], "accuracies": [np.float64(0.5)], "auc_scores": [np.float32(0.75)]}
    return {
        "epoch": 7,
        "model_state_dict": original.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": schedule.state_dict(),
        "val_loss": 1.25,
        "val_accuracy": np.float64(0.625),
        "val_dice": np.float32(0.5),
        "val_auc": np.float64(0.75),
        "class_names": CLASSES,
        "train_metrics": metrics,
        "val_metrics": {**metrics, "counts": [np.int64(3), np.int32(3), np.bool_(True)]},
        "model_config": {"num_classes": 4, "img_size": (SIZE, SIZE), "batch_size": 16, "learning_rate": 1e-4},
    }


@pytest.fixture(scope="module")
def checkpoint(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("original") / "best_covid_model.pth"
    torch.save(content, file)
    return file


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    out = tmp_path_factory.mktemp("bundle") / "imported"
    import_checkpoint(checkpoint, out)
    yield load_bundle(out)
    shutil.rmtree(out)


def test_bundle_carries_what_the_checkpoint_says(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.class_names == tuple(CLASSES)
    assert (manifest.preprocess.size, manifest.preprocess.channels, manifest.preprocess.fit) == (SIZE, 3, "stretch")
    assert manifest.model.name == "unet"
    assert manifest.opset == 17
    assert "epoch 7" in bundle.read("MODEL_CARD.md").decode()


@pytest.mark.parametrize("engine", ["onnxruntime", "pytorch"])
@torch.inference_mode()
def test_bundle_answers_as_the_original(bundle: Bundle, original: OriginalNetwork, engine: Any) -> None:
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    images *= torch.tensor([0.1, 0.5, 1.0])[:, None, None, None]
    mask, logits = original(images)
    found = open_backend(bundle, engine).run(images.numpy())
    np.testing.assert_allclose(found.segmentation, mask.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.classification, logits.numpy(), atol=1e-4)
    assert found.evidence is None
    assert min(mask.std(), logits.std(dim=0).min()) > 0.02  # else any network would pass


def test_onnx_outputs_have_the_originals_names(bundle: Bundle) -> None:
    assert OnnxRuntimeBackend(bundle.read("model.onnx")).output_names == ["segmentation", "classification"]


def test_parameter_count_is_the_originals(checkpoint: Path, original: OriginalNetwork) -> None:
    assert count_parameters(read_checkpoint(checkpoint).model) == count_parameters(original) == 6_643_510


def test_numbers_of_numpy_become_pythons(checkpoint: Path) -> None:
    read = read_torch_file(checkpoint, _NUMPY)
    assert read["val_accuracy"] == 0.625
    assert type(read["val_accuracy"]) is type(read["val_metrics"]["accuracies"][0]) is float
    assert read["val_metrics"]["counts"] == [3, 3, True]
    assert read["val_metrics"]["auc_scores"] == [0.75]


@pytest.mark.parametrize(("old", "new"), [(b"numpy.core.", b"numpy._core."), (b"numpy._core.", b"numpy.core.")])
def test_either_numpys_names_load(checkpoint: Path, tmp_path: Path, old: bytes, new: bytes) -> None:
    """NumPy 1 pickled its scalars as numpy.core.multiarray.scalar, NumPy 2 as numpy._core.multiarray.scalar."""
    renamed = tmp_path / "renamed.pth"
    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(renamed, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = data.replace(old + b"multiarray", new + b"multiarray")
                assert new + b"multiarray\nscalar" in data
            target.writestr(entry, data)
    assert read_torch_file(renamed, _NUMPY)["val_accuracy"] == 0.625


def test_legacy_files_load(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "old.pth").epoch == 7


def test_periodic_checkpoints_get_the_originals_classes_and_size(content: dict[str, Any], tmp_path: Path) -> None:
    """They carry neither."""
    kept = ("epoch", "model_state_dict", "optimizer_state_dict", "val_loss", "val_accuracy")
    torch.save({name: content[name] for name in kept}, tmp_path / "checkpoint_epoch_20.pth")
    read = read_checkpoint(tmp_path / "checkpoint_epoch_20.pth")
    assert read.manifest.class_names == ORIGINAL_CLASSES == tuple(CLASSES)
    assert read.manifest.preprocess.size == 256
    assert read.manifest.name == "checkpoint_epoch_20"


def test_a_state_dict_alone_loads(original: OriginalNetwork, tmp_path: Path) -> None:
    torch.save(original.state_dict(), tmp_path / "state.pth")
    read = read_checkpoint(tmp_path / "state.pth", class_names=["a", "b", "c", "d"], size=96)
    assert read.manifest.class_names == ("a", "b", "c", "d")
    assert read.manifest.preprocess.size == 96
    assert read.epoch is None


def test_weights_converted_to_safetensors_stand_alone(original: OriginalNetwork, tmp_path: Path) -> None:
    save_file(original.state_dict(), tmp_path / "run.safetensors")
    with pytest.raises(CheckpointError, match="class names"):
        read_checkpoint(tmp_path / "run.safetensors")  # their order is in no tensor
    convert_weights(tmp_path / "run.safetensors", tmp_path / "best.safetensors", class_names=CLASSES[::-1], size=96)
    read = read_checkpoint(tmp_path / "best.safetensors")
    assert read.manifest.class_names == tuple(CLASSES[::-1])
    assert read.manifest.preprocess.size == 96
    for name, tensor in original.state_dict().items():
        assert torch.equal(read.model.state_dict()[name], tensor)


class Malicious:
    """Runs a command when an ordinary unpickler reads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def _zipped(content: object, file: Path) -> None:
    torch.save(content, file)


def _legacy(content: object, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def _pickled(content: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [_zipped, _legacy, _pickled])
def test_a_malicious_file_is_refused_and_not_executed(
    content: dict[str, Any], tmp_path: Path, write: Callable[[object, Path], None]
) -> None:
    marker, file, out = tmp_path / "executed", tmp_path / "best.pth", tmp_path / "out"
    write({"class_names": CLASSES, "val_accuracy": Malicious(marker)}, file)
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(file, out)
    assert not marker.exists()
    assert not out.exists()
    assert "weights_only" not in str(caught.value)  # torch's own advice is to execute the file
    assert "\n" not in str(caught.value)
    if write is _pickled:
        pickle.loads(file.read_bytes())  # the proof that the file was armed
        assert marker.exists()
    else:
        assert "posix.system" in str(caught.value)


class Tampered:
    """A NumPy number whose dtype is not one of a plain number, or whose flags say that it holds Python objects."""

    def __init__(self, code: str, flags: int) -> None:
        self.code, self.flags = code, flags

    def __reduce__(self) -> tuple[Any, ...]:
        return np._core.multiarray.scalar, (TamperedType(self.code, self.flags), b"\x01" * 8)  # type: ignore[attr-defined]


class TamperedType:
    def __init__(self, code: str, flags: int) -> None:
        self.code, self.flags = code, flags

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, (self.code, False, True), (3, "<", None, None, None, -1, -1, self.flags)


@pytest.mark.parametrize("code", ["O8", "V8", "S8", "M8"])
def test_a_number_of_numpy_that_is_not_a_number_is_refused(tmp_path: Path, code: str) -> None:
    torch.save({"val_accuracy": Tampered(code, 0)}, tmp_path / "tampered.pth")
    with pytest.raises(CheckpointError, match=r"tampered\.pth"):
        read_torch_file(tmp_path / "tampered.pth", _NUMPY)


def test_flags_that_call_a_number_an_object_are_ignored(tmp_path: Path) -> None:
    """NumPy's own dtype takes them, and then reads the number as an address."""
    torch.save({"val_accuracy": Tampered("f8", 63)}, tmp_path / "tampered.pth")
    expected = np.frombuffer(b"\x01" * 8)[0]
    assert read_torch_file(tmp_path / "tampered.pth", _NUMPY)["val_accuracy"] == expected


def test_a_runs_state_may_name_nothing_of_numpy(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"numpy\._core\.multiarray\.scalar"):
        read_torch_file(checkpoint)


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "module.pth")


def _truncated(file: Path, whole: Path) -> None:
    file.write_bytes(whole.read_bytes()[:100_000])


@pytest.mark.parametrize(
    "write",
    [
        _truncated,
        lambda file, _: file.write_text("epoch,loss\n1,0.5\n"),
        lambda file, _: file.write_bytes(b""),
        lambda file, _: file.write_bytes(b"\x80\x02]q\x00(K\x01."),
        lambda file, _: file.mkdir(),
        lambda file, _: None,
        lambda file, _: torch.save([1, 2], file),
        lambda file, _: torch.save({"epoch": 1}, file),
        lambda file, _: torch.save(nn.Linear(2, 2).state_dict(), file),
    ],
    ids=["truncated", "text", "empty", "pickle", "folder", "absent", "list", "no weights", "another network"],
)
def test_what_is_no_checkpoint_is_refused(
    checkpoint: Path, tmp_path: Path, write: Callable[[Path, Path], object]
) -> None:
    write(tmp_path / "bad.pth", checkpoint)
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        import_checkpoint(tmp_path / "bad.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _with(content: dict[str, Any], name: str, tensor: torch.Tensor | None) -> dict[str, Any]:
    """The weights with one tensor added, replaced or, with None, left out."""
    state = {key: value for key, value in content["model_state_dict"].items() if key != name}
    return {"model_state_dict": state if tensor is None else {**state, name: tensor}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: _with(c, "seg_head.0.bias", None), r"seg_head\.0\.bias missing"),
        (lambda c: _with(c, "x.weight", torch.zeros(1)), r"x\.weight not in the network"),
        (lambda c: _with(c, "seg_head.3.bias", torch.zeros(2)), r"seg_head\.3\.bias has shape \(2,\), expected \(1,\)"),
        (lambda c: _with(c, "seg_head.3.bias", torch.tensor([float("nan")])), r"seg_head\.3\.bias in .*finite"),
        (lambda c: _with(c, "seg_head.3.bias", torch.zeros(1, device="meta")), r"seg_head\.3\.bias in .*finite"),
        (lambda c: _with(c, "classifier.9.weight", torch.zeros(())), r"no classifier\.9\.weight"),
        (lambda c: {"model_state_dict": 3}, "classifier"),
        (lambda c: {"class_names": ["COVID", "Normal"]}, "4 different class names"),
        (lambda c: {"class_names": "abcd"}, "4 different class names"),
        (lambda c: {"class_names": ["a", "b", "c", "a"]}, "4 different class names"),
        (lambda c: {"model_config": {"img_size": (100, 100)}}, "multiple of 32"),
        (lambda c: {"model_config": {"img_size": (64, 96)}}, "square"),
        (lambda c: {"model_config": {"img_size": "large"}}, "square"),
        (lambda c: {"model_config": {"img_size": [[64], [64]]}}, "square"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    content: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    kept = {name: content[name] for name in ("epoch", "model_state_dict", "class_names", "model_config")}
    torch.save(kept | change(content), tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "bad.pth")


def test_damage_anywhere_is_one_kind_of_error(tmp_path: Path) -> None:
    """Bytes changed at random make torch's reader raise a dozen kinds of exception."""
    file = tmp_path / "damaged.pth"
    torch.save({"a": torch.arange(6.0), "b": [np.float64(0.5)], "c": {"d": (1, 2)}}, file)
    whole, random, refused = file.read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(600)] = random.integers(256)
        file.write_bytes(damaged)
        try:
            read_torch_file(file, _NUMPY)
        except CheckpointError:
            refused += 1
    assert refused > 100
