"""The page of an audit: findings ranked, pairs with their images, and why a part was not run."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from html_references import external_references
from report_writing import audit_report, estimate, image_png

from hilum.audit.page import write_page
from hilum.audit.report import AuditFinding, AuditReport


def _page(report: AuditReport, folder: Path, images: dict[str, bytes] | None = None) -> str:
    return write_page(report, folder / "audit.html", images=images or {}).read_text(encoding="utf-8")


def _headings(html: str) -> list[str]:
    return re.findall(r'<section id="([a-z-]+)">', html)


def test_everything_in_order(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    expected = ["result", "findings", "data", "duplicates", "probes", "model", "robustness", "method"]
    assert _headings(html) == expected
    assert re.findall(r'<li><a href="#([a-z-]+)">', html) == expected
    assert external_references(html) == set()


def test_the_gravest_finding_is_the_verdict(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    verdict = re.search(r'<p class="verdict">(.*?)</p>', html)
    assert verdict is not None
    assert verdict[1] == "COVID can be told from the border."
    assert re.findall(r'class="severity (\w+)">(.*?)</span>', html)[:3] == [
        ("error", "1 error"), ("warning", "1 warning"), ("info", "1 note"),
    ]  # fmt: skip
    notes = _page(audit_report(findings=audit_report().findings[2:]), tmp_path)
    assert "COVID can be told from the border." not in notes


def test_findings_keep_their_rank_and_name_their_files(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    body = html[html.index('<ol class="findings">') :]
    assert re.findall(r'<li><span class="severity (\w+)">', body) == ["error", "warning", "info"]
    assert "<li>a&lt;b&gt;.png</li>" in body


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


def test_probes_stand_with_their_chance_band_the_whole_image_last(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    probes = html[html.index('<section id="probes">') : html.index('<section id="model">')]
    names = re.findall(r'<th scope="row">([^<]+) <small', probes)
    assert names == ["Border alone", "Source column", "Histogram"]
    assert probes.count('<svg x="42.00%" y="0" width="16.00%"') == 3


def test_figures_of_treatments_and_changes_are_shown(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    assert 'class="value">0.410</p>' in html
    assert html.count("<b>0.700</b>") == 2 * 4  # two changes at strength 2, four measures


def test_what_was_not_run_says_why(tmp_path: Path) -> None:
    reasons = {"model": "No model was given: name one.", "probes": "They need <sklearn>."}
    bare = audit_report(model=None, probes=(), robustness=(), duplicates=None, not_run=reasons)
    html = _page(bare, tmp_path)
    assert _headings(html) == ["result", "findings", "data", "probes", "model", "method"]
    assert "No model was given: name one." in html
    assert "They need &lt;sklearn&gt;." in html


def test_an_undefined_shortcut_index_is_no_headline(tmp_path: Path) -> None:
    model = {**(audit_report().model or {}), "shortcut_index": estimate(None)}
    assert 'class="headline"' not in _page(audit_report(model=model), tmp_path)


def test_notes_of_probes_are_folded_and_no_other_finding(tmp_path: Path) -> None:
    html = _page(audit_report(), tmp_path)
    body = html[html.index('<ol class="findings">') : html.index('<section id="data">')]
    told, folded = body.split("<details><summary>1 probe found nothing")
    assert "Two labels." in told
    assert "It may be the disease." in folded
    other = AuditFinding(check="robustness", severity="info", message="All is well.")
    assert "probe found nothing" not in _page(audit_report(findings=(other,)), tmp_path)
