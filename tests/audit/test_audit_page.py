"""The page of an audit: conclusion, matrix, mean images, findings by kind, and what was not run."""

from __future__ import annotations

import base64
import html as escaping
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_references import external_references
from report_writing import audit_report, estimate, image_png

from hilum.audit.differences import SIDE, Difference
from hilum.audit.page import page_context, write_page
from hilum.audit.probes import REST
from hilum.audit.refit import FIGURES
from hilum.audit.report import KINDS, AuditFinding, AuditReport

ORDER = ["result", "probes", "findings", "data", "duplicates", "model", "robustness", "method"]


def _page(
    report: AuditReport,
    folder: Path,
    images: dict[str, bytes] | None = None,
    differences: tuple[Difference, ...] = (),
) -> str:
    path = write_page(report, folder / "audit.html", images=images or {}, differences=differences)
    return path.read_text(encoding="utf-8")


def _sections(html: str) -> list[str]:
    return re.findall(r'<section id="([a-z-]+)">', html)


def _probe(
    probe: str, negative: str, auc: float | None, severity: str = "info", counts: tuple[int, int] = (20, 30)
) -> dict[str, Any]:
    chance = {"chance_low": 0.42, "chance_high": 0.58, "p_value": 0.005} if auc is not None else {
        "chance_low": None, "chance_high": None, "p_value": None,
    }  # fmt: skip
    return {
        "probe": probe, "positive": "COVID", "negative": negative, "auc": estimate(auc), **chance,
        "counts": list(counts), "groups": list(counts), "severity": severity,
    }  # fmt: skip


def _difference(negative: str = "Normal") -> Difference:
    means = np.full((2, SIDE, SIDE), 100.0)
    means[0, :8, :8] = 150
    return Difference("COVID", negative, (20, 30), means)


def test_everything_in_order(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    assert _sections(html) == ORDER
    assert re.findall(r'<li><a href="#([a-z-]+)">', html) == ORDER
    with_pictures = _page(audit_report(), tmp_path, differences=(_difference(),))
    assert _sections(with_pictures) == [*ORDER[:2], "pictures", *ORDER[2:]]
    for page in (html, with_pictures):
        assert external_references(page) == set()
        assert "<script" not in page


def test_the_conclusion_comes_first(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    main = html[html.index("<main>") :]
    text = re.search(r"<p[^>]*>(.*?)</p>", main)
    assert text is not None
    assert escaping.unescape(text[1]) == "The data offer <shortcuts>."
    assert '<p class="verdict">' not in _page(audit_report(conclusion=None), tmp_path)  # of an earlier version


def test_cells_of_the_matrix_are_the_results(tmp_path: Path) -> None:
    probes = (
        _probe("border", "Normal", 0.931, "error"),
        _probe("outside_lung", "Normal", None, counts=(0, 0)),
        _probe("histogram", "Normal", 0.994),
        _probe("border", REST, 0.561, "warning"),
        _probe("outside_lung", REST, None, counts=(9, 30)),
        _probe("histogram", REST, 0.44),
    )
    report = audit_report(probes=probes)
    matrix = page_context(report, {})["matrix"]
    assert [column["whole"] for column in matrix["columns"]] == [False, False, True]
    pairs, rest = (group["rows"] for group in matrix["groups"])
    assert [row["pair"] for row in (*pairs, *rest)] == ["COVID vs Normal", f"COVID vs {REST}"]
    cells = [cell for row in (*pairs, *rest) for cell in row["cells"]]
    assert [(cell["text"], cell["shade"], cell["flag"]) for cell in cells] == [
        ("0.93", 4, "shortcut"), ("no masks", None, ""), ("0.99", 5, ""),
        ("0.56", 1, "weak"), ("too few", None, ""), ("0.44", 0, ""),
    ]  # fmt: skip
    for cell, probe in zip(cells, probes, strict=True):
        if probe["auc"]["value"] is not None:
            low, high = probe["auc"]["low"], probe["auc"]["high"]
            assert f"95% CI {low:.2f}–{high:.2f}, n = {probe['auc']['n']} (20 and 30)" in cell["title"]
        else:
            assert f"{probe['counts'][0]} and {probe['counts'][1]}" in cell["title"]
    html = _page(report, tmp_path)
    shown = re.findall(r'<td class="(\w+)( \w+)?" title="([^"]*)">([^<]*)', html)
    assert [text for *_, text in shown] == [cell["text"] for cell in cells]
    assert [escaping.unescape(title) for _, _, title, _ in shown] == [cell["title"] for cell in cells]
    assert [shade for shade, *_ in shown] == ["s4", "sn", "w5", "s1", "sn", "w0"]


def test_the_table_under_the_matrix_has_intervals_and_n(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    probes = html[html.index('<section id="probes">') : html.index('<section id="findings">')]
    assert re.findall(r'<th scope="row">([^<]+) <small', probes) == ["Border", "Source column", "Histogram"]
    assert probes.count('<svg x="42.00%" y="0" width="16.00%"') == 3
    assert probes.count('class="num n">') == 3


def test_one_pair_needs_no_heading() -> None:
    matrix = page_context(audit_report(), {})["matrix"]
    assert len(matrix["groups"]) == 1
    assert not matrix["headings"]
    assert page_context(audit_report(probes=()), {})["matrix"] is None


def test_mean_images_and_their_difference_stand_in_the_page(tmp_path: Path) -> None:
    differences = (_difference(), _difference(REST))
    html = _page(audit_report(), tmp_path, differences=differences)
    section = html[html.index('<section id="pictures">') : html.index('<section id="findings">')]
    assert section.count('src="data:image/png;base64,') == 6
    assert len(section) < 100_000
    pictures = page_context(audit_report(), {}, differences)["pictures"]
    assert pictures["scale"] == 52  # the next multiple of 4 above 50
    first = pictures["pairs"][0]
    assert (first["counts"], first["place"], first["seen"]) == ((20, 30), "top left corner", True)
    assert first["level"] == pytest.approx(50)
    assert [probe["auc"]["value"] for probe in first["probes"]] == [0.93]


def test_a_shortcut_of_the_file_is_not_promised_in_the_pixels() -> None:
    report = audit_report(probes=(_probe("file", "Normal", 0.9, "error"), _probe("border", "Normal", 0.5)))
    (pair,) = page_context(report, {}, (_difference(),))["pictures"]["pairs"]
    assert not pair["seen"]


def test_findings_stand_by_kind_with_their_counts_and_files(tmp_path: Path) -> None:
    leaks = tuple(
        AuditFinding(check="duplicate_across_splits", severity="error", message=f"leak {n}") for n in range(6)
    )
    report = audit_report(findings=(*audit_report().findings, *leaks))
    kinds = {kind["key"]: kind for kind in page_context(report, {})["kinds"]}
    assert list(kinds) == list(KINDS)
    assert {name: kind["problems"] for name, kind in kinds.items()} == {
        "leak": 6, "shortcut": 1, "model": 0, "robustness": 0, "quality": 1,
    }  # fmt: skip
    assert kinds["leak"]["words"] == "6 leaks"
    assert (len(kinds["leak"]["shown"]), len(kinds["leak"]["folded"])) == (4, 2)
    assert [finding["message"] for finding in kinds["shortcut"]["notes"]] == ["It may be the disease."]
    html = _page(report, tmp_path)
    body = html[html.index('<section id="findings">') : html.index('<section id="data">')]
    assert re.findall(r'<h3 id="(\w+)">', body) == ["leak", "shortcut", "quality"]
    assert "<li>a&lt;b&gt;.png</li>" in body
    assert not re.search(r">\s*(error|warning)s?\s*<", html, re.IGNORECASE)  # words of a crash


def test_what_was_not_tested_is_not_called_clean() -> None:
    report = audit_report(probes=(), model=None, robustness=(), findings=())
    tested = {kind["key"]: kind["tested"] for kind in page_context(report, {})["kinds"]}
    assert tested == {"leak": True, "shortcut": False, "model": False, "robustness": False, "quality": True}


def test_sources_without_a_name_are_counted(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    row = re.search(r"no source given</th>(.*?)</tr>", html)
    assert row is not None
    assert re.findall(r">(\d+)</td>", row[1]) == ["0", "7", "7"]  # 22 of Normal, 15 of them from the south


def test_pairs_have_their_images_and_names(tmp_path: Path) -> None:
    image = image_png(0, 2)
    html = _page(audit_report(), tmp_path, {"c.png\nd<i>.png": image, "unknown\npair": image})
    assert html.count(base64.b64encode(image).decode()) == 1
    assert "0.910" in html
    assert "d&lt;i&gt;.png" in html


def test_figures_of_treatments_and_changes_are_shown(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    model = html[html.index('<section id="model">') : html.index('<section id="robustness">')]
    assert "<b>0.410</b>" in model  # the shortcut index
    assert model.count("<b>0.810</b>") == 3  # the refitted classifier, per treatment
    assert model.count("<b>0.700</b>") == 1  # the share of the information that is kept
    assert model.count("used in training") == 2  # of the filled lungs, in both tables
    assert html.count("<b>0.700</b>") == 1 + 2 * 4  # and two changes at strength 2, four measures


def test_a_model_without_a_refitted_classifier_says_so(tmp_path: Path) -> None:
    model = audit_report().model
    assert model is not None
    bare = [{**score, **dict.fromkeys(FIGURES)} for score in model["scores"]]
    html = _page(audit_report(model={**model, "scores": bare, "refitted_images": 0, "label_entropy": 0.0}), tmp_path)
    section = html[html.index('<section id="model">') : html.index('<section id="robustness">')]
    assert "Not measured" in section
    assert "<b>0.810</b>" not in section


def test_what_was_not_run_says_why(tmp_path: Path) -> None:
    reasons = {"model": "No model was given: name one.", "probes": "They need <sklearn>."}
    bare = audit_report(model=None, probes=(), robustness=(), duplicates=None, not_run=reasons)
    html = _page(bare, tmp_path)
    assert _sections(html) == ["result", "probes", "findings", "data", "model", "method"]
    assert "No model was given: name one." in html
    assert "They need &lt;sklearn&gt;." in html


def test_an_audit_of_an_earlier_version_is_read() -> None:
    content = audit_report().model_dump(mode="json")
    del content["conclusion"]
    assert AuditReport.model_validate(content).conclusion is None
