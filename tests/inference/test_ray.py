"""Prediction on Ray gives the folder of a local run, also after a worker or the driver was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from hilum.backends.base import Backend
from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.data.find import find_images
from hilum.errors import ConfigError, MissingExtraError, OutputError, ServerError
from hilum.imaging.read import read_radiograph
from hilum.inference.folder import predict_folder
from hilum.inference.predictor import Predictor as LocalPredictor
from hilum.inference.ray import Predictor, ShardWriter, columns_wanted, predict_on_ray
from hilum.inference.ray_cluster import Cluster
from hilum.inference.saving import Wanted
from hilum.inference.settings import PredictorSettings
from hilum.phantoms.chest import draw_phantom

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own deprecations

ROWS = 4
COUNT = 32
SAVE = Wanted(masks=True)


@pytest.fixture(scope="module")
def settings() -> PredictorSettings:
    return PredictorSettings(load_bundle(resolve_bundle()))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, noise that is refused and files that cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        path = folder / f"{number:03}.png"
        if number % 8 == 3:
            path.write_bytes(b"no image")
        elif number % 8 == 6:
            cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (288, 288), np.uint8))
        else:
            cv2.imwrite(str(path), draw_phantom(number, "Normal", size=288).image)
    return folder


@pytest.fixture(scope="module")
def local(settings: PredictorSettings, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "out"
    predict_folder(settings.open(), find_images(images), out, save=SAVE, table_format="parquet", shard_rows=ROWS)
    return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=2).connected():
        yield Cluster(workers=2)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class SlowWriter(ShardWriter):
    """One that starts more slowly than Ray's calls to a restarting actor fail, four times."""

    def __init__(self, *arguments: Any) -> None:
        time.sleep(10)
        super().__init__(*arguments)


SlowWriter.__name__ = ShardWriter.__name__  # by which the test finds the process


@pytest.mark.parametrize(("writer", "workers"), [(ShardWriter, 2), (SlowWriter, 1)], ids=["two", "one_late"])
def test_a_worker_that_is_killed_changes_no_row(
    settings: PredictorSettings,
    images: Path,
    local: Path,
    cluster: Cluster,
    tmp_path: Path,
    benchmark: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    writer: type[ShardWriter],
    workers: int,
) -> None:
    monkeypatch.setattr("hilum.inference.ray.ShardWriter", writer)
    own = replace(cluster, workers=workers)
    kill_one, killed = benchmark("scale").kill_one, False

    def kill(done: int, total: int) -> None:
        nonlocal killed
        if not killed:
            kill_one()
            killed = True

    seen: dict[str, int] = {}
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        result = predict_on_ray(
            settings, find_images(images), tmp_path / "out", cluster=own, save=SAVE, shard_rows=ROWS, progress=kill
        )
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert killed
    assert result.statuses == {"ok": COUNT - 8, "refused": 4, "unreadable": 4}
    assert tree(tmp_path / "out") == tree(local)
    for path in (tmp_path / "out" / "predictions.parquet").iterdir():
        for name in parquet.read_table(path)["file"].to_pylist():
            seen[name] = seen.get(name, 0) + 1
    assert seen == dict.fromkeys((str(path) for path in find_images(images)), 1)


@dataclass(frozen=True)
class Deadly(PredictorSettings):
    """Settings of a predictor that ends its process at an image of this name, other than in the driver."""

    name: str = ""
    driver: int = 0

    def open(self, backend: Backend | None = None, read: Any = read_radiograph) -> LocalPredictor:
        predictor = super().open(backend, read)
        process = predictor.process

        def deadly(sources: Any, *arguments: Any, **options: Any) -> Any:
            if os.getpid() != self.driver and any(Path(str(source)).name == self.name for source in sources):
                os.kill(os.getpid(), signal.SIGKILL)
            return process(sources, *arguments, **options)

        predictor.process = deadly  # type: ignore[method-assign]
        return predictor


def test_an_image_that_ends_every_process_is_not_tried_without_end(
    settings: PredictorSettings, images: Path, local: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """Trap: the shard was predicted again for ever."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        found = find_images(images)
        deadly = Deadly(settings.bundle, name=found[9].name, driver=os.getpid())
        with pytest.raises(ServerError, match="died 4 times") as error:
            predict_on_ray(deadly, found, tmp_path / "out", cluster=cluster, save=SAVE, shard_rows=ROWS)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert f"'{found[8]}' to '{found[11]}'" in error.value.message
    written = {path.name for path in (tmp_path / "out" / "predictions.parquet").glob("part-*.parquet")}
    assert {"part-000000.parquet", "part-000001.parquet"} <= written
    assert "part-000002.parquet" not in written
    predict_on_ray(settings, found, tmp_path / "out", cluster=cluster, save=SAVE, shard_rows=ROWS)
    assert tree(tmp_path / "out") == tree(local)


def test_a_driver_that_is_killed_goes_on_and_relative_names_are_kept(
    images: Path, tmp_path: Path, settings: PredictorSettings, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    command = [
        sys.executable, "-c", "from hilum.cli import main; main()", "predict", images.name, "--output",
        tmp_path / "out", "--engine", "ray", "--workers", "2", "--shard-rows", str(ROWS), "--save-masks", "--quiet",
    ]  # fmt: skip
    shards = tmp_path / "out" / "predictions.parquet"
    process = subprocess.Popen(command)
    while not (shards.is_dir() and len(list(shards.glob("part-*"))) >= 2):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in shards.glob("part-*")}
    found = find_images(images.name)
    result = predict_on_ray(settings, found, tmp_path / "out", cluster=cluster, save=SAVE, shard_rows=ROWS)
    assert ROWS * len(before) <= result.resumed < COUNT
    assert all((shards / name).stat().st_mtime_ns == stamp for name, stamp in before.items())
    predict_folder(settings.open(), found, tmp_path / "local", save=SAVE, table_format="parquet", shard_rows=ROWS)
    assert tree(tmp_path / "out") == tree(tmp_path / "local")


def test_a_local_run_goes_on_after_ray(
    settings: PredictorSettings, images: Path, local: Path, cluster: Cluster, tmp_path: Path
) -> None:
    found, out = find_images(images), tmp_path / "out"
    predict_on_ray(settings, found, out, cluster=cluster, save=SAVE, shard_rows=ROWS)
    for number in (1, 6):
        (out / "predictions.parquet" / f"part-{number:06}.parquet").unlink()
    result = predict_folder(settings.open(), found, out, save=SAVE, table_format="parquet", shard_rows=ROWS)
    assert result.resumed == COUNT - 2 * ROWS
    assert tree(out) == tree(local)
    with pytest.raises(OutputError, match="shard_rows was 4, now 5"):
        predict_on_ray(settings, found, out, cluster=cluster, save=SAVE, shard_rows=5)


def test_images_as_columns(
    settings: PredictorSettings, images: Path, local: Path, cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    save = columns_wanted(["masks", "evidence"])
    predict_on_ray(settings, find_images(images), out, cluster=cluster, save=save, in_columns=True, shard_rows=16)
    assert {path.name for path in out.iterdir()} == {"predictions.json", "predictions.parquet"}
    rows = [
        row for path in sorted((out / "predictions.parquet").iterdir()) for row in parquet.read_table(path).to_pylist()
    ]
    assert len(rows) == COUNT
    for row in rows:
        mask = local / "masks" / Path(row["file"]).name
        assert row["mask"] == (mask.read_bytes() if row["status"] == "ok" else None)
        assert (row["evidence"] is not None) == (row["status"] == "ok")


def test_the_predictor_in_a_pipeline_of_ones_own(local: Path, images: Path, cluster: Cluster) -> None:
    import hilum.ray

    assert hilum.ray.Predictor is Predictor
    expected = {
        row["file"]: row
        for path in (local / "predictions.parquet").iterdir()
        for row in parquet.read_table(path).to_pylist()
    }
    files = ray.data.read_binary_files(str(images), include_paths=True)
    pool = ray.data.ActorPoolStrategy(size=1)  # of two processors, one reads
    predicted = files.map_batches(Predictor, batch_size=8, compute=pool, fn_constructor_kwargs={"images": ["masks"]})
    rows = predicted.take_all()
    assert len(rows) == COUNT
    for row in rows:
        mask = row.pop("mask")
        assert (mask is not None) == (row["status"] == "ok")
        other = expected[row["file"]]
        assert {key: row[key] for key in ("status", "predicted_label", "reason")} == {
            key: other[key] for key in ("status", "predicted_label", "reason")
        }
        if row["status"] == "ok":
            assert row["prob_Normal"] == pytest.approx(other["prob_Normal"], abs=2e-6)


def test_without_ray_nothing_is_written(
    settings: PredictorSettings, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: the folder belonged to a prediction on Ray, and a local one was refused."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="Ray"):
        predict_on_ray(settings, find_images(images), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_workers_are_refused(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="processors"), Cluster(workers=5000).connected():
        pass
