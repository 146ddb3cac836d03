"""A bundle is the same after it is written and read, whatever its names, and any changed byte is noticed."""

from __future__ import annotations

from pathlib import Path

import odd_text
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hilum.bundle.bundle import Manifest, load_bundle, write_bundle
from hilum.bundle.container import MANIFEST
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError

_FILES = {"a.txt": b"text", "b.bin": bytes(range(256))}
_share = st.floats(0, 1)
_number = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _number | odd_text.text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text.text, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(odd_text.text, min_size=1, max_size=5, unique=True))
    every = st.lists(_share, min_size=len(names), max_size=len(names)).map(tuple)
    return Manifest(
        name=draw(odd_text.text),
        class_names=tuple(names),
        preprocess=PreprocessSpec(size=draw(st.sampled_from([32, 128, 512])), channels=draw(st.sampled_from([1, 3]))),
        model=ModelConfig(),
        temperature=draw(st.floats(1e-300, 1e300)),
        mask_threshold=draw(st.floats(0.01, 0.99)),
        conformal_quantiles={"0.90": draw(every)} if draw(st.booleans()) else {},
        abstention_threshold=draw(st.none() | _share),
        class_thresholds=draw(st.none() | every),
        metrics=draw(st.dictionaries(odd_text.name, _json, max_size=3)),
        sources=tuple(draw(st.lists(odd_text.text, max_size=3))),
    )


@given(manifests(), st.sampled_from(["folder", "one file.hilum"]))
def test_a_bundle_is_read_as_it_was(tmp_path: Path, manifest: Manifest, place: str) -> None:
    sealed = write_bundle(tmp_path / place, manifest, _FILES)
    read = load_bundle(tmp_path / place)
    assert read.manifest == sealed
    assert read.manifest.sealed(_FILES) == sealed
    assert {name: read.read(name) for name in read.manifest.files} == _FILES


@given(manifests(), st.data())
def test_a_changed_byte_is_noticed(tmp_path: Path, manifest: Manifest, data: st.DataObject) -> None:
    write_bundle(tmp_path / "bundle", manifest, _FILES)
    path = tmp_path / "bundle" / data.draw(st.sampled_from([MANIFEST, *_FILES]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255))
    assume(value != content[place])
    content[place] = value
    path.write_bytes(content)
    with pytest.raises(BundleError):
        load_bundle(tmp_path / "bundle")
