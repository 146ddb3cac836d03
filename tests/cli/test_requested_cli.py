"""`hilum evaluate` with subgroups, operating points and a second reader, and `hilum plan`."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hilum.data.index import load_index, save_index
from hilum.data.split import load_split
from hilum.evaluation.results import load_report
from hilum.metrics.sample_size import Design, plan_margin, plan_width
from hilum.run_folder import RunFolder

FEW = ("--resamples", "100")
ASKED = ("--subgroup", "age:18,65", "--subgroup", "sex", "--prevalence", "COVID=0.1", "--at-sensitivity", "0.8")

Hilum = Callable[..., str]


@pytest.fixture(scope="module")
def run(trained_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The shared run, copied, on data with ages, sexes and a second reader."""
    run = RunFolder(Path(shutil.copytree(trained_run.root, tmp_path_factory.mktemp("asked") / "run")))
    index = load_index(run.index)
    records = tuple(
        replace(
            record,
            columns=(("age", str(5 * row % 90)), ("sex", "FM"[row % 2]), ("patient_name", f"name-{row}")),
            second_label=record.label if row % 2 else None,
            second_mask_path=record.mask_path if row % 3 else None,
        )
        for row, record in enumerate(index.records)
    )
    save_index(replace(index, records=records), run.index)
    return run


@pytest.fixture(scope="module")
def results(hilum: Hilum, run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked") / "results"
    printed = hilum("evaluate", run.root, "--output", folder, *ASKED, *FEW)
    assert "sex F: " in printed
    assert "COVID PPV at prevalence 0.1" in printed
    return folder


def test_a_run_chooses_its_thresholds_on_its_validation_split(results: Path, run: RunFolder) -> None:
    report = load_report(results / "report.json")
    index, split = load_index(run.index), load_split(run.split)
    validation = [r for r in index.records if split.assignment[index.key(r)] == "val" and r.label]
    assert report.operating_points is not None
    assert report.operating_points["origin"] == "validation split"
    assert report.operating_points["n_origin"] == len(validation)
    assert {point["target"] for point in report.operating_points["points"]} == {None, 0.95, 0.8}
    assert len(list(run.root.glob("validation_*.csv"))) == 1


def test_subgroups_readers_and_demographics_are_in_the_report(results: Path, run: RunFolder) -> None:
    report = load_report(results / "report.json")
    assert [column["column"] for column in report.subgroups] == ["age", "sex"]
    assert sum(row["images"] for row in report.subgroups[1]["rows"]) == report.split.images
    assert report.agreement is not None
    kappa = report.agreement["labels"]["reader 1 and reader 2"]["kappa"]
    assert kappa["value"] == 1.0
    assert report.agreement["masks"]["reader 1 and reader 2"]["value"] == 1.0  # the same files
    first, second = (report.agreement["masks"][f"model and reader {n}"] for n in (1, 2))
    assert first == second
    assert report.provenance is not None
    assert set(report.provenance.data["train"].columns) == {"age", "sex"}
    for name in ("predictions.csv", "report.json", "report.html", "claim.md", "evaluation.json"):
        assert "name-" not in (results / name).read_text(encoding="utf-8"), name
    with (results / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {"age", "sex", "label_2", "dice_2", "dice_readers"} <= rows[0].keys()


def test_the_files_give_the_same_report_or_another_on_request(hilum: Hilum, results: Path, tmp_path: Path) -> None:
    hilum("evaluate", "--from-predictions", results, "--output", tmp_path / "same")
    for name in ("report.json", "predictions.csv", "evaluation.json"):
        assert (tmp_path / "same" / name).read_bytes() == (results / name).read_bytes(), name
    asked = ("--subgroup", "age:40", "--prevalence", "Normal=0.5")
    hilum("evaluate", "--from-predictions", results, "--output", tmp_path / "other", *asked)
    before, after = (load_report(folder / "report.json") for folder in (results, tmp_path / "other"))
    assert after.figures == before.figures
    assert [column["column"] for column in after.subgroups] == ["age"]
    assert after.subgroups[0]["cuts"] == [40.0]
    assert after.operating_points is not None
    assert after.operating_points["prevalence"] == {"Normal": 0.5}
    assert after.operating_points["origin"] == "validation split"  # the targets are still those


def test_a_bundle_takes_its_thresholds_from_an_evaluation_of_other_images(
    hilum: Hilum, run: RunFolder, results: Path, tmp_path: Path
) -> None:
    hilum("evaluate", run.root, "--split", "val", "--output", tmp_path / "val", *FEW)
    given = ("--thresholds-from", tmp_path / "val", "--output", tmp_path / "out")
    hilum("evaluate", "--from-predictions", results, *given)
    points = load_report(tmp_path / "out" / "report.json").operating_points
    assert points is not None
    assert points["origin"] == "predictions in val"
    hilum("evaluate", "--from-predictions", results, "--thresholds-from", results, "--output", tmp_path / "no", code=2)
    of_val = load_report(tmp_path / "val" / "report.json").operating_points
    assert of_val is not None
    assert of_val["origin"] is None  # not on the images themselves


@pytest.mark.parametrize("asked", [("--subgroup", "ages"), ("--prevalence", "Cold=0.1"), ("--at-specificity", "95")])
def test_what_cannot_be_measured_is_one_error(hilum: Hilum, results: Path, tmp_path: Path, asked: list[str]) -> None:
    output = hilum("evaluate", "--from-predictions", results, "--output", tmp_path / "no", *asked, code=2)
    assert output.startswith("Error: ")
    assert not (tmp_path / "no" / "report.json").exists()


def test_a_column_that_the_data_lack_is_told_before_the_network_runs(hilum: Hilum, run: RunFolder) -> None:
    output = hilum("evaluate", run.root, "--subgroup", "weight", code=2)
    assert "age, patient_name, sex" in " ".join(output.split())
    assert "Measuring" not in output


def test_a_plan_needs_no_data(hilum: Hilum) -> None:
    printed = hilum("plan", "--metric", "auroc", "--expect", "0.9", "--share", "0.2", "--width", "0.05")
    plan = plan_width(Design("auroc", 0.9, 0.2), 0.05)
    assert f"{plan.images:,} images in {plan.groups:,} groups" in printed
    printed = hilum(
        "plan", "--expect", "0.9", "--margin", "0.03", "--correlation", "0.7", "--images-per-group", "2", "--icc", "0.3"
    )
    plan = plan_margin(Design("accuracy", 0.9, images_per_group=2, icc=0.3), 0.03, correlation=0.7)
    assert f"{plan.images:,} images in {plan.groups:,} groups" in printed
    assert "0.7" in printed
    for wrong in ((), ("--width", "0.1", "--margin", "0.1"), ("--width", "2")):
        assert hilum("plan", "--expect", "0.9", *wrong, code=2).startswith("Error: ")
