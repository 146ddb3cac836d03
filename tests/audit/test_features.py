"""What the probes see: file facts from headers, and vectors that hold nothing of the lung."""

from __future__ import annotations

import io

import numpy as np
import pytest
from image_writing import color, encode, gray
from PIL import Image

from hilum.audit.features import IMAGE_PROBES, FileFacts, commonest_file_facts, file_facts, image_features
from hilum.phantoms.chest import draw_phantom
from hilum.types import Radiograph

FACTS = FileFacts("PNG", "L")


def _features(image: np.ndarray, lung: np.ndarray | None, facts: FileFacts = FACTS) -> dict[str, np.ndarray]:
    return image_features(Radiograph(image), facts, lung)


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("PNG", {}, "PNG"),
        ("JPEG", {}, "JPEG"),
        ("WEBP", {"lossless": False}, "WEBP"),
        ("WEBP", {"lossless": True}, "WEBP lossless"),
        ("BMP", {}, "BMP"),
        ("TIFF", {}, "TIFF"),
    ],
)
def test_the_header_names_the_format(kind: str, options: dict[str, bool], name: str) -> None:
    assert file_facts(encode(Image.fromarray(gray()), kind, **options)).format == name


def test_the_header_tells_mode_density_and_a_jpegs_coarseness() -> None:
    assert file_facts(encode(Image.fromarray(color()))).mode == "RGB"
    assert file_facts(encode(Image.fromarray(gray()), dpi=(300, 300))).density == pytest.approx(300, abs=0.1)
    image = Image.fromarray(gray())
    fine, coarse = (encode(image, "JPEG", quality=quality) for quality in (95, 40))
    with Image.open(io.BytesIO(coarse)) as opened:
        assert file_facts(coarse).quantization == pytest.approx(np.mean(opened.quantization[0]))
    assert file_facts(coarse).quantization > 5 * file_facts(fine).quantization > 0


def test_dicom_is_a_format_and_damage_has_no_facts() -> None:
    assert file_facts(b"\0" * 128 + b"DICM" + b"\0" * 20) == FileFacts("DICOM")
    assert file_facts(b"no image at all") == FileFacts()


def test_the_commonest_file_facts_and_their_shares() -> None:
    image = np.full((40, 60), 9, np.uint8)
    table = [_features(image, None, FileFacts("JPEG", "RGB"))["file"] for _ in range(3)]
    table.append(image_features(Radiograph(np.full((8, 9), 9, np.uint16), 12), FileFacts("DICOM"), None)["file"])
    assert commonest_file_facts(np.stack(table)) == {
        "size": {"value": "60 × 40", "share": 0.75},
        "format": {"value": "JPEG", "share": 0.75},
        "mode": {"value": "RGB", "share": 0.75},
        "bits": {"value": "8", "share": 0.75},
    }
    assert commonest_file_facts(table[3][None])["mode"]["value"] == "–"


def test_vectors_have_one_length_whatever_the_image() -> None:
    phantom = draw_phantom(1, "COVID", size=64)
    small = _features(phantom.image, phantom.lung_mask)
    large = image_features(Radiograph(np.full((90, 200), 3000, np.uint16), 12), FileFacts(), None)
    assert tuple(small) == IMAGE_PROBES
    assert {name: vector.shape for name, vector in small.items()} == {name: v.shape for name, v in large.items()}
    assert all(vector.dtype == np.float32 for vector in (*small.values(), *large.values()))
    assert all(np.isfinite(vector).all() for vector in small.values())
    assert np.isnan(large["outside_lung"]).all()


@pytest.mark.parametrize("label", ["COVID", "Lung_Opacity", "Viral Pneumonia"])
@pytest.mark.parametrize("seed", range(4))
def test_an_opacity_leaves_what_is_not_the_lung_alone(label: str, seed: int) -> None:
    """Of one seed, two classes differ inside the lungs only; what counts as a shortcut must not see it."""
    sick, healthy = draw_phantom(seed, label, size=64), draw_phantom(seed, "Normal", size=64)
    seen = _features(sick.image, sick.lung_mask)
    clear = _features(healthy.image, healthy.lung_mask)
    for name in ("file", "border", "outside_lung"):
        np.testing.assert_array_equal(seen[name], clear[name])
    for name in ("thumbnail", "histogram"):
        assert np.abs(seen[name] - clear[name]).max() > 1e-3


def test_every_pixel_inside_the_lungs_is_erased() -> None:
    phantom = draw_phantom(5, "Normal", size=64)
    noise = np.random.default_rng(0).integers(0, 256, phantom.image.shape).astype(np.uint8)
    filled = np.where(phantom.lung_mask, noise, phantom.image)
    one, two = (_features(image, phantom.lung_mask)["outside_lung"] for image in (phantom.image, filled))
    np.testing.assert_array_equal(one, two)
    outside = np.where(phantom.lung_mask, phantom.image, 255 - phantom.image).astype(np.uint8)
    assert np.abs(_features(outside, phantom.lung_mask)["outside_lung"] - one).max() > 10


def test_an_empty_mask_and_one_that_covers_the_image_leave_nothing_to_measure() -> None:
    image = draw_phantom(2, "Normal", size=64).image
    for mask in (np.zeros((64, 64), bool), np.ones((64, 64), bool)):
        assert np.isnan(_features(image, mask)["outside_lung"]).all()


def test_thumbnail_and_histogram_are_block_means_and_shares() -> None:
    image = draw_phantom(3, "Normal", size=64).image
    features = _features(image, None)
    blocks = image.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(features["thumbnail"], blocks.ravel(), atol=1e-3)
    shares = np.bincount(image.ravel() // 8, minlength=32) / image.size
    np.testing.assert_allclose(features["histogram"] ** 2, shares, atol=1e-6)


def test_noise_is_measured_in_gray_levels() -> None:
    """Immerkær's estimate of white noise on a plane is its standard deviation, at the file's own pixels."""
    ramp = np.add.outer(np.linspace(60, 120, 300), np.linspace(0, 60, 300))
    noisy = ramp + 8 * np.random.default_rng(1).standard_normal(ramp.shape)
    vector = _features(np.rint(noisy).astype(np.uint8), None)["border"]
    fine = np.exp(vector[-4]) - 0.1
    assert fine == pytest.approx(np.hypot(8, np.sqrt(1 / 12)), rel=0.03)


def test_file_facts_reach_the_vector() -> None:
    image = draw_phantom(4, "Normal", size=64).image
    one = _features(image, None)["file"]
    assert one[0] == one[1] == 64
    assert one[3] == 1
    two = _features(image, None, FileFacts("JPEG", "RGB", quantization=12.0))["file"]
    assert np.flatnonzero(one != two).size == 5  # coarseness, and two formats and two modes change places
