"""A bundle comes back as it was written, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from hilum.bundle import container
from hilum.bundle.bundle import MODEL_CARD, ONNX_MODEL, WEIGHTS, Agreement, Manifest, load_bundle, write_bundle
from hilum.bundle.container import MANIFEST
from hilum.bundle.default import resolve_bundle
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError, OutputError
from hilum.gate import GateThresholds, Thresholds
from hilum.storage import sha256_bytes

FILES = {ONNX_MODEL: bytes(range(256)) * 2, WEIGHTS: b"weights" * 30, MODEL_CARD: "# A model, Röntgen\n".encode()}


def manifest(name: str = "tiny") -> Manifest:
    return Manifest(
        name=name,
        class_names=("COVID", "Normal"),
        preprocess=PreprocessSpec(size=64, channels=3, fit="stretch"),
        model=ModelConfig(),
        temperature=1.5,
        gate=GateThresholds(classic=Thresholds(minimum_side=32)),
        conformal_quantiles={"0.90": (0.8125, 1.0)},
        abstention_threshold=0.625,
        calibration={"images": 120},
        metrics={"test": {"accuracy": {"value": 0.1 + 0.2, "low": None, "high": 1.0, "n": 7}}},
    )


@pytest.fixture(params=["bundle", "bundle.hilum"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where to write a folder, and where to write a file."""
    return tmp_path / "out" / str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", manifest(), FILES)
    return tmp_path / "bundle"


def zip_of(path: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def contents_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# Round trip


def test_comes_back_as_it_was_written(path: Path) -> None:
    sealed = write_bundle(path, manifest(), FILES)
    bundle = load_bundle(path)
    assert bundle.manifest == sealed
    assert sealed.model_dump(exclude={"bundle_id", "files"}) == manifest().model_dump(exclude={"bundle_id", "files"})
    assert {name: bundle.read(name) for name in FILES} == FILES
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_the_id_is_of_the_content_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    one = load_bundle(folder).manifest.bundle_id
    assert len(one) == 64
    assert write_bundle(tmp_path / "other.hilum", manifest(), FILES).bundle_id == one
    assert write_bundle(tmp_path / "b", manifest("another"), FILES).bundle_id != one
    assert write_bundle(tmp_path / "c", manifest(), {**FILES, MODEL_CARD: b"#"}).bundle_id != one


def test_a_file_bundle_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.hilum", "b.hilum"):
        write_bundle(tmp_path / name, manifest(), FILES)
    assert (tmp_path / "a.hilum").read_bytes() == (tmp_path / "b.hilum").read_bytes()


def test_a_folder_zipped_by_hand_is_a_bundle(folder: Path, tmp_path: Path) -> None:
    packed = zip_of(tmp_path / "by-hand.hilum", contents_of(folder), zipfile.ZIP_STORED)
    assert load_bundle(packed).manifest == load_bundle(folder).manifest


def test_a_file_that_it_does_not_hold_is_a_bundle_error(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"int8\.onnx"):
        load_bundle(folder).read("int8.onnx")


def test_the_quantiles_of_prediction_sets_are_those_of_the_level() -> None:
    assert manifest().prediction_set_quantiles == (0.8125, 1.0)
    assert manifest().model_copy(update={"prediction_set_level": "0.99"}).prediction_set_quantiles is None


def test_agreement_of_reduced_precisions_comes_back(tmp_path: Path) -> None:
    figures = {
        "n": 2702, "labels_agree": 0.9963, "macro_f1_change": -0.0006, "dice_change": None, "evidence_sum_error": 2e-6,
        "evidence_same_cell": 0.951, "accepted": True, "backend": "OpenVINO 2026.4.1", "split": "val",
    }  # fmt: skip
    own = {"int8": Agreement.model_validate(figures)}
    written = write_bundle(tmp_path / "bundle", manifest().model_copy(update={"agreement": own}), FILES)
    assert load_bundle(tmp_path / "bundle").manifest.agreement == written.agreement == own
    assert manifest().agreement == {}
    for wrong in ({"labels_agree": 1.01}, {"n": 0}, {"split": None}, {"more": 1}):
        with pytest.raises(ValidationError):
            Agreement.model_validate({**figures, **wrong})
    with pytest.raises(ValidationError):
        Manifest.model_validate({**manifest().model_dump(), "agreement": {"int4": figures}})


def test_temperatures_and_thresholds_of_classes_come_back(tmp_path: Path) -> None:
    own = {"class_temperatures": (1.25, 0.75), "class_thresholds": (0.5, None)}
    write_bundle(tmp_path / "bundle", manifest().model_copy(update=own), FILES)
    read = load_bundle(tmp_path / "bundle").manifest
    assert (read.applied_temperature, read.applied_threshold) == ((1.25, 0.75), (0.5, None))
    assert [read.threshold_of(k) for k in range(2)] == [0.5, None]


def test_a_bundle_of_an_earlier_version_has_one_temperature_and_threshold(folder: Path) -> None:
    """Its manifest lacks the keys, and its digest is that of its own bytes."""
    raw = json.loads((folder / MANIFEST).read_text())
    del raw["class_temperatures"], raw["class_thresholds"]
    blank = (json.dumps(raw | {"bundle_id": ""}, indent=2) + "\n").encode()
    (folder / MANIFEST).write_text(json.dumps(raw | {"bundle_id": sha256_bytes(blank)}, indent=2) + "\n")
    read = load_bundle(folder).manifest
    assert (read.applied_temperature, read.applied_threshold) == (1.5, 0.625)
    assert [read.threshold_of(k) for k in range(2)] == [0.625, 0.625]


@pytest.mark.parametrize(
    "fields",
    [
        {"conformal_quantiles": {"0.90": (0.5,)}},
        {"conformal_quantiles": {"0.90": (0.5, 1.5)}},
        {"conformal_quantiles": {"0.90": (0.5, float("nan"))}},
        {"abstention_threshold": 1.5},
        {"temperature": 0.0},
        {"class_temperatures": [1.0]},
        {"class_temperatures": [1.0, 0.0]},
        {"class_thresholds": [0.5]},
        {"class_thresholds": [0.5, 1.5]},
    ],
)
def test_impossible_numbers_are_refused(folder: Path, fields: dict[str, object]) -> None:
    raw = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(raw | fields))
    with pytest.raises(BundleError, match=r"bundle\.json"):
        load_bundle(folder)


# Changed bytes


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_any_changed_byte_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for position in range(0, len(content), 5 if name == MANIFEST else 1):
        changed = bytearray(content)
        changed[position] ^= 1
        (folder / name).write_bytes(changed)
        with pytest.raises(BundleError):
            load_bundle(folder)
    (folder / name).write_bytes(content)
    load_bundle(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"  ", b" \t"), (b"0.30000000000000004", b"0.30000000000000003"), (b": 1.5", b":1.50"), (b"}\n", b"}\r\n")],
)
def test_a_change_that_means_the_same_is_refused(folder: Path, old: bytes, new: bytes) -> None:
    content = (folder / MANIFEST).read_bytes()
    assert old in content
    (folder / MANIFEST).write_bytes(content.replace(old, new, 1))
    with pytest.raises(BundleError, match=r"bundle\.json.* changed"):
        load_bundle(folder)


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_any_changed_byte_of_a_file_bundle_is_refused_or_without_effect(tmp_path: Path, flip: int) -> None:
    """A zip also holds times and attributes, which nobody reads."""
    path = tmp_path / "bundle.hilum"
    sealed = write_bundle(path, manifest(), FILES)
    content = path.read_bytes()
    refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= flip
        path.write_bytes(changed)
        try:
            bundle = load_bundle(path)
        except BundleError:
            refused += 1
        else:
            assert bundle.manifest == sealed
            assert {name: bundle.read(name) for name in FILES} == FILES
    assert refused > 0.8 * len(content)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_bundle_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "bundle.hilum"
    write_bundle(path, manifest(), FILES)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BundleError, match="zip"):
        load_bundle(path)


# What is not a bundle


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    contents = contents_of(folder)
    del contents[name]
    packed = zip_of(tmp_path / "packed.hilum", contents)
    (folder / name).unlink()
    for path in (folder, packed):
        with pytest.raises(BundleError, match=name) as caught:
            load_bundle(path)
        assert caught.value.hint


def test_other_files_in_it_are_not_read(folder: Path, tmp_path: Path) -> None:
    contents = {**contents_of(folder), "notes.txt": b"mine", "evil.py": b"raise SystemExit"}
    for path in (folder, zip_of(tmp_path / "packed.hilum", contents)):
        if path.is_dir():
            (path / "notes.txt").write_bytes(b"mine")
            (path / "cache").mkdir()
        with pytest.raises(BundleError, match=r"notes\.txt"):
            load_bundle(path).read("notes.txt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"bundle\.json"),
        (b"not JSON", r"bundle\.json"),
        (b"\xff\xfe", r"bundle\.json"),
        (b"[" * 100_000, r"bundle\.json"),
        (b"[]", "format 1 .* got 'list'"),
        (b"{}", "format 1 .* got None"),
        (b'{"format": 2}', "format 1 .* got 2"),
        (b'{"format": 1}', r"bundle\.json"),
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes, said: str) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=said) as caught:
        load_bundle(folder)
    assert caught.value.hint


def test_an_unknown_field_is_refused(folder: Path) -> None:
    raw = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**raw, "postprocess": "import os"}))
    with pytest.raises(BundleError, match="manifest"):
        load_bundle(folder)


def test_what_is_absent_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.hilum").write_text("I am a letter.")
    (tmp_path / "empty").mkdir()
    zip_of(tmp_path / "letters.zip", {"letter.txt": b"Dear"})
    for name in ("text.hilum", "empty", "letters.zip", "absent", "absent.hilum"):
        with pytest.raises(BundleError, match="bundle") as caught:
            load_bundle(tmp_path / name)
        assert name in caught.value.message
        assert caught.value.hint


# Hostile zips


def with_manifest_naming(name: str) -> dict[str, bytes]:
    sealed = manifest().sealed({name: b"outside"})
    return {MANIFEST: sealed.content(), name: b"outside"}


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "sub/../../outside"])
def test_names_that_lead_out_of_the_bundle_reach_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"outside")
    contents = with_manifest_naming(name)
    packed = load_bundle(zip_of(tmp_path / "packed.hilum", contents))
    assert packed.read(name) == b"outside"  # a zip is read, never unpacked
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / MANIFEST).write_bytes(contents[MANIFEST])
    with pytest.raises(BundleError, match="missing"):
        load_bundle(folder)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "outside", "packed.hilum"]


def test_a_zip_that_inflates_too_far_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_MAX_BYTES", 1 << 20)
    bomb = zip_of(tmp_path / "bomb.hilum", {MANIFEST: b" " * (1 << 21)})
    assert bomb.stat().st_size < 1 << 13
    with pytest.raises(BundleError, match="larger"):
        load_bundle(bomb)


def test_a_zip_that_hides_its_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, b" " * 1_000_003)
    size = (1_000_003).to_bytes(4, "little")
    assert stream.getvalue().count(size) == 2  # of the entry and of the directory
    (tmp_path / "bomb.hilum").write_bytes(stream.getvalue().replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(BundleError):
        load_bundle(tmp_path / "bomb.hilum")


def test_an_encrypted_zip_is_refused(folder: Path, tmp_path: Path) -> None:
    packed = zip_of(tmp_path / "packed.hilum", contents_of(folder))
    content = bytearray(packed.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + offset] |= 1
    packed.write_bytes(content)
    with pytest.raises(BundleError, match="encrypted"):
        load_bundle(packed)


# Replacing


def test_an_old_bundle_is_replaced(path: Path) -> None:
    write_bundle(path, manifest("old"), FILES)
    write_bundle(path, manifest("new"), {**FILES, MODEL_CARD: b"# new"})
    assert load_bundle(path).manifest.name == "new"
    assert load_bundle(path).read(MODEL_CARD) == b"# new"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_bundle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(path, manifest("old"), FILES)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        write_bundle(path, manifest("new"), FILES)
    monkeypatch.undo()
    assert load_bundle(path).manifest.name == "old"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_move_puts_the_old_bundle_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename: Callable[[Path, Path], Path] = Path.rename

    def fail_on_the_new_one(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new_one)
    with pytest.raises(OutputError, match="Input/output error"):
        write_bundle(folder, manifest("new"), FILES)
    monkeypatch.undo()
    assert load_bundle(folder).manifest.name == "tiny"
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_what_is_no_bundle_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / "letter.hilum").write_text("mine")
    zip_of(tmp_path / "photos.hilum", {"photo.jpg": b"mine"})
    (tmp_path / "folder.hilum").mkdir()
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for name in ("thesis", "note.txt", "letter.hilum", "photos.hilum", "folder.hilum"):
        with pytest.raises(OutputError) as caught:
            write_bundle(tmp_path / name, manifest(), FILES)
        assert caught.value.hint
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_bundle_with_other_files_in_its_folder_is_not_replaced(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        write_bundle(folder, manifest("new"), FILES)
    assert (folder / "notes.txt").read_text() == "mine"
    assert load_bundle(folder).manifest.name == "tiny"


def test_an_empty_folder_is_filled_and_a_damaged_bundle_replaced(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle", manifest(), FILES)
    (tmp_path / "bundle" / MANIFEST).write_text("{}")
    write_bundle(tmp_path / "bundle", manifest(), FILES)
    load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["bundle", "bundle.hilum"])
def test_below_a_file_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="Cannot write") as caught:
        write_bundle(tmp_path / "file" / name, manifest(), FILES)
    assert caught.value.hint
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bundle_moves_and_is_renamed(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    assert load_bundle(tmp_path / "elsewhere").manifest.name == "tiny"


def test_a_bundle_of_before_the_names_were_changed_still_opens(tmp_path: Path) -> None:
    manifest = load_bundle(resolve_bundle("default")).manifest
    content = json.loads(manifest.content())
    content["label_set_level"] = content.pop("prediction_set_level")
    classic = content["gate"]["classic"]
    classic["colour_difference"], classic["grey_levels"] = classic.pop("color_difference"), classic.pop("gray_levels")
    content |= {"files": {}, "bundle_id": ""}
    text = json.dumps(content)
    content["bundle_id"] = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    old = load_bundle(tmp_path).manifest
    assert old.prediction_set_level == manifest.prediction_set_level
    assert old.gate.classic == manifest.gate.classic
