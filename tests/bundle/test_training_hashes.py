"""What a bundle carries of its training images, and what several trainings in a row have seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hilum.bundle.bundle import TRAINING_HASHES, Manifest, load_bundle, write_bundle
from hilum.bundle.training_hashes import KnownImages, known_images, united
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError

HASHES = np.random.default_rng(0).integers(0, 256, (5, 32)).astype(np.uint8)


def written(folder: Path, known: KnownImages, **files: bytes) -> Path:
    facts, contents = known.files("a note")
    manifest = Manifest(name="a", class_names=("a", "b"), preprocess=PreprocessSpec(size=32), model=ModelConfig())
    write_bundle(folder / "bundle", manifest.model_copy(update=facts), {**contents, **files})
    return folder / "bundle"


@pytest.mark.parametrize("extent", ["all", "part"])
def test_a_bundle_gives_back_what_was_put_into_it(tmp_path: Path, extent: str) -> None:
    bundle = load_bundle(written(tmp_path, KnownImages(extent, HASHES)))  # type: ignore[arg-type]
    facts = bundle.manifest.training_hashes
    assert facts is not None
    assert (facts.images, facts.complete, facts.note) == (5, extent == "all", "a note")
    found = known_images(bundle)
    assert found.extent == extent
    assert {row.tobytes() for row in found.hashes} == {row.tobytes() for row in HASHES}


def test_a_bundle_without_hashes_knows_nothing(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path, KnownImages()))
    assert TRAINING_HASHES not in bundle
    found = known_images(bundle)
    assert found.extent == "none"
    assert found.find(np.zeros((2, 32, 32), np.uint8)) is None


def test_hashes_that_cannot_be_read_are_a_bundle_error(tmp_path: Path) -> None:
    path = written(tmp_path, KnownImages("all", HASHES), **{TRAINING_HASHES: b"nothing"})
    with pytest.raises(BundleError, match=TRAINING_HASHES):
        known_images(load_bundle(path))


def test_trainings_in_a_row_are_known_as_far_as_each_is() -> None:
    whole, other = KnownImages("all", HASHES[:2]), KnownImages("all", HASHES[2:])
    both = united([whole, other])
    assert both.extent == "all"
    np.testing.assert_array_equal(both.hashes, HASHES)
    assert united([whole, KnownImages()]).extent == "part"
    assert united([whole, KnownImages("part", HASHES[2:])]).extent == "part"
