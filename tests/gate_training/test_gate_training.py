"""The gate's training on phantoms: that it learns what it is told, goes on after being killed, and sets its bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hilum.config import PreprocessSpec
from hilum.data.cache import open_cache
from hilum.errors import BundleError, CheckpointError
from hilum.gate import LearnedThresholds
from hilum.gate.learned import GateReading
from hilum.gate.stored import load_gate, write_gate
from hilum.gate.verdict import FLAGS, FRONTAL, KINDS, LATERAL, TURNS
from hilum.gate_training.loop import GateTraining, gate_loss, train_gate_net
from hilum.gate_training.network import GateNet, GateOutput
from hilum.gate_training.run import fit_thresholds
from hilum.gate_training.samples import Samples, draw_phantoms
from hilum.types import Record

SETTINGS = GateTraining(steps=8, batch_size=6, size=64, workers=0, checkpoint_every=2)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("images")
    records = []
    for seed, (image, _) in enumerate(draw_phantoms(9, 4, 96)):
        cv2.imwrite(str(folder / f"{seed}.png"), image)
        records.append(Record(folder / f"{seed}.png"))
    cache = open_cache(records, PreprocessSpec(size=96), folder / "cache")
    return Samples(cache, {}, draw_phantoms(0, 4, 96), 64)


def _output(kind: int, turn: int, flags: tuple[float, ...] = (-9.0, -9.0, -9.0, -9.0)) -> GateOutput:
    kinds = torch.full((1, len(KINDS)), -9.0)
    kinds[0, kind] = 9
    turns = torch.full((1, len(TURNS)), -9.0)
    turns[0, turn] = 9
    return GateOutput(kinds, turns, torch.tensor([flags], dtype=torch.float32))


def test_the_loss_is_low_where_all_is_right_and_high_where_one_is_wrong() -> None:
    right = torch.tensor([[FRONTAL, 1, 0, 0, 1, 0]])
    assert gate_loss(_output(FRONTAL, 1, (-9, -9, 9, -9)), right) < 0.01
    for wrong in (_output(LATERAL, 1, (-9, -9, 9, -9)), _output(FRONTAL, 2, (-9, -9, 9, -9)), _output(FRONTAL, 1)):
        assert gate_loss(wrong, right) > 2


def test_what_is_not_known_has_no_gradient() -> None:
    output = GateOutput(*(torch.zeros(2, n, requires_grad=True) for n in (len(KINDS), len(TURNS), len(FLAGS))))
    properties = torch.tensor([[FRONTAL, 0, 0, 1, -1, 0], [LATERAL, -1, -1, -1, -1, -1]])
    gate_loss(output, properties).backward()  # type: ignore[no-untyped-call]
    assert output.turn.grad is not None
    assert output.flags.grad is not None
    assert torch.all(output.turn.grad[1] == 0)
    assert torch.all(output.flags.grad[1] == 0)
    assert output.flags.grad[0, FLAGS.index("cropped")] == 0
    assert torch.all(output.flags.grad[0, [0, 1, 3]] != 0)


def test_pretrained_layers_do_with_gray_what_they_did_with_three_equal_colors() -> None:
    torch.manual_seed(0)
    net = GateNet(64)
    timm_net = pytest.importorskip("timm").create_model("tf_efficientnet_lite0", features_only=True)
    from hilum.models.pretrained import load_encoder_weights

    load_encoder_weights(timm_net, "tf_efficientnet_lite0", None)
    gray = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        ours, theirs = net.stem[0](gray), timm_net.conv_stem(gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_killed_training_ends_with_the_same_weights(samples: Samples, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        assert total == SETTINGS.steps
        if done == 5:
            raise KilledError

    whole = train_gate_net(samples, SETTINGS, tmp_path / "whole", "same")
    with pytest.raises(KilledError):
        train_gate_net(samples, SETTINGS, tmp_path / "killed", "same", kill)
    resumed = train_gate_net(samples, SETTINGS, tmp_path / "killed", "same")
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    with pytest.raises(CheckpointError):
        train_gate_net(samples, SETTINGS, tmp_path / "killed", "another")


def test_it_learns(samples: Samples, tmp_path: Path) -> None:
    losses: list[float] = []

    def loss_of(net: GateNet) -> float:
        images, properties = samples.batch(99, 0, 48)
        with torch.inference_mode():
            return float(gate_loss(net(torch.from_numpy(images)[:, None].float() / 255), torch.from_numpy(properties)))

    torch.manual_seed(0)
    losses.append(loss_of(GateNet(64).eval()))
    settings = replace(SETTINGS, steps=60, batch_size=16, checkpoint_every=60)
    losses.append(loss_of(train_gate_net(samples, settings, tmp_path, "")))
    assert losses[1] < 0.8 * losses[0]


def _reading(n: int, good: float) -> GateReading:
    """Images of which all but the first 1% get ``good`` for being frontal and upright."""
    odd = max(1, n // 100)
    frontal = np.full(n, good, np.float32)
    frontal[:odd] = 0.01
    kind = np.zeros((n, len(KINDS)), np.float32)
    kind[:, FRONTAL] = frontal
    turn = np.zeros((n, len(TURNS)), np.float32)
    turn[:, 0] = good
    flags = np.full((n, len(FLAGS)), 0.05, np.float32)
    flags[: n // 20, FLAGS.index("mirrored")] = 0.8
    return GateReading(kind, turn, flags)


def test_bounds_let_good_images_pass_but_never_beyond_even_odds() -> None:
    bounds = fit_thresholds(_reading(1000, 0.9))
    assert bounds.frontal == pytest.approx(0.01)
    assert bounds.upright == 0.5
    assert bounds.inverted == bounds.cropped == 0.5
    assert bounds.mirrored == pytest.approx(0.8)


def test_a_gate_comes_back_and_a_changed_one_does_not(tmp_path: Path) -> None:
    bounds = LearnedThresholds(frontal=0.3)
    write_gate(tmp_path, b"graph", bounds, training={"steps": 3})
    model, stored = load_gate(tmp_path)
    assert (model, stored.thresholds, stored.training) == (b"graph", bounds, {"steps": 3})
    (tmp_path / "gate.onnx").write_bytes(b"other")
    with pytest.raises(BundleError):
        load_gate(tmp_path)
    (tmp_path / "gate.json").write_text("{}")
    with pytest.raises(BundleError):
        load_gate(tmp_path)
    with pytest.raises(BundleError):
        load_gate(tmp_path / "nowhere")
