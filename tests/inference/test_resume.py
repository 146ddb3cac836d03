"""A prediction that was killed goes on, to the same bytes; folders of other runs are refused."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from killed_prediction import SHARD_ROWS, predict

from hilum.data.find import PARQUET_TABLE, PARTIAL, RUN_MANIFEST, TABLE
from hilum.errors import OutputError
from hilum.inference.folder import predict_folder
from hilum.inference.journal import whole_rows
from hilum.inference.run_manifest import LOCK, locked
from hilum.inference.saving import Wanted
from hilum.phantoms.chest import draw_phantom

Kind = Literal["csv", "parquet"]
KINDS = pytest.mark.parametrize("kind", ["csv", "parquet"])
COUNT = 90
IN_FLIGHT = (2 + 2) * 4  # (threads + 2) chunks of 4 images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, images that are refused and files that cannot be read, some under odd names."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        name = f"{number:03}{(',', chr(10), chr(34), '', '')[number % 5]}.png"
        path = folder / f"{number % 3}" / name
        path.parent.mkdir(exist_ok=True)
        if number % 10 == 3:
            path.write_bytes(b"no image")
        elif number % 10 == 7:
            cv2.imwrite(str(path), np.full((64, 64), 90, np.uint8))
        else:
            cv2.imwrite(str(path), draw_phantom(number, "Normal", size=64).image)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """The content of all files; of overlays the pixels, since ISA-L does not always deflate to the same bytes."""

    def content(path: Path) -> bytes:
        if "overlays" not in path.parts:
            return path.read_bytes()
        pixels = cv2.imread(str(path))
        assert pixels is not None
        return pixels.tobytes()

    return {path.relative_to(folder).as_posix(): content(path) for path in folder.rglob("*") if path.is_file()}


def rows_done(out: Path) -> int:
    partial = out / PARTIAL
    lines = partial.read_bytes().count(b"\n") if partial.exists() else 0
    return lines + SHARD_ROWS * len(list(out.glob(f"{PARQUET_TABLE}/*.parquet")))


@pytest.fixture(scope="module", params=["csv", "parquet"])
def whole(request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kind, Path]:
    """The format, and the folder of a prediction without interruption."""
    out = tmp_path_factory.mktemp("whole")
    predict(images, out, request.param, out.with_suffix(".log"))
    return request.param, out


def stop_after(count: int) -> Any:
    def on_result(file: Path, result: object) -> None:
        nonlocal count
        count -= 1
        if not count:
            raise KeyboardInterrupt

    return on_result


@pytest.mark.slow
def test_a_prediction_killed_at_random_instants_ends_with_the_same_bytes(
    whole: tuple[Kind, Path], images: Path, tmp_path: Path
) -> None:
    kind, expected = whole
    out, log = tmp_path / "out", tmp_path / "log"
    code = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import killed_prediction as k; k.main()"
    command = [sys.executable, "-c", code, images, out, kind, log]
    chance, kills = random.Random(0), 0
    for goal in (1, COUNT // 4, COUNT // 2, COUNT - 12):
        process = subprocess.Popen(command)
        while rows_done(out) < goal and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 3
    assert (out / PARTIAL).exists()
    subprocess.run(command, check=True, timeout=60)
    assert tree(out) == tree(expected)
    times = Counter(log.read_bytes().split(b"\n")[:-1])
    assert times.total() - len(times) <= kills * IN_FLIGHT


@pytest.mark.parametrize("done", [1, 5, SHARD_ROWS, SHARD_ROWS + 1, COUNT])
def test_after_any_number_of_rows_the_rest_is_predicted_once(
    whole: tuple[Kind, Path], images: Path, tmp_path: Path, done: int
) -> None:
    kind, expected = whole
    with pytest.raises(KeyboardInterrupt):
        predict(images, tmp_path / "out", kind, tmp_path / "log", on_result=stop_after(done))
    resumed = predict(images, tmp_path / "out", kind, tmp_path / "second")
    assert done - 4 < resumed <= done
    assert tree(tmp_path / "out") == tree(expected)
    prepared = (tmp_path / "second").read_text().splitlines() if done < COUNT else []
    assert len({*prepared}) == len(prepared)


@pytest.mark.parametrize("cut", [1, 17, 200])
def test_a_torn_row_is_written_again(images: Path, tmp_path: Path, cut: int) -> None:
    predict(images, tmp_path / "whole", "csv", tmp_path / "log")
    with pytest.raises(KeyboardInterrupt):
        predict(images, tmp_path / "out", "csv", tmp_path / "log", on_result=stop_after(20))
    partial = tmp_path / "out" / PARTIAL
    partial.write_bytes(partial.read_bytes()[:-cut] + b"\0" * (cut // 2))
    assert predict(images, tmp_path / "out", "csv", tmp_path / "log") < 20
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_finished_prediction_is_not_done_again(whole: tuple[Kind, Path], images: Path, tmp_path: Path) -> None:
    kind, expected = whole
    shutil.copytree(expected, tmp_path / "out")
    summaries = []
    assert predict(images, tmp_path / "out", kind, tmp_path / "log", progress=summaries.append) == COUNT
    assert not (tmp_path / "log").exists()
    assert not summaries
    assert tree(tmp_path / "out") == tree(expected)


def test_counts_are_those_of_all_rows(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import killed_prediction

    results = []
    monkeypatch.setattr(
        killed_prediction, "predict_folder", lambda *a, **k: results.append(predict_folder(*a, **k)) or results[-1]
    )
    for kind in ("csv", "parquet"):
        with pytest.raises(KeyboardInterrupt):
            predict(images, tmp_path / kind, kind, tmp_path / "log", on_result=stop_after(40))
        for _ in range(2):
            predict(images, tmp_path / kind, kind, tmp_path / "log")
    assert len(results) == 4
    for result in results:
        assert result.statuses == {"ok": COUNT - 18, "refused": 9, "unreadable": 9}
        assert sum(result.labels.values()) == COUNT - 18
        assert result.labels == results[0].labels


@KINDS
@pytest.mark.parametrize(
    "change",
    [{"name": "other"}, {"save": Wanted(masks=True)}, {"save": Wanted(masks=True, overlays=True, overlay_size=65)}],
    ids=["bundle", "fewer files", "overlay size"],
)
def test_a_folder_of_another_run_is_refused(
    images: Path, tmp_path: Path, kind: Kind, change: dict[str, object]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        predict(images, out, kind, log, on_result=stop_after(20))
    before = tree(out)
    with pytest.raises(OutputError) as caught:
        predict(images, out, kind, log, **change)  # type: ignore[arg-type]
    assert "--overwrite" in caught.value.hint
    assert tree(out) == before
    assert predict(images, out, kind, log, overwrite=True, **change) == 0  # type: ignore[arg-type]
    predict(images, tmp_path / "new", kind, log, **change)  # type: ignore[arg-type]
    for name in (RUN_MANIFEST, TABLE if kind == "csv" else f"{PARQUET_TABLE}/part-000001.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


def test_other_inputs_are_refused(images: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    shutil.copytree(images, tmp_path / "in")
    predict(tmp_path / "in", out, "csv", log)
    predict(tmp_path / "in" / "0", tmp_path / "few", "csv", log)
    with pytest.raises(OutputError, match="inputs count was 30, now 90"):
        predict(tmp_path / "in", tmp_path / "few", "csv", log)
    cv2.imwrite(str(tmp_path / "in" / "0" / "000,.png"), draw_phantom(99, "COVID", size=64).image)
    with pytest.raises(OutputError, match="inputs digest"):
        predict(tmp_path / "in", out, "csv", log)


@pytest.mark.parametrize("name", [TABLE, PARTIAL])
def test_a_table_of_something_else_is_kept(images: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(OutputError, match=name):
        predict(images, tmp_path / "out", "csv", tmp_path / "log")
    assert tree(tmp_path / "out") == {name: b"mine"}


def test_two_processes_do_not_write_into_one_folder(images: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(OutputError, match="Another process"):
        predict(images, tmp_path / "out", "csv", tmp_path / "log")
    assert not (tmp_path / "out" / LOCK).exists()
    predict(images, tmp_path / "out", "csv", tmp_path / "log")
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_table_that_was_shortened_is_refused(whole: tuple[Kind, Path], images: Path, tmp_path: Path) -> None:
    kind, expected = whole
    shutil.copytree(expected, tmp_path / "out")
    if kind == "csv":
        table = tmp_path / "out" / TABLE
        table.write_bytes(table.read_bytes()[:2000])
    else:
        table = tmp_path / "out" / PARQUET_TABLE
        shutil.copy(table / f"part-{COUNT // SHARD_ROWS:06}.parquet", table / "part-000000.parquet")
    with pytest.raises(OutputError, match="rows"):
        predict(images, tmp_path / "out", kind, tmp_path / "log")


def test_rows_of_100_000_images_are_counted_within_a_second(tmp_path: Path) -> None:
    header = ["file", "status", "reason"]
    files = [Path(f"data/{number // 1000}/{number}.png") for number in range(100_000)]
    text = "".join(f'{file},refused,"said ""no"",\nthen nothing"\n' for file in files)
    (tmp_path / "table.csv").write_text("file,status,reason\n" + text)
    began = time.process_time()
    with (tmp_path / "table.csv").open("rb") as stream:
        assert sum(1 for _ in whole_rows(stream, header, files)) == 100_000
    assert time.process_time() - began < 1
