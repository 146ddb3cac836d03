"""The page of an evaluation: what it says, in which order, and what it leaves out."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from html_references import external_references
from report_writing import (
    estimate,
    failure_drawings,
    image_png,
    made_up_scores,
    provenance,
    report_of,
    trust_parts,
)

from hilum.errors import OutputError
from hilum.evaluation.page import PAGE_FILE, write_page
from hilum.evaluation.report import Report, TrainingOverlap
from hilum.format import bounds, metric_title, number
from hilum.metrics.scores import Scores

SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def _page(report: Report, folder: Path, **given: object) -> str:
    path = write_page(report, folder, **{"plots": {}, "images": {}, **given})  # type: ignore[arg-type]
    assert path == folder / PAGE_FILE
    return path.read_text(encoding="utf-8")


def _headings(html: str) -> list[str]:
    return re.findall(r'<section id="([a-z-]+)">', html)


@pytest.fixture(scope="module")
def report() -> Report:
    return report_of(made_up_scores(), **trust_parts())


def test_sections_come_in_the_order_of_reading(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    order = ["result", "limits", "classes", "sources", "calibration", "sets", "abstention", "segmentation"]
    assert _headings(html) == [*order, "held-out", "failures", "method"]
    assert re.findall(r'<li><a href="#([a-z-]+)">', html) == _headings(html)


def test_images_of_the_training_data_come_before_everything(tmp_path: Path) -> None:
    scores = made_up_scores()
    seen = np.arange(120) < 60
    unseen = report_of(scores.subset(~seen)).figures
    overlap = TrainingOverlap(known="all", seen=60, unseen=60, unseen_groups=30, figures=unseen)
    html = _page(report_of(scores, training_overlap=overlap), tmp_path)
    assert _headings(html)[0] == "training"
    section = html[html.index('<section id="training">') : html.index('<section id="result">')]
    for metric in ("accuracy", "macro_roc_auc", "dice"):
        for figures in (report_of(scores).figures, unseen):
            (figure,) = [f for f in figures if (f.metric, f.class_name, f.source) == (metric, None, None)]
            assert f"<b>{number(figure.value)}</b>" in section
            assert f'<td class="num">{figure.n}</td>' in section
    none = TrainingOverlap(known="all", seen=0, unseen=120, unseen_groups=60)
    assert "training" not in _headings(_page(report_of(scores, training_overlap=none), tmp_path))


def test_the_headline_is_first_with_its_interval_and_n(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    figure = report.figure("balanced_accuracy")
    assert figure is not None
    assert figure.value is not None
    start = html.index('class="value"')
    head = html[start : start + 600]
    assert f">{figure.value:.3f}<" in head
    assert bounds(figure) in head
    assert f"n = {figure.n}" in head
    assert start < html.index("<table")


def test_every_figure_of_the_classes_is_there_with_its_interval(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    shown = [f for f in report.figures if f.class_name is not None and f.source is None]
    assert len(shown) > 20
    for figure in shown:
        if figure.value is not None:
            assert f"<b>{number(figure.value)}</b>" in html, figure
            assert f"<small>{bounds(figure)}</small>" in html, figure


def test_failures_without_images_are_a_table(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    section = html[html.index('<section id="failures">') :]
    assert [f"{failure.probability:.3f}" in section for failure in report.failures] == [True, True]
    assert "<figure>" not in section


def test_the_legend_of_the_evidence_is_there_where_the_network_gives_any(report: Report, tmp_path: Path) -> None:
    for has_evidence, bands in ((True, 1), (False, 1), (None, 0)):
        html = _page(report, tmp_path, images={"images/image-1.png": failure_drawings(has_evidence=has_evidence)})
        assert html.count('class="swatch high"') == bands
        assert html.count("No evidence drawn") == (has_evidence is False)


def test_training_and_settings_come_from_the_run(report: Report, tmp_path: Path) -> None:
    known = report.model_copy(update={"provenance": provenance()})
    html = _page(known, tmp_path, plots={"training_loss": SVG})
    assert _headings(html)[-5:] == ["failures", "data", "curves", "settings", "method"]
    assert html.count(base64.b64encode(SVG.encode()).decode()) == 1
    assert provenance().best_epoch == 2
    assert "epoch 2" in html
    rows = dict(re.findall(r'<th scope="row"><code>(\w+)</code></th><td><code>([^<]*)</code>', html))
    assert (rows["epochs"], rows["size"], rows["seed"]) == ("3", "64", "77")
    changed = re.findall(r'<tr class="changed"><th scope="row"><code>(\w+)', html)
    assert set(changed) == {"size", "epochs", "seed"}
    assert html.count('<details class="settings"') == len(provenance().training[0]) - 1  # but for the classes
    assert "a &lt;fast&gt; one" in html
    twice = known.model_copy(update={"provenance": provenance(training=provenance().training * 2)})
    assert _page(twice, tmp_path).count('<details class="settings"') == 2 * html.count('<details class="settings"')


def test_every_bin_of_the_reliability_diagram_has_its_n(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    section = html[html.index('<section id="calibration">') : html.index('<section id="sets">')]
    tables = [re.findall(r'<td class="num n">(\d+)</td>', table) for table in section.split("<table")]
    assert ["80", "40", "40"] in tables


def test_names_are_escaped(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    assert "<script" not in html
    assert "images/&lt;script&gt;.png" in html
    assert "Normal &amp; well" in html
    assert "COVID and Viral Pneumonia &lt;b&gt;." in html


def test_it_is_self_contained_with_plots_and_images(report: Report, tmp_path: Path) -> None:
    png = image_png(0)
    drawn = failure_drawings(5)
    html = _page(report, tmp_path, plots={"reliability": SVG, "roc_curves": png}, images={"images/image-1.png": drawn})
    assert external_references(html) == {"href=claim.html"}
    assert html.count(base64.b64encode(SVG.encode()).decode()) == 1
    for image in (png, drawn.plain, drawn.overlay):
        assert html.count(base64.b64encode(image).decode()) == 1
    assert html.count("no image") == 1  # the other failure
    assert all(re.search(r'alt="[^"]', tag) for tag in re.findall(r"<img[^>]*>", html))
    assert "http" not in re.sub(r"http-equiv", "", html)


def test_contrasts_stand_within_sources(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    one_source = report.model_copy(
        update={"contrasts": tuple(c for c in report.contrasts if c.source is None or c.positive == "COVID")}
    )
    assert _page(one_source, tmp_path).count("no source has both") == 1
    assert html.count("no source has both") == 0


def test_temperature_and_threshold_are_shown(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    assert "1.370" in html
    assert "0.800" in html
    assert ">After<" in html
    assert report.calibration is not None
    assert report.selective is not None
    bare = report.model_copy(
        update={
            "calibration": {**report.calibration, "temperature": 1.0},
            "selective": {**report.selective, "threshold": None},
        }
    )
    assert ">After<" not in _page(bare, tmp_path)


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    scores = made_up_scores()
    unlabeled = Scores(**{**vars(scores), "labels": np.full(len(scores.files), -1)})
    html = _page(report_of(unlabeled), tmp_path)
    assert _headings(html) == ["result", "segmentation", "method"]
    nothing = Scores(
        **{
            **vars(unlabeled),
            "dice": np.full(120, np.nan),
            "iou": np.full(120, np.nan),
            "hd95_share": np.full(120, np.nan),
        }
    )
    html = _page(report_of(nothing), tmp_path)
    assert _headings(html) == ["result", "method"]


def test_localization_shows_each_measure_of_each_method(report: Report, tmp_path: Path) -> None:
    methods = {
        name: {"hit": estimate(v), "dice": estimate(v / 2)} for name, v in (("evidence", 0.61), ("grad-cam", 0.47))
    }
    found = {
        "images": 40,
        "kinds": {"region": 30, "boxes": 10},
        "methods": methods,
        "by_kind": {"boxes": {"evidence": {"hit": estimate(0.33)}}},
        "differences": [
            {"measure": "hit", "method": "evidence", "against": "grad-cam", "difference": estimate(0.14)},
        ],
    }
    html = _page(report.model_copy(update={"localization": found}), tmp_path)
    text = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", html, flags=re.DOTALL)
    text = re.sub(r"\s+", " ", text)
    assert "evidence 0.610 0.560–0.660 0.305" in text
    assert "evidence 0.330 0.280–0.380 – 40" in text
    assert "evidence less grad-cam 0.140 0.090–0.190" in text


def test_differences_of_the_headline_are_shown_and_the_others_folded(report: Report, tmp_path: Path) -> None:
    names = ("evidence, predicted class", "evidence")
    rows = [
        {"measure": measure, "method": name, "against": "location prior", "difference": estimate(value)}
        for name, value in zip(names, (0.07, 0.21), strict=True)
        for measure in ("dice", "hit")
    ]
    found = {
        "images": 40, "headline": names[0], "kinds": {"region": 40}, "by_kind": {}, "differences": rows,
        "methods": {name: {"hit": estimate(0.6)} for name in names},
    }  # fmt: skip
    html = _page(report.model_copy(update={"localization": found}), tmp_path)
    section = html[html.index('<section id="localization">') :]
    folded = section[section.index("<details>") : section.index("</details>")]
    assert section.count("<b>0.070</b>") == section.count("<b>0.210</b>") == 2
    assert folded.count("<b>0.070</b>") == 1  # Dice
    assert folded.count("<b>0.210</b>") == 2


def test_figures_stand_below_their_headings(report: Report, tmp_path: Path) -> None:
    html = _page(report, tmp_path)
    table = html[html.index("<table") : html.index("</table>")]
    heads = re.findall(r'<th scope="col"[^>]*>([^<]+)</th>', table)
    row = next(row for row in table.split("<tr") if f">{report.class_names[0]}<" in row)
    wanted = ("recall", "specificity", "precision", "f1", "roc_auc", "pr_auc", "balanced_accuracy", "mcc")
    figures = [report.figure(metric, report.class_names[0]) for metric in wanted]
    assert heads == ["Class", "n", *(metric_title(metric, first=True) for metric in wanted)]
    assert re.findall(r"<b>([^<]+)</b>", row) == [number(figure.value) for figure in figures if figure is not None]


def test_one_class_and_many_classes(tmp_path: Path) -> None:
    for names in (("only",), tuple(f"class {k}" for k in range(12))):
        html = _page(report_of(made_up_scores(60, names)), tmp_path)
        assert all(name in html for name in names)


def test_an_unwritable_folder_is_named(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        _page(report, tmp_path / "file")
