"""The cache: the same pixels as preprocess, keyed by content, and safe when it is killed half way."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dicom_writing import content_of, dataset_of

from hilum.config import PreprocessSpec
from hilum.data import cache_build, hashes
from hilum.data.cache import Cache, cache_bytes, open_cache
from hilum.errors import DataError, OutputError, ReadError
from hilum.imaging.preprocess import fit_image, fit_mask
from hilum.imaging.read import read_mask, read_radiograph
from hilum.storage import cache_folder
from hilum.types import Record

SPEC = PreprocessSpec(size=32)
N = 20


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """20 images of different sizes; every fourth has a mask, some of another size."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    made = []
    for row in range(N):
        height, width = (int(side) for side in random.integers(40, 60, 2))
        image = tmp_path / "data" / f"{row:02d}.png"
        cv2.imwrite(str(image), random.integers(0, 256, (height, width), dtype=np.uint8))
        mask = None
        if row % 4 == 1:
            mask = tmp_path / "data" / f"{row:02d}_mask.png"
            cv2.imwrite(str(mask), np.where(random.random((2 * height, 2 * width)) < 0.5, 255, 0).astype(np.uint8))
        made.append(Record(image, mask, "COVID"))
    for path in (tmp_path / "data").iterdir():  # old enough to be remembered
        os.utime(path, ns=(10**18, 10**18))
    return made


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that have been decoded."""
    seen: list[str] = []

    def read(source: bytes, *, origin: str) -> Any:
        seen.append(Path(origin).name)
        return read_radiograph(source, origin=origin)

    monkeypatch.setattr(cache_build, "read_radiograph", read)
    return seen


def assert_right(cache: Cache, records: list[Record], spec: PreprocessSpec = SPEC) -> None:
    masks = [record.mask_path for record in records if record.mask_path]
    assert cache.images.shape == (len(records), spec.size, spec.size)
    assert cache.masks.shape == (len(masks), spec.size, spec.size)
    assert cache.images.dtype == cache.masks.dtype == np.uint8
    for row, record in enumerate(records):
        np.testing.assert_array_equal(cache.images[row], fit_image(read_radiograph(record.image_path), spec))
        if record.mask_path is None:
            assert cache.mask_row[row] == -1
        else:
            expected = fit_mask(read_mask(record.mask_path), spec)
            np.testing.assert_array_equal(cache.masks[cache.mask_row[row]], expected)


def test_rows_are_what_preprocess_gives(records: list[Record], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cache = open_cache(records, SPEC, tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert_right(cache, records)
    assert seen == [(done, N) for done in range(1, N + 1)]
    assert cache.images.nbytes + cache.masks.nbytes == cache_bytes(N, 5, SPEC) == 25 * 32 * 32
    with pytest.raises(ValueError, match="read-only"):
        cache.images[0] = 0


def test_without_any_mask(records: list[Record], tmp_path: Path) -> None:
    bare = [replace(record, mask_path=None) for record in records]
    assert_right(open_cache(bare, SPEC, tmp_path / "cache"), bare)


def test_the_second_opening_decodes_and_reads_nothing(
    records: list[Record], tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_cache(records, SPEC, tmp_path / "cache")
    assert len(decoded) == N
    monkeypatch.setattr(hashes, "sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    second = open_cache(records, SPEC, tmp_path / "cache")
    assert len(decoded) == N
    assert second.path == first.path


def test_content_spec_and_order_make_the_key_and_names_do_not(records: list[Record], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    before = open_cache(records, SPEC, folder).path
    assert open_cache(records, PreprocessSpec(size=32, fit="stretch"), folder).path != before
    assert open_cache(records, PreprocessSpec(size=64), folder).path != before
    assert open_cache(records, PreprocessSpec(size=32, channels=3), folder).path == before
    assert open_cache(records[::-1], SPEC, folder).path != before
    assert open_cache([replace(records[0], mask_path=records[1].mask_path), *records[1:]], SPEC, folder).path != before
    moved = records[0].image_path.rename(tmp_path / "moved.png")
    assert open_cache([replace(records[0], image_path=moved), *records[1:]], SPEC, folder).path == before


def test_changed_content_of_the_same_size_is_seen(records: list[Record], tmp_path: Path) -> None:
    """Two changes at once, the second within the clock's tick of the first: mtime alone would not tell."""
    path = tmp_path / "data" / "raw.bmp"
    caches = []
    for level in (10, 20):
        pixels = np.full((40, 40), level, np.uint8)
        pixels[0, 0] = 0
        cv2.imwrite(str(path), pixels)
        caches.append(open_cache([Record(path)], SPEC, tmp_path / "cache"))
    assert caches[0].path != caches[1].path
    assert caches[1].images[0, 20, 20] == 20


def test_an_interrupted_build_is_built_again(
    records: list[Record], tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_build, "_CHUNK", 4)

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(records, SPEC, tmp_path / "cache", progress=stop, workers=1)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    decoded.clear()
    seen: list[int] = []
    cache = open_cache(records, SPEC, tmp_path / "cache", progress=lambda done, total: seen.append(done))
    assert len(decoded) == N
    assert seen == list(range(1, N + 1))
    assert_right(cache, records)


KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from hilum.config import PreprocessSpec
    from hilum.data import cache_build
    from hilum.data.cache import open_cache
    from hilum.types import Record

    cache_build._CHUNK = 4
    def stop(done, total):
        if done == 10:
            os.kill(os.getpid(), signal.SIGKILL)
    rows, size = json.load(sys.stdin)
    records = [Record(Path(image), Path(mask) if mask else None, label) for image, mask, label in rows]
    open_cache(records, PreprocessSpec(size=size), Path(sys.argv[1]), progress=stop)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_build_leaves_nothing_whole_and_its_lock_dies_with_it(
    records: list[Record], tmp_path: Path, decoded: list[str]
) -> None:
    folder = tmp_path / "cache"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder)]
    rows = [(str(r.image_path), str(r.mask_path) if r.mask_path else None, r.label) for r in records]
    ended = subprocess.run(command, input=json.dumps((rows, SPEC.size)).encode(), timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert {path.suffix for path in folder.iterdir() if path.is_dir()} == {".partial"}
    cache = open_cache(records, SPEC, folder)
    assert len(decoded) == N
    assert_right(cache, records)


@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
@pytest.mark.parametrize("damage", ["cut", "no header", "another shape", "absent", "empty"])
def test_a_damaged_cache_is_built_again(records: list[Record], tmp_path: Path, name: str, damage: str) -> None:
    path = open_cache(records, SPEC, tmp_path / "cache").path / name
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "no header":
        path.write_bytes(bytes(path.stat().st_size))
    elif damage == "another shape":
        np.save(path, np.zeros((N, 16, 16), np.uint8))
    elif damage == "absent":
        path.unlink()
    else:
        path.write_bytes(b"")
    assert_right(open_cache(records, SPEC, tmp_path / "cache"), records)


def test_the_default_folder_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HILUM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "hilum"
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_a_damaged_memory_of_hashes_is_no_harm(records: list[Record], tmp_path: Path) -> None:
    path = open_cache(records, SPEC, tmp_path / "cache").path
    for text in ("{", "[1]", '{"a": 3}'):
        (tmp_path / "cache" / hashes.MEMORY_NAME).write_text(text)
        assert open_cache(records, SPEC, tmp_path / "cache").path == path


def _open_and_count(records: list[Record], folder: Path, barrier: Any, results: Any) -> None:
    built: list[int] = []
    barrier.wait()
    cache = open_cache(records, SPEC, folder, progress=lambda done, total: built.append(done))
    results.put((len(built), cache.images.tobytes()))


def test_of_two_processes_one_builds_and_both_read_the_same(records: list[Record], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (records, tmp_path / "cache", barrier, results)
    processes = [context.Process(target=_open_and_count, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    (first, pixels), (second, others) = (results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert sorted((first, second)) == [0, N]
    assert pixels == others


def _images_of(cache: Cache, results: Any) -> None:
    results.put(cache.images.tobytes())


def test_a_cache_goes_to_another_process_by_its_path(records: list[Record], tmp_path: Path) -> None:
    cache = open_cache(records, SPEC, tmp_path / "cache")
    assert len(ForkingPickler.dumps(cache)) < 2000 < cache.images.nbytes
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_images_of, args=(cache, results))
    process.start()
    assert results.get(timeout=60) == cache.images.tobytes()
    process.join(timeout=60)


def test_a_file_that_cannot_be_decoded_is_named(records: list[Record], tmp_path: Path) -> None:
    records[3].image_path.write_text("a text renamed")
    with pytest.raises(ReadError, match=r"03\.png"):
        open_cache(records, SPEC, tmp_path / "cache")
    records[3].image_path.unlink()
    with pytest.raises(ReadError, match=r"03\.png"):
        open_cache(records, SPEC, tmp_path / "cache")


def test_a_mask_that_cannot_be_decoded_is_named(records: list[Record], tmp_path: Path) -> None:
    assert records[1].mask_path is not None
    records[1].mask_path.write_text("a text renamed")
    with pytest.raises(ReadError, match=r"01_mask\.png"):
        open_cache(records, SPEC, tmp_path / "cache")


def test_a_file_that_changes_behind_its_mtime_is_refused(records: list[Record], tmp_path: Path) -> None:
    open_cache(records, SPEC, tmp_path / "cache")
    path = records[5].image_path
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    with pytest.raises(DataError, match=r"05\.png"):
        open_cache(records, PreprocessSpec(size=64), tmp_path / "cache")


def test_no_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="records"):
        open_cache([], SPEC, tmp_path / "cache")


def test_too_small_a_disk_is_said_before_the_build(
    records: list[Record], tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(OutputError, match=r"25,600 bytes.*1,000 bytes are free"):
        open_cache(records, SPEC, tmp_path / "cache")
    assert decoded == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_disk_that_fills_up_is_an_output_error(records: list[Record], tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the system then refuses the writing, as on a full disk
    try:
        with pytest.raises(OutputError, match="25,600 bytes"):
            open_cache(records, SPEC, tmp_path / "cache")
        assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]  # what was written is freed
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_right(open_cache(records, SPEC, tmp_path / "cache"), records)


def test_a_folder_that_is_a_file_is_an_output_error(records: list[Record], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="another cache folder"):
        open_cache(records, SPEC, tmp_path / "file")


def test_the_mask_of_an_image_with_tall_pixels_lies_over_it(tmp_path: Path) -> None:
    disc = np.zeros((60, 80), np.uint8)
    cv2.circle(disc, (50, 40), 14, 255, -1)
    squeezed = np.ascontiguousarray(disc[::2])  # rows half as many, pixels twice as tall
    image = dataset_of(squeezed, 8, PixelSpacing=[0.4, 0.2])
    (tmp_path / "image.dcm").write_bytes(content_of(image))
    cv2.imwrite(str(tmp_path / "mask.png"), squeezed)
    cache = open_cache([Record(tmp_path / "image.dcm", tmp_path / "mask.png", "COVID")], SPEC, tmp_path / "cache")
    np.testing.assert_array_equal(cache.masks[0] > 0, fit_mask(squeezed > 0, SPEC, pixel_aspect=2.0))
    assert np.mean((cache.images[0] > 127) != (cache.masks[0] > 0)) < 0.02
