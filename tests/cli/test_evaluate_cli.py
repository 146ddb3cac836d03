"""`hilum evaluate` and `hilum compare`: a run, its bundle, another tool's table, and sources left out."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from training_setup import make_config

from hilum.bundle.bundle import MODEL_CARD, TRAINING_HASHES, load_bundle
from hilum.data.index import load_index, save_index
from hilum.data.split import load_split
from hilum.evaluation.compare import open_scores
from hilum.evaluation.results import load_report
from hilum.phantoms.chest import write_phantoms
from hilum.pipeline import train
from hilum.run_folder import RunFolder
from hilum.storage import write_json
from hilum.training.from_bundle import Start

FEW = ("--resamples", "100")

Hilum = Callable[..., str]


def refused(hilum: Hilum, *arguments: str | Path) -> str:
    """What a command says that must fail: exit code 2, one line that begins with Error, no traceback."""
    output = hilum(*arguments, code=2)
    assert len([line for line in output.splitlines() if line.startswith("Error: ")]) == 1, output
    return output


@pytest.fixture(scope="module")
def run(trained_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The shared run, copied: an evaluation writes into it."""
    return RunFolder(Path(shutil.copytree(trained_run.root, tmp_path_factory.mktemp("evaluated") / "run")))


@pytest.fixture(scope="module")
def labeled(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's images as a table elsewhere, with the run's split in it."""
    index, split = load_index(run.index), load_split(run.split)
    records = tuple(replace(record, split=split.assignment[index.key(record)]) for record in index.records)
    table = tmp_path_factory.mktemp("labeled") / "labeled.csv"
    save_index(replace(index, records=records), table)
    return table


@pytest.fixture(scope="module")
def results(hilum: Hilum, run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run measured on its test split; read it, never write into it."""
    folder = tmp_path_factory.mktemp("results") / "run"
    hilum("evaluate", run.root, "--output", folder, *FEW)
    return folder


@pytest.fixture(scope="module")
def of_bundle(hilum: Hilum, run: RunFolder, labeled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle measured on the same images; read it, never write into it."""
    folder = tmp_path_factory.mktemp("results") / "bundle"
    printed = hilum("evaluate", run.bundle, labeled, "--split", "test", "--output", folder, *FEW)
    assert printed.splitlines()[1].startswith("test split: ")
    return folder


# --- a run and its bundle -----------------------------------------------------------------------------------------


def test_a_bundle_measures_as_the_run_that_it_came_from(results: Path, of_bundle: Path, run: RunFolder) -> None:
    mine, other = open_scores(results), open_scores(of_bundle)
    assert mine.files == other.files
    assert mine.groups == other.groups
    np.testing.assert_array_equal(mine.labels, other.labels)
    np.testing.assert_allclose(mine.probabilities, other.probabilities, atol=1e-4)
    np.testing.assert_allclose(mine.dice, other.dice, atol=1e-3)
    one, two = load_report(results / "report.json"), load_report(of_bundle / "report.json")
    assert (one.model.kind, two.model.kind) == ("run", "bundle")
    assert two.model.id == load_bundle(run.bundle).manifest.bundle_id
    assert one.split == two.split  # the digest too: the bundle's table has the run's split
    assert one.limits == two.limits
    assert any("sources that the model was trained on" in sentence for sentence in two.limits)
    for report in (one, two):
        assert report.localization is not None  # phantoms have regions
        assert "grad-cam" in report.localization["methods"]


def test_a_report_knows_where_model_and_data_come_from(results: Path, of_bundle: Path, run: RunFolder) -> None:
    mine, other = (load_report(folder / "report.json").provenance for folder in (results, of_bundle))
    assert mine is not None
    assert other is not None
    index, split = load_index(run.index), load_split(run.split)
    assert {name: facts.images for name, facts in mine.data.items()} == {
        name: sum(counts.values()) for name, counts in split.counts.items()
    }
    assert {name: facts.classes for name, facts in mine.data.items()} == split.counts
    assert other.data == {"test": mine.data["test"]}
    assert (mine.partition, mine.partition_seed, other.partition) == ("drawn", 42, "given")
    assert mine.grouped == other.grouped == any(record.group for record in index.records)
    assert mine.trained_sources == other.trained_sources == ("phantom",)
    assert mine.parameters == other.parameters
    assert "ImageNet" in str(mine.initial_weights)
    assert mine.training[-1]["training"]["epochs"] == other.training[-1]["training"]["epochs"] == 1
    assert (len(mine.epochs), mine.best_epoch, other.epochs, other.best_epoch) == (1, 1, (), None)
    assert "seconds" not in mine.epochs[0]
    assert mine.software["hilum"]
    for folder in (results, of_bundle):
        text = (folder / "report.json").read_text(encoding="utf-8")
        assert str(run.root.parent) not in text  # no path of this machine
        html = (folder / "report.html").read_text(encoding="utf-8")
        failures = load_report(folder / "report.json").failures
        assert failures
        assert html.count("data:image/jpeg") == 2 * len(failures)
    assert "training_loss" not in {path.stem for path in (results / "plots").iterdir()}  # in the page alone
    assert '<section id="curves">' in (results / "report.html").read_text(encoding="utf-8")


def test_the_bundle_carries_the_runs_calibration(results: Path, of_bundle: Path, run: RunFolder) -> None:
    kept = json.loads(run.calibration.read_text(encoding="utf-8"))
    manifest = load_bundle(run.bundle).manifest
    assert kept["temperature"] != 1
    assert manifest.temperature == kept["temperature"]
    assert manifest.calibration
    for folder in (results, of_bundle):
        report = load_report(folder / "report.json")
        assert report.calibration is not None
        assert report.calibration["temperature"] == kept["temperature"]
        scores = open_scores(folder)
        assert scores.logits is not None
        raised = np.exp(scores.logits / kept["temperature"])
        np.testing.assert_allclose(scores.probabilities, raised / raised.sum(axis=1, keepdims=True), atol=1e-9)


def test_a_bundle_on_all_images_of_a_folder_and_on_one_class(
    hilum: Hilum, run: RunFolder, phantoms: Path, tmp_path: Path
) -> None:
    """The run's folder, named with data, is taken for its bundle."""
    printed = hilum("evaluate", run.root, phantoms, "--class", "Normal", "--output", tmp_path / "one", *FEW)
    report = load_report(tmp_path / "one" / "report.json")
    assert (report.model.kind, report.model.id) == ("bundle", load_bundle(run.bundle).manifest.bundle_id)
    assert "\npartly training data: 12 images" in printed
    assert report.class_names == ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")  # the bundle's, not the data's
    assert report.split.images == report.split.labeled == 12
    recall = report.figure("recall", "COVID")
    assert recall is not None
    assert (recall.value, recall.n) == (None, 0)


def test_the_files_give_the_same_report(hilum: Hilum, results: Path, of_bundle: Path, tmp_path: Path) -> None:
    for folder, given in ((results, results), (of_bundle, of_bundle / "predictions.csv")):
        out = tmp_path / folder.name
        hilum("evaluate", "--from-predictions", given, "--output", out)
        for name in ("report.json", "predictions.csv", "evaluation.json", "localization.csv"):
            assert (out / name).read_bytes() == (folder / name).read_bytes(), name


def test_another_tools_table_goes_into_the_folder_evaluation(
    hilum: Hilum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{row}.png,{'ab'[row % 2]},{row / 20},{1 - row / 20}\n" for row in range(20))
    Path("theirs.csv").write_text(f"file,label,prob_a,prob_b\n{rows}")
    printed = hilum("evaluate", "--from-predictions", "theirs.csv")
    assert printed.startswith("test split: 20 images in 20 groups, 20 labeled, 0 with masks")
    report = load_report(Path("evaluation", "report.json"))
    assert report.model.name == "theirs.csv"
    accuracy = report.figure("accuracy")
    assert accuracy is not None
    assert accuracy.value == pytest.approx(np.mean([(row < 10) == (row % 2 == 1) for row in range(20)]))


def test_compare_tells_of_two_folders(hilum: Hilum, results: Path, of_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison.json"
    printed = hilum("compare", results, of_bundle, "--output", out, *FEW)
    assert printed.startswith("Inconclusive: ")  # 7 images
    assert f"A: {results}" in printed
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["a"], found["b"]) == (str(results), str(of_bundle))
    (accuracy,) = [d for d in found["differences"] if (d["metric"], d["class_name"]) == ("accuracy", None)]
    report = load_report(results / "report.json").figure("accuracy")
    assert report is not None
    assert accuracy["a"] == pytest.approx(report.value)
    assert accuracy["difference"] == pytest.approx(accuracy["b"] - accuracy["a"])


# --- images of the training data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_run_and_its_bundle_say_so_on_images_they_were_trained_on(
    split: str, hilum: Hilum, run: RunFolder, labeled: Path, tmp_path: Path
) -> None:
    for number, words in enumerate(([run.root], [run.bundle, labeled])):
        printed = hilum("evaluate", *words, "--split", split, "--output", tmp_path / str(number), *FEW)
        report = load_report(tmp_path / str(number) / "report.json")
        overlap = report.training_overlap
        assert overlap is not None
        assert (overlap.known, overlap.seen, overlap.unseen) == ("all", report.split.images, 0)
        assert printed.splitlines()[0] == report.overlap_sentence == report.limits[0]
        assert not any("is not known" in sentence for sentence in report.limits)


def test_training_images_among_others_are_found_resized_and_encoded_anew(
    hilum: Hilum, run: RunFolder, tmp_path: Path
) -> None:
    index, split = load_index(run.index), load_split(run.split)
    chosen = [r for r in index.records if split.assignment[index.key(r)] == "train"][::3]
    others = [r for r in index.records if split.assignment[index.key(r)] == "test"]
    for number, record in enumerate([*chosen, *others]):
        image = cv2.imread(str(record.image_path), cv2.IMREAD_GRAYSCALE)
        (tmp_path / "data" / str(record.label)).mkdir(parents=True, exist_ok=True)
        larger = cv2.resize(image, (200, 200), interpolation=cv2.INTER_CUBIC)
        place = tmp_path / "data" / str(record.label) / f"{number}.jpg"
        assert cv2.imwrite(str(place), larger, [cv2.IMWRITE_JPEG_QUALITY, 80])
    hilum("evaluate", run.bundle, tmp_path / "data", "--output", tmp_path / "out", *FEW)
    overlap = load_report(tmp_path / "out" / "report.json").training_overlap
    assert overlap is not None
    assert (overlap.seen, overlap.unseen) == (len(chosen), len(others))
    accuracy = next(figure for figure in overlap.figures if figure.metric == "accuracy")
    assert accuracy.n == len(others)
    scores = open_scores(tmp_path / "out")
    assert scores.seen is not None
    assert {Path(name).stem for name, seen in zip(scores.files, scores.seen, strict=True) if seen} == {
        str(number) for number in range(len(chosen))
    }
    printed = hilum("compare", tmp_path / "out", tmp_path / "out", "--output", tmp_path / "both.json", *FEW)
    assert printed.splitlines()[0] == f"{len(chosen)} of {len(chosen) + len(others)} images are in A's training data."
    both = json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))
    assert both["seen"] == [len(chosen)] * 2
    assert both["unseen"]["images"] == len(others)


def test_hashes_are_left_out_when_asked_and_the_card_and_the_report_say_so(
    hilum: Hilum, run: RunFolder, labeled: Path, tmp_path: Path
) -> None:
    kept = load_bundle(run.bundle)
    images = [n for n, name in enumerate(load_split(run.split).assignment.values()) if name != "test"]
    assert kept.manifest.training_hashes is not None
    assert kept.manifest.training_hashes.images == len(images)
    assert kept.manifest.training_hashes.complete
    hilum("export", run.root, "--no-training-hashes", "--output", tmp_path / "bare")
    bare = load_bundle(tmp_path / "bare")
    assert bare.manifest.training_hashes is None
    assert TRAINING_HASHES not in bare
    assert TRAINING_HASHES in kept
    cards = [bundle.read(MODEL_CARD).decode() for bundle in (kept, bare)]
    assert f"of {len(images):,} training and validation images" in cards[0]
    assert "no hashes" in cards[1]
    settings = Path(shutil.copytree(run.root, tmp_path / "run")) / "config.toml"
    settings.write_text(settings.read_text().replace("training_hashes = true", "training_hashes = false"))
    hilum("export", tmp_path / "run")  # in place of the bundle that training left, which has a file more
    assert TRAINING_HASHES not in load_bundle(RunFolder(tmp_path / "run").bundle)
    hilum("export", tmp_path / "run", "--output", tmp_path / "as trained")
    assert TRAINING_HASHES not in load_bundle(tmp_path / "as trained")
    printed = hilum("evaluate", tmp_path / "bare", labeled, "--split", "train", "--output", tmp_path / "out", *FEW)
    report = load_report(tmp_path / "out" / "report.json")
    assert report.training_overlap is not None
    assert (report.training_overlap.known, report.training_overlap.seen) == ("none", None)
    assert printed.startswith("train split: ")
    assert "is not known" in report.limits[0]
    assert sum("is not known" in sentence for sentence in report.limits) == 1
    compared = hilum("compare", tmp_path / "out", tmp_path / "out", *FEW).splitlines()
    assert sum("is not known whether images are in" in line for line in compared) == 2


def test_a_calibration_per_class_is_kept_for_the_export(hilum: Hilum, run: RunFolder, tmp_path: Path) -> None:
    copied = RunFolder(Path(shutil.copytree(run.root, tmp_path / "run")))
    hilum("evaluate", copied.root, "--calibrate-per", "predicted-class", *FEW)
    kept = json.loads(copied.calibration.read_text(encoding="utf-8"))
    assert len(kept["class_temperatures"]) == len(kept["class_thresholds"]) == 4
    report = load_report(copied.results("test") / "report.json")
    assert report.calibration is not None
    assert [*report.calibration["class_temperatures"].values()] == kept["class_temperatures"]
    hilum("export", copied.root, "--output", tmp_path / "same")
    manifest = load_bundle(tmp_path / "same").manifest
    assert [*(manifest.class_temperatures or ())] == kept["class_temperatures"]
    assert [*(manifest.class_thresholds or ())] == kept["class_thresholds"]
    hilum("export", copied.root, "--calibrate-per", "all", "--output", tmp_path / "other")
    assert load_bundle(tmp_path / "other").manifest.class_temperatures is None
    assert json.loads(copied.calibration.read_text(encoding="utf-8"))["class_temperatures"] is None


def test_a_bundle_is_evaluated_with_its_own_calibration(hilum: Hilum, run: RunFolder, labeled: Path) -> None:
    assert "recalibrate" in hilum("evaluate", run.bundle, labeled, "--calibrate-per", "predicted-class", code=2)


# --- sources left out ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on two classes that come from `north` and `south` in each split, and from `west` in training alone."""
    folder = tmp_path_factory.mktemp("sources")
    write_phantoms(folder / "data", 48, size=32, classes=("COVID", "Normal"))
    index = load_index(folder / "data" / "metadata.csv")
    groups = {name: sorted({r.group for r in index.records if r.label == name}) for name in index.class_names}
    assert min(map(len, groups.values())) >= 7
    records = []
    for record in index.records:
        place = groups[str(record.label)].index(record.group)
        source, split = ("north", "south")[place % 2], ("train", "val", "test")[place // 2 % 3]
        records.append(
            replace(record, source="west", split="train") if place == 6 else replace(record, source=source, split=split)
        )
    save_index(replace(index, records=tuple(records)), folder / "labeled.csv")
    return train(make_config(folder / "labeled.csv", training={"epochs": 1}), RunFolder(folder / "run")).run


class OneBar:
    """A bar as on a terminal, which has room for one."""

    live: OneBar | None = None
    shown = 0

    def start(self) -> None:
        assert OneBar.live is None
        OneBar.live = self
        OneBar.shown += 1

    def stop(self) -> None:
        assert OneBar.live is self
        OneBar.live = None

    def add_task(self, title: str, **fields: object) -> int:
        return 0

    def update(self, task: int, **fields: object) -> None:
        assert OneBar.live is self


@pytest.mark.slow
def test_a_source_is_left_out_and_the_training_is_kept(
    hilum: Hilum, two_sources: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = two_sources
    printed = hilum("evaluate", run.root, "--leave-out", "south", *FEW)
    assert "epoch   1/1" in printed
    first = (run.results("test") / "report.json").read_bytes()
    (found,) = load_report(run.results("test") / "report.json").held_out_sources
    records = load_index(run.index).records
    tested = [r for r in records if (r.source, r.split) == ("south", "test")]
    assert found["source"] == "south"
    assert found["trained_on"] == sum(r.split == "train" and r.source != "south" for r in records)
    assert found["fall"]["n"] == found["accuracy"]["n"] == len(tested)
    assert found["fall"]["value"] == pytest.approx(found["accuracy_with"]["value"] - found["accuracy"]["value"])
    scores = open_scores(run.results("test"))
    own = np.array([source == "south" for source in scores.sources])
    right = scores.predicted[own] == scores.labels[own]
    assert found["accuracy_with"]["value"] == pytest.approx(right.mean())
    assert "south" in (run.results("test") / "report.html").read_text(encoding="utf-8")

    weights = run.held_out("south")
    before = (RunFolder(weights).best.stat().st_mtime_ns, RunFolder(weights).best.read_bytes())
    assert before[1] != run.best.read_bytes()
    monkeypatch.chdir(run.root)  # called by another name, it is the same run
    again = hilum("evaluate", ".", "--leave-out", "south", *FEW)
    assert "epoch" not in again
    assert (RunFolder(weights).best.stat().st_mtime_ns, RunFolder(weights).best.read_bytes()) == before
    assert (run.results("test") / "report.json").read_bytes() == first


@pytest.mark.slow
def test_every_source_that_can_be_is_left_out(
    hilum: Hilum, two_sources: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(two_sources.root / "held_out", ignore_errors=True)
    monkeypatch.setattr("hilum.cli.progress.new_bar", OneBar)
    for name in ("console", "errors"):
        terminal = Console(file=io.StringIO(), force_terminal=True)
        monkeypatch.setattr(f"hilum.cli.progress.{name}", terminal)
    hilum("evaluate", two_sources.root, "--leave-one-source-out", "--output", tmp_path / "all", *FEW)
    assert OneBar.live is None
    assert OneBar.shown >= 6  # checking, decoding, measuring, and a training for each source
    report = load_report(tmp_path / "all" / "report.json")
    assert [found["source"] for found in report.held_out_sources] == ["north", "south"]  # west has no test image
    hilum("evaluate", "--from-predictions", tmp_path / "all", "--output", tmp_path / "again")
    assert (tmp_path / "again" / "report.json").read_bytes() == (tmp_path / "all" / "report.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "words"),
    [("west", "no labeled image in the test split"), ("east", "the data have the sources north, south, west")],
)
def test_a_source_that_cannot_be_left_out_is_named(
    source: str, words: str, hilum: Hilum, two_sources: RunFolder, tmp_path: Path
) -> None:
    output = refused(hilum, "evaluate", two_sources.root, "--leave-out", source, "--output", tmp_path / "out")
    assert f"source {source} cannot be left out" in output
    assert words in output
    assert not (tmp_path / "out").exists()
    assert not two_sources.held_out(source).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sources", "words"),
    [(("north", "south"), "which was trained on it"), ((), "which does not say which sources it was trained on")],
)
def test_a_source_that_the_first_bundle_may_know_is_not_left_out(
    sources: tuple[str, ...], words: str, hilum: Hilum, two_sources: RunFolder, tmp_path: Path
) -> None:
    start = Start(bundle_id="0" * 64, name="theirs", classes_kept=(), classes_new=(), sources=sources)
    write_json(two_sources.start, asdict(start))
    try:
        output = refused(hilum, "evaluate", two_sources.root, "--leave-out", "south", "--output", tmp_path / "out")
    finally:
        two_sources.start.unlink()
    assert f"started from the bundle theirs, {words}" in output


def test_a_label_that_the_bundle_does_not_know_is_told_before_the_files_are_read(
    hilum: Hilum, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_phantoms(tmp_path, 4, classes=("COVID", "Normal"))
    (tmp_path / "Normal").rename(tmp_path / "Healthy")
    (tmp_path / "metadata.csv").unlink()
    monkeypatch.setattr("hilum.data.index.check_records", None)
    for command in (("evaluate",), ("recalibrate", "--output", tmp_path / "out")):
        output = refused(hilum, command[0], run.bundle, tmp_path, *command[1:])
        assert "no class Healthy" in output


def test_the_only_source_cannot_be_left_out(hilum: Hilum, run: RunFolder) -> None:
    output = refused(hilum, "evaluate", run.root, "--leave-out", "phantom")
    assert "without it COVID, Lung_Opacity, Normal, Viral Pneumonia has no image in the train split" in output
    assert "No source can be left out" in refused(hilum, "evaluate", run.root, "--leave-one-source-out")
    assert not (run.root / "held_out").exists()


# --- what is refused ----------------------------------------------------------------------------------------------

Words = list[str | Path]

REFUSALS: dict[str, tuple[Callable[[RunFolder, Path], Words], str]] = {
    "nothing": (lambda run, data: [], "hilum evaluate RUN"),
    "no run": (lambda run, data: [data], "is not a run's folder"),
    "no such run": (lambda run, data: [data / "absent"], "is not a run's folder"),
    "bundle alone": (lambda run, data: [run.bundle], "BUNDLE DATA"),
    "bundle and --leave-out": (lambda run, data: [run.bundle, data, "--leave-out", "phantom"], "RUN --leave-out"),
    "run and --class": (lambda run, data: [run.root, "--class", "Normal"], "--class"),
    "table and run": (lambda run, data: [run.root, "--from-predictions", run.results("test")], "--from-predictions"),
    "table and --split": (
        lambda run, data: ["--from-predictions", run.results("test"), "--split", "val"],
        "--from-predictions",
    ),
    "table and --leave-out": (
        lambda run, data: ["--from-predictions", run.results("test"), "--leave-one-source-out"],
        "--from-predictions",
    ),
    "table and --seed": (lambda run, data: ["--from-predictions", run.results("test"), "--seed", "1"], "seed"),
    "no table": (lambda run, data: ["--from-predictions", data / "absent"], "absent"),
    "another table": (lambda run, data: ["--from-predictions", data / "metadata.csv"], "prob_<class>"),
    "no split column": (lambda run, data: [run.bundle, data, "--split", "test"], "`split` column"),
    "no data": (lambda run, data: [run.bundle, data / "absent"], "does not exist"),
}


@pytest.mark.parametrize("case", list(REFUSALS))
def test_a_wrong_combination_is_one_message(
    case: str, hilum: Hilum, run: RunFolder, phantoms: Path, tmp_path: Path
) -> None:
    words, message = REFUSALS[case]
    assert message in refused(hilum, "evaluate", *words(run, phantoms), "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_class_that_the_bundle_does_not_know_is_named(hilum: Hilum, run: RunFolder, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "data", 4, size=64, classes=("COVID", "Normal"))
    (tmp_path / "data" / "Normal").rename(tmp_path / "data" / "Healthy")
    (tmp_path / "data" / "metadata.csv").unlink()
    output = refused(hilum, "evaluate", run.bundle, tmp_path / "data", "--output", tmp_path / "out")
    assert "Healthy" in output
    assert not (tmp_path / "out").exists()


def test_two_folders_of_other_images_cannot_be_compared(hilum: Hilum, results: Path, tmp_path: Path) -> None:
    with (results / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    with (tmp_path / "predictions.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([rows[0], *(["other/" + row[0], *row[1:]] for row in rows[1:])])
    assert "files" in refused(hilum, "compare", results, tmp_path)
    assert "hilum evaluate" in refused(hilum, "compare", results, tmp_path / "absent")
