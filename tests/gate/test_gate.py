from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.errors import ReadError
from hilum.gate import ClassicGate, Gate, NoGate, Thresholds, checks
from hilum.types import Radiograph

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
DEFAULT = Thresholds()


def plausible(side: int = 256) -> NDArray[np.uint8]:
    """Ribs, two dark lungs and noise: enough to pass all nine checks."""
    y, x = np.mgrid[:side, :side] / side
    gray = 160 + 25 * np.sin(50 * y + 6 * (x - 0.5) ** 2)
    for center in (0.3, 0.7):
        gray = np.where(((x - center) / 0.15) ** 2 + ((y - 0.5) / 0.35) ** 2 < 1, gray - 90, gray)
    return np.clip(gray + np.random.default_rng(0).normal(0, 6, gray.shape), 0, 255).astype(np.uint8)


def flat(level: int) -> NDArray[np.uint8]:
    return np.full((64, 64), level, np.uint8)


def columns(*levels: int) -> NDArray[np.uint8]:
    """Vertical stripes of one pixel, each level equally often."""
    side = 4 * len(levels)
    return np.tile(np.asarray(levels, np.uint8), (side, 4))


def mostly_black(share_black: float) -> NDArray[np.uint8]:
    gray = np.zeros(10_000, np.uint8)
    start = round(share_black * gray.size)
    gray[start:] = np.linspace(1, 255, gray.size - start)
    return gray.reshape(100, 100)


def test_an_accepted_image_has_no_findings() -> None:
    verdict = ClassicGate()(Radiograph(plausible()))
    assert verdict.accepted
    assert verdict.reason == "accepted"
    assert verdict.findings == ()


def test_there_are_nine_checks_and_each_names_itself() -> None:
    names = [check.__name__.removeprefix("check_") for check in checks.CHECKS]
    assert len(set(names)) == 9
    tiny = Radiograph(np.zeros((1, 1), np.uint8), color_difference=99.0)
    findings = [check(tiny, DEFAULT) for check in checks.CHECKS]
    assert [finding.check for finding in findings if finding] == names


@pytest.mark.parametrize(
    ("check", "refused", "accepted"),
    [
        (checks.check_minimum_side, np.zeros((300, 255), np.uint8), np.zeros((300, 256), np.uint8)),
        (checks.check_brightness, flat(19), flat(20)),
        (checks.check_brightness, flat(241), flat(240)),
        (checks.check_contrast, columns(100, 114), columns(100, 116)),
        (checks.check_local_detail, columns(100, 108), columns(100, 110)),
        (checks.check_entropy, columns(*range(7)), columns(*range(8))),
        (checks.check_rib_edges, columns(0, 0, 0, 0, 255, 255, 255, 255), plausible()),
        (checks.check_rib_edges, flat(90), np.ascontiguousarray(columns(0, 0, 0, 0, 255, 255, 255, 255).T)),
        (checks.check_dark_bright_balance, mostly_black(0.3), mostly_black(0.2)),
        (checks.check_dark_bright_balance, 255 - mostly_black(0.3), 255 - mostly_black(0.2)),
        (checks.check_gray_levels, columns(*range(49)), columns(*range(50))),
    ],
)
def test_a_check_refuses_on_one_side_of_its_bound_only(
    check: checks.Check, refused: NDArray[np.uint8], accepted: NDArray[np.uint8]
) -> None:
    finding = check(Radiograph(refused, origin="image.png"), DEFAULT)
    assert finding is not None
    assert finding.severity == "error"
    assert finding.records == ("image.png",)
    assert check(Radiograph(accepted), DEFAULT) is None


def test_grayness_is_that_of_the_file() -> None:
    assert checks.check_grayness(Radiograph(flat(90), color_difference=8.0), DEFAULT) is None
    finding = checks.check_grayness(Radiograph(flat(90), color_difference=8.5), DEFAULT)
    assert finding is not None


def test_all_failures_are_reported_in_the_order_of_the_checks() -> None:
    found = [finding.check for finding in ClassicGate()(Radiograph(np.zeros((300, 300), np.uint8))).findings]
    expected = "brightness contrast local_detail entropy rib_edges dark_bright_balance gray_levels"
    assert found == expected.split()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (15, 15)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiny_images_get_the_finding_on_their_size_alone(shape: tuple[int, int], dtype: type) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    found = ClassicGate()(Radiograph(np.zeros(shape, dtype), bits_stored=bits))
    assert [finding.check for finding in found.findings] == ["minimum_side"]


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deeper_images_are_measured_on_the_8_bit_scale(bits: int) -> None:
    top = 2**bits - 1
    deep = np.rint(plausible() / 255 * top).astype(np.uint16)
    assert ClassicGate()(Radiograph(deep, bits_stored=bits)).accepted
    dark = ClassicGate()(Radiograph(deep // 12, bits_stored=bits))
    assert "brightness" in {finding.check for finding in dark.findings}


def test_other_thresholds_give_other_verdicts() -> None:
    small = Radiograph(plausible(128))
    assert [finding.check for finding in ClassicGate()(small).findings] == ["minimum_side"]
    assert ClassicGate(Thresholds(minimum_side=128))(small).accepted


@pytest.mark.parametrize(("gate", "accepts"), [(ClassicGate(), False), (NoGate(), True)], ids=["classic", "none"])
def test_gates_of_one_stage_give_a_verdict_and_have_no_post_check(gate: Gate, accepts: bool) -> None:
    assert gate(Radiograph(flat(0))).accepted is accepts
    assert gate.check_output(np.zeros((8, 8), bool), None) == ()


def acceptance(folder: Path, read: Callable[[Path], Radiograph]) -> tuple[int, int]:
    """How many of the files in a folder the gate accepts, and how many there are."""
    gate, accepted = ClassicGate(), 0
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv"]
    for path in paths:
        try:
            accepted += gate(read(path)).accepted
        except ReadError:
            continue
    return accepted, len(paths)


@pytest.mark.data
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real radiographs are not here")
@pytest.mark.parametrize(
    ("folder", "total", "share"), [("native", 48, 0.79), ("not_chest_xray", 299, 0.41)], ids=["real", "other"]
)
def test_real_files_are_accepted_as_often_as_by_the_original(folder: str, total: int, share: float) -> None:
    from hilum.imaging.read import read_radiograph

    accepted, found = acceptance(SAMPLES / folder, read_radiograph)
    assert found == total
    # One file in the smaller folder is 0.02; decoders of JPEG differ by a gray level.
    assert accepted / found == pytest.approx(share, abs=0.03)
