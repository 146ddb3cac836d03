"""The packaged gate on what the project can draw; benchmarks/gate.py has it on real images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.bundle.bundle import ONNX_MODEL, Bundle, load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.bundle.gate import open_gate
from hilum.errors import BundleError, ConfigError
from hilum.gate import LearnedGate, LearnedThresholds, OrientationFix
from hilum.gate.learned import halved
from hilum.gate.stored import GATE_MODEL
from hilum.gate_training.body_parts import BODY_PARTS, lateral_chest
from hilum.gate_training.negatives import NEGATIVES, SLICES
from hilum.gate_training.views import collage_view
from hilum.imaging.read import read_radiograph
from hilum.phantoms.chest import PHANTOM_CLASSES, draw_phantom
from hilum.types import Radiograph

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
SEED = 3_000_000  # of no training and no benchmark


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(resolve_bundle("default"))


@pytest.fixture(scope="module")
def gate(bundle: Bundle) -> LearnedGate:
    opened = open_gate(bundle)
    assert isinstance(opened, LearnedGate)
    return opened


def image(seed: int = 0, size: int = 256) -> Radiograph:
    label = PHANTOM_CLASSES[seed % 4]
    return Radiograph(draw_phantom(SEED + seed, label, size=size).image, origin="image.png")


def turned(radiograph: Radiograph, quarters: int) -> Radiograph:
    return replace(radiograph, pixels=np.ascontiguousarray(np.rot90(radiograph.pixels, -quarters)))


@pytest.mark.parametrize("seed", range(12))
def test_phantoms_are_accepted_upright_and_caught_otherwise(gate: LearnedGate, seed: int) -> None:
    upright = image(seed)
    assert gate(upright).reason == "accepted"
    for quarters in (1, 2, 3):
        verdict = gate(turned(upright, quarters))
        assert verdict.reason == f"rotated {90 * quarters} degrees clockwise"
        assert verdict.orientation_fix == OrientationFix(quarters)
    inverted = gate(replace(upright, pixels=255 - upright.pixels))
    assert inverted.reason == "inverted gray scale"
    assert inverted.orientation_fix == OrientationFix(inverted=True)


def test_both_wrongs_at_once_are_mended_at_once(gate: LearnedGate) -> None:
    wrong = turned(replace(image(), pixels=255 - image().pixels), 1)
    verdict = gate(wrong)
    assert verdict.reason == "inverted gray scale, rotated 90 degrees clockwise"
    assert verdict.orientation_fix == OrientationFix(1, inverted=True)
    assert gate(verdict.orientation_fix.apply(wrong)).accepted


@pytest.mark.parametrize("name", [*NEGATIVES, *SLICES, *BODY_PARTS, "lateral"])
def test_drawn_negatives_are_refused(gate: LearnedGate, name: str) -> None:
    draw = {**NEGATIVES, **SLICES, **BODY_PARTS, "lateral": lateral_chest}[name]
    random = np.random.default_rng((SEED, 1))
    verdicts = [gate(Radiograph(draw(random, 256))) for _ in range(10)]
    assert sum(verdict.accepted for verdict in verdicts) == 0
    expected = {**dict.fromkeys(SLICES, "CT slice or other modality"), **dict.fromkeys(BODY_PARTS, "not a chest")}
    wanted = {**expected, "lateral": "lateral view"}.get(name)
    if wanted is not None:
        assert sum(verdict.reason == wanted for verdict in verdicts) >= 8


def test_several_images_on_one_page_are_refused(gate: LearnedGate) -> None:
    random = np.random.default_rng((SEED, 2))
    pages = [collage_view(random, [image(n).pixels, image(n + 1).pixels], 256, 0).image for n in range(10)]  # type: ignore[list-item]
    reasons = [gate(Radiograph(page)).reason for page in pages]
    assert reasons.count("collage or screenshot") >= 8


@pytest.mark.parametrize("side", [256, 512, 1024, 2500])
def test_the_verdict_does_not_hang_on_the_size(gate: LearnedGate, side: int) -> None:
    pixels = image(1).pixels
    assert gate(Radiograph(cv2.resize(pixels, (side, side)))).reason == "accepted"  # type: ignore[arg-type]
    assert gate(Radiograph(cv2.resize(np.rot90(pixels), (side, side)))).reason == "rotated 270 degrees clockwise"  # type: ignore[arg-type]


def test_depth_makes_no_difference(gate: LearnedGate) -> None:
    shallow = image(2)
    deep = Radiograph((shallow.pixels.astype(np.uint16) * 257), bits_stored=16)
    one, two = gate(shallow).readings, gate(deep).readings
    assert [reading.check for reading in one] == [reading.check for reading in two]
    np.testing.assert_allclose([r.value for r in one], [r.value for r in two], atol=0.02)


def _flat(level: int, shape: tuple[int, int] = (200, 200)) -> NDArray[np.uint8]:
    return np.full(shape, level, np.uint8)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (_flat(100), "too flat"),
        (_flat(2), "too dark, too flat"),
        (_flat(254), "too bright, too flat"),
        (_flat(100, (63, 200)), "too small, too flat"),
        (_flat(100, (1, 1)), "too small, too flat"),
        (_flat(100, (4000, 1)), "too small, too flat"),
    ],
)
def test_plain_measurements_come_first(gate: LearnedGate, pixels: NDArray[np.uint8], reason: str) -> None:
    verdict = gate(Radiograph(pixels))
    assert verdict.reason == reason
    assert "frontal" not in {reading.check for reading in verdict.readings}


def test_color_and_the_declared_view_only_warn(gate: LearnedGate) -> None:
    verdict = gate(replace(image(), color_difference=12.0, view_position="LL"))
    assert verdict.accepted
    assert [finding.check for finding in verdict.findings] == ["burned_in_color", "declared_view"]
    assert gate(replace(image(), view_position="ap")).findings == ()


@pytest.mark.parametrize(
    ("declared", "wrong", "right"),
    [
        ("modality", ("CT", "MG", "OT"), ("CR", "DX", "DR", "RG")),
        ("body_part", ("HAND", "ABDOMEN"), ("CHEST", "chest pa", "THORAX")),
        ("burned_in_annotation", ("YES",), ("NO",)),
    ],
)
def test_what_the_header_declares_only_warns(
    gate: LearnedGate, declared: str, wrong: tuple[str, ...], right: tuple[str, ...]
) -> None:
    check = {"burned_in_annotation": "declared_annotation"}.get(declared, f"declared_{declared}")
    for value in wrong:
        verdict = gate(replace(image(), **{declared: value}))
        assert verdict.accepted
        assert [(finding.check, finding.severity) for finding in verdict.findings] == [(check, "warning")]
        assert value in verdict.findings[0].message
    for value in right:
        verdict = gate(replace(image(), **{declared: value}))
        assert verdict.findings == ()
        assert [reading.check for reading in verdict.readings if reading.check == check] == [check]


def test_other_bounds_give_other_verdicts(bundle: Bundle) -> None:
    strict = LearnedGate(bundle.read(GATE_MODEL), LearnedThresholds(minimum_side=300))
    assert strict(image()).reason == "too small"


def test_halving_keeps_the_means_and_stops_in_time() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (601, 800)).astype(np.uint8)
    small = halved(Radiograph(pixels), 150).pixels
    assert small.shape == (150, 200)
    assert small.mean() == pytest.approx(pixels.mean(), abs=0.7)
    assert halved(Radiograph(pixels), 401).pixels is pixels
    assert halved(Radiograph(np.zeros((1, 9000), np.uint8)), 100).shape == (1, 9000)


def test_another_graph_is_no_gate(bundle: Bundle) -> None:
    with pytest.raises(BundleError):
        LearnedGate(bundle.read(ONNX_MODEL))
    with pytest.raises(BundleError):
        LearnedGate(b"nothing")


def test_names_of_gates(bundle: Bundle) -> None:
    assert [open_gate(bundle, name).name for name in ("learned", "classic", "none")] == ["learned", "classic", "none"]  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        open_gate(bundle, "open")  # type: ignore[arg-type]


def test_a_bundle_without_a_gate_gets_the_packaged_one(bundle: Bundle) -> None:
    bare = Bundle(bundle.manifest, {}, Path("bare"))
    assert open_gate(bare)(image()).accepted


@pytest.mark.data
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real radiographs are not here")
def test_native_images_are_accepted_and_learned_negatives_refused(gate: LearnedGate) -> None:
    images = [path for path in (SAMPLES / "native").rglob("*") if path.is_file() and path.suffix != ".csv"]
    assert sum(gate(read_radiograph(path)).accepted for path in images) >= 47
    others = [path for path in (SAMPLES / "not_chest_xray").rglob("*") if path.is_file() and path.suffix != ".csv"]
    assert sum(gate(read_radiograph(path)).accepted for path in others) <= 3
