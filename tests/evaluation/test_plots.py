"""Plots: which files appear, that bad input is refused, and that what should be drawn is drawn."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_writing import made_up_scores, report_of, trust_parts
from score_making import scores_of
from sklearn.metrics import auc

from hilum.errors import DataError, OutputError
from hilum.evaluation.plots import overlays, sample_overlays, training, training_curves, training_plots, write_plots
from hilum.evaluation.plots.canvas import save_png
from hilum.evaluation.plots.classes import confusion_matrix, precision_recall_curves, roc_curves
from hilum.evaluation.plots.forest import Line, contrast_lines, forest, source_lines
from hilum.evaluation.plots.probabilities import conformal_coverage, reliability, risk_coverage
from hilum.evaluation.plots.write import PLOTS
from hilum.evaluation.report import Estimate
from hilum.format import format_interval
from hilum.metrics.net_benefit import decision_curves
from hilum.metrics.scores import Scores
from hilum.storage import as_json

CURVES = {"training_curves", "loss", "cls_loss", "seg_loss", "accuracy", "dice", "val_auc"}


def _rows(count: int, dice: float = 0.9) -> list[dict[str, float]]:
    columns = ("loss", "cls_loss", "seg_loss", "accuracy")
    return [
        {"epoch": epoch, "val_auc": 0.9, "train_dice": dice, "val_dice": dice, "learning_rate": 1e-3, "seconds": 1.0}
        | {f"{part}_{column}": 1 / epoch + (part == "val") for column in columns for part in ("train", "val")}
        for epoch in range(1, count + 1)
    ]


def _scores(labels: list[int]) -> Scores:
    weights = np.random.default_rng(0).random((len(labels), 3)) + 0.1
    return scores_of(labels, weights / weights.sum(axis=1, keepdims=True), class_names=("a", "b $x$", "c"))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every figure that is saved as PNG, by its file's stem."""
    found: dict[str, Figure] = {}

    def keep(figure: Figure, path: Path) -> None:
        found[path.stem] = figure
        save_png(figure, path)

    for module in (overlays, training):
        monkeypatch.setattr(module, "save_png", keep)
    return found


@pytest.mark.parametrize("epochs", [1, 12])
def test_training_curves_are_the_columns(tmp_path: Path, epochs: int, figures: dict[str, Figure]) -> None:
    rows = _rows(epochs)
    if epochs > 1:
        rows[3]["val_loss"] = math.nan  # a gap, which is not bridged
    training_curves(rows, tmp_path / "plots")
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == CURVES == {*figures}
    for split, column in (("training", "train_loss"), ("validation", "val_loss")):
        x, y = _line(figures["loss"], split)
        assert x == [row["epoch"] for row in rows]
        np.testing.assert_array_equal(y, [row[column] for row in rows])
    assert len(figures["val_auc"].axes[0].lines) == 1


def test_training_curves_without_masks_leave_dice_empty(tmp_path: Path, figures: dict[str, Figure]) -> None:
    training_curves(_rows(5, dice=math.nan), tmp_path)
    assert not figures["dice"].axes[0].lines


def test_training_plots_leave_out_what_was_not_measured_and_mark_the_epoch() -> None:
    rows: list[dict[str, float | None]] = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": None if e == 2 else 2 / e} for e in (1, 2, 3)
    ]
    plain, marked = training_plots(rows), training_plots(rows, best=3)
    assert set(plain) == set(marked) == {"training_loss"}
    assert ElementTree.fromstring(plain["training_loss"]).tag == "{http://www.w3.org/2000/svg}svg"
    assert plain == training_plots(rows)
    assert plain != marked


def test_training_curves_refuse_no_epoch(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        training_curves([], tmp_path)


def _line(figure: Figure, label: str) -> tuple[list[float], list[float]]:
    """The points of the line whose label begins so."""
    line = next(line for axes in figure.axes for line in axes.lines if str(line.get_label()).startswith(label))
    x, y = (np.asarray(values, np.float64).tolist() for values in line.get_data())
    return x, y


def test_all_plots_are_written_as_png_and_svg(tmp_path: Path) -> None:
    scores = made_up_scores()
    curves = tuple(as_json(decision_curves(scores, resamples=20)))
    drawn = write_plots(scores, report_of(scores, **trust_parts(), decision_curves=curves), tmp_path)
    assert tuple(drawn) == PLOTS
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{kind}" for name in PLOTS for kind in ("png", "svg")}
    for name, text in drawn.items():
        assert (tmp_path / f"{name}.svg").read_text(encoding="utf-8") == text
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "<!DOCTYPE" not in text


def test_plots_that_a_report_lacks_are_removed(tmp_path: Path) -> None:
    scores = made_up_scores()
    full, bare = report_of(scores, **trust_parts()), report_of(scores, contrasts=())
    first = write_plots(scores, full, tmp_path)
    (tmp_path / "mine.png").write_text("stays")
    drawn = write_plots(scores, bare, tmp_path)
    names = {"confusion_matrix", "roc_curves", "precision_recall_curves", "sources"}
    assert set(drawn) == names
    assert {path.stem for path in tmp_path.iterdir()} == names | {"mine"}
    assert drawn["roc_curves"] == first["roc_curves"]  # the same bytes again


def test_confusion_matrix_is_drawn_with_a_class_without_images() -> None:
    figure = confusion_matrix([[5, 1, 0], [0, 0, 0], [2, 0, 9]], ("a", "b_{$", "c"), subset="test split")
    assert [text.get_text() for text in figure.axes[0].texts[:4]] == ["5\n83.3%", "1\n16.7%", "0\n0.0%", "0\n–"]


@pytest.mark.parametrize(("matrix", "names"), [([[1, 0], [0, 1]], ("a", "b", "c")), ([[1, 2]], ("a",)), ([], ())])
def test_confusion_matrix_refuses(matrix: list[list[int]], names: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        confusion_matrix(matrix, names)


def test_curves_enclose_the_areas_of_the_report() -> None:
    scores = made_up_scores()
    report = report_of(scores)
    roc, ranked = roc_curves(scores, report), precision_recall_curves(scores, report)
    for name in scores.class_names:
        area, precision = report.figure("roc_auc", name), report.figure("pr_auc", name)
        assert area is not None
        assert precision is not None
        x, y = _line(roc, f"{name}: {format_interval(area)}, n = {area.n}")
        assert auc(x, y) == pytest.approx(area.value)
        recall, found = _line(ranked, f"{name}: {precision.value:.3f}")
        assert -np.sum(np.diff(recall) * found[:-1]) == pytest.approx(precision.value)


def test_curves_leave_out_an_absent_class() -> None:
    scores = _scores([0, 0, 1, 1, 0, -1])
    report = report_of(scores)
    for figure in (roc_curves(scores, report), precision_recall_curves(scores, report)):
        assert _line(figure, "c: undefined") == ([], [])
        assert len(_line(figure, "a: ")[0]) > 1


def test_curves_refuse_unlabeled_images() -> None:
    scores = _scores([-1, -1])
    for draw in (roc_curves, precision_recall_curves):
        with pytest.raises(DataError):
            draw(scores, report_of(scores))


def test_reliability_shows_both_states_and_their_intervals() -> None:
    calibration = trust_parts()["calibration"]
    figure = reliability(calibration, subset="test split")
    confidence, accuracy = _line(figure, "before: ECE 0.100")
    assert confidence == [0.5, 0.8, 0.9]  # the merged bins
    assert accuracy == pytest.approx([0.4, 0.7, 0.8])
    assert _line(figure, "after: ECE 0.040")[0] == confidence
    upright = [line.get_ydata() for line in figure.axes[0].lines if len(set(np.asarray(line.get_xdata()))) == 1]
    assert np.allclose(upright[0], (0.35, 0.45))
    assert len(upright) == 6
    assert "40 to 80 images per dot" in figure.axes[0].get_title()
    alone = reliability({**calibration, "temperature": 1.0})
    assert _line(alone, "not calibrated: ECE 0.100")[0] == confidence


def test_reliability_of_an_earlier_report_has_the_bins_of_the_ece() -> None:
    calibration = trust_parts()["calibration"]
    for state in ("before", "after"):
        calibration[state] = {key: value for key, value in calibration[state].items() if key != "diagram"}
    assert _line(reliability(calibration), "after: ECE")[0] == [0.4, 0.6, 0.8, 0.9]


def test_risk_coverage_marks_the_threshold() -> None:
    selective = trust_parts()["selective"]
    figure = risk_coverage(selective, subset="test split")
    assert _line(figure, "area 0.080") == (selective["coverage"], selective["risk"])
    x, y = _line(figure, "confidence ≥ 0.80")
    assert (x, y) == ([0.5], [pytest.approx(0.05)])
    assert len(risk_coverage({**selective, "threshold": None}).axes[0].lines) == 1


def test_coverage_of_sets_is_drawn_against_what_was_asked() -> None:
    levels = trust_parts()["conformal"]
    figure = conformal_coverage(levels, subset="test split")
    asked = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "--"]  # type: ignore[index]
    assert asked == [0.9, 0.95, 0.99]
    dots = [float(line.get_ydata()[0]) for line in figure.axes[0].lines if line.get_marker() == "o"]  # type: ignore[index]
    assert dots == pytest.approx(asked)
    with pytest.raises(DataError):
        conformal_coverage([])


def test_a_forest_plot_has_a_dot_and_a_bar_per_figure() -> None:
    report = report_of(made_up_scores())
    lines = contrast_lines(report)
    assert len(lines) == 3 * 3
    figure = forest(
        [*lines, Line("undefined", Estimate(value=None, low=None, high=None, n=0))], title="t", abscissa="a"
    )
    drawn = figure.axes[0].lines
    bars = [np.asarray(line.get_xdata()).tolist() for line in drawn if line.get_marker() == "None"]
    dots = [float(np.asarray(line.get_xdata())[0]) for line in drawn if line.get_marker() == "o"]
    assert bars == [[line.estimate.low, line.estimate.high] for line in lines]
    assert dots == [line.estimate.value for line in lines]
    assert len(source_lines(report)) == 3
    with pytest.raises(DataError):
        forest([], title="t", abscissa="a")


def test_sample_overlays_outline_what_is_known(tmp_path: Path, figures: dict[str, Figure]) -> None:
    images = np.full((3, 64, 64), 90, np.uint8)
    masks = np.zeros((3, 64, 64), bool)
    masks[:2, 10:50, :20] = True  # reaches the edge
    titles = ["a_$very_long_" * 8 + "\nNormal 0.98"] * 3
    sample_overlays(images, masks, None, titles, tmp_path / "none.png")
    sample_overlays(images, masks, [~masks[0], None, None], titles, tmp_path / "one.png", subset="test split")
    outlines = {name: [len(axes.collections) for axes in figure.axes[:3]] for name, figure in figures.items()}
    assert outlines == {"none": [1, 1, 0], "one": [2, 1, 0]}


def test_sample_overlays_refuse_other_shapes(tmp_path: Path) -> None:
    images, masks = np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), bool)
    for arguments in (
        (images, masks[:1], None, ["a", "b"]),
        (images, masks, np.zeros((2, 9, 8), bool), ["a", "b"]),
        (images, masks, None, ["a"]),
        (images[:0], masks[:0], None, []),
    ):
        with pytest.raises(DataError):
            sample_overlays(*arguments, tmp_path / "overlays.png")  # type: ignore[arg-type]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        training_curves(_rows(1), tmp_path / "file" / "plots")
