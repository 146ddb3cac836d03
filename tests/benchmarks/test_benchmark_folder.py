"""The benchmark of prediction on folders: its ratios, and a run on a few phantoms. Nothing here is timed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import pytest

from hilum.bundle.bundle import load_bundle
from hilum.inference.predictor import Predictor
from hilum.run_folder import RunFolder
from hilum.storage import as_json


@pytest.fixture(scope="module")
def folder(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("folder")


def test_ratios_are_taken_within_rounds(folder: ModuleType) -> None:
    taken = {
        folder.ORIGINAL: [(100.0, 200.0), (300.0, 500.0)],
        "masks": [(10.0, 20.0), (20.0, 30.0)],
        "network alone, all threads": [(8.0, 16.0), (16.0, 32.0)],
        "network alone, per processor": [(5.0, 10.0), (5.0, 10.0)],
    }
    found = folder.summary(taken, 7, {"masks": 14})
    masks = found["rows"][1]
    assert masks["times_the_original"]["all"] == [10.0, 15.0]
    assert masks["share_of_network_per_processor"]["all"] == [0.5, 0.25]
    assert masks["share_of_network_all_threads"]["all"] == [0.8, 0.8]
    assert [row["bound"] for row in found["rows"]] == [None, 14, None, None]


def test_every_way_does_its_work(
    folder: ModuleType, benchmark: Callable[[str], ModuleType], trained_run: RunFolder, tmp_path: Path
) -> None:
    files = folder.copies(None, 9, tmp_path / "copies")
    assert len(folder.links(files, 20, tmp_path / "links")) == 20
    ways = folder.ways(Predictor(load_bundle(trained_run.bundle)))
    taken = folder.measure(ways, files, 1, tmp_path / "out")
    assert {len(times) for times in taken.values()} == {1}
    assert all(wall > 0 for ((wall, _),) in taken.values())
    original, table, masks, overlays, lossy = (tmp_path / "out" / "0" / str(step) for step in range(5))
    assert len(list((original / "overlays").iterdir())) == 9
    assert cv2.imread(str(next((original / "overlays").iterdir()))).shape == (299, 299, 3)
    for place in (table, masks, overlays, lossy):
        with (place / "predictions.csv").open() as stream:
            assert len(list(csv.DictReader(stream))) == 9
    assert len(list((masks / "masks").glob("*.png"))) == len(list((lossy / "overlays").glob("*.jpg"))) > 0
    own = folder.summary(taken, 9, folder.BOUNDS["copies"])
    result = {
        "sets": {"copies": own}, "rounds": 1, "drawn": True, "engine": "one", "processors": 2, "processor": "a",
        "load_average": 0.1, "command": "c",
    }  # fmt: skip
    assert "| masks |" in benchmark("tables").template("folder", result=as_json(result))


def test_memory_is_read_while_files_are_written(
    folder: ModuleType, benchmark: Callable[[str], ModuleType], trained_run: RunFolder, tmp_path: Path
) -> None:
    files = folder.links(folder.copies(None, 4, tmp_path / "copies"), 200, tmp_path / "links")
    found = folder.memory(Predictor(load_bundle(trained_run.bundle)), files, tmp_path / "out", seconds=0.05)
    assert found["files"] == 200
    assert 50 < found["first_mib"] <= found["max_mib"] < 4000
    result = {**found, "images": 4, "drawn": True, "engine": "one", "processors": 2, "processor": "a", "command": "c"}
    table = benchmark("tables").template("folder_memory", result=as_json(result))
    assert f"| {found['first_mib']:.0f}; {found['last_mib']:.0f} |" in table
    assert "200 links to 4 PNG" in table
