"""`hilum audit`: what is planted is found, what is clean passes, and what cannot be run says why."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import pytest

from hilum.audit.report import AuditReport
from hilum.data.split import load_split
from hilum.phantoms.chest import draw_phantom
from hilum.phantoms.confound import write_confounded
from hilum.storage import write_csv

if TYPE_CHECKING:
    from hilum.run_folder import RunFolder

Hilum = Callable[..., str]

SIDE = 64
COLUMNS = ("image", "label", "group", "split")
FEW = ("--permutations", "99", "--resamples", "100")


def _table(folder: Path, n: int = 24, classes: tuple[str, ...] = ("COVID", "Normal")) -> list[dict[str, str]]:
    """One image each of ``n`` patients; every fourth is of the test split."""
    rows = []
    for seed in range(n):
        label = classes[seed % len(classes)]
        cv2.imwrite(str(folder / f"{seed}.png"), draw_phantom(seed, label, size=SIDE).image)
        split = "test" if seed // 2 % 4 == 0 else "train"
        rows.append({"image": f"{seed}.png", "label": label, "group": f"p{seed}", "split": split})
    return rows


def _write(folder: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> Path:
    write_csv(folder / "metadata.csv", columns, [[row[name] for name in columns] for row in rows])
    return folder


def _report(out: Path) -> AuditReport:
    """audit.json, which holds nothing that JSON has no word for."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in audit.json")

    assert (out / "audit.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    content: dict[str, Any] = json.loads((out / "audit.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert not [value for value in _leaves(content) if isinstance(value, float) and not math.isfinite(value)]
    return AuditReport.model_validate(content)


def _leaves(content: Any) -> Iterator[Any]:
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _leaves(value)
    else:
        yield content


def _errors(report: AuditReport) -> list[str]:
    return [finding.check for finding in report.findings if finding.severity == "error"]


def test_clean_images_pass_and_notes_of_probes_are_one_line(hilum: Hilum, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    _write(data, _table(data))
    out = tmp_path / "out"
    printed = hilum("audit", data, "--output", out, "--strict", *FEW)
    report = _report(out)
    assert _errors(report) == []
    assert report.duplicates is not None
    assert (report.duplicates["exact_pairs"], report.duplicates["near_pairs"]) == (0, 0)
    assert (report.data.images, report.data.readable, report.data.groups) == (24, 24, 24)
    assert report.data.splits == {"test": 6, "train": 18}
    assert len(report.probes) == 5
    assert report.files["COVID"]["size"] == {"value": f"{SIDE} × {SIDE}", "share": 1.0}
    assert report.conclusion is not None
    assert (report.conclusion.data, report.conclusion.model, report.conclusion.leaks) == ("none_found", "no_model", 0)
    assert "24 of 24 images read, 24 groups" in printed
    notes = sum(finding.is_probe_note for finding in report.findings)
    assert f"\n{notes} probes " in printed
    assert "probe_histogram" not in printed
    assert str(out / "audit.html") in printed


def test_copies_across_splits_are_errors(hilum: Hilum, tmp_path: Path) -> None:
    rows = _table(tmp_path)
    assert (rows[0]["split"], rows[3]["split"], rows[9]["split"]) == ("test", "train", "test")
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    near = cv2.imread(str(tmp_path / "9.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "near.jpg"), cv2.resize(near, (72, 72)), [cv2.IMWRITE_JPEG_QUALITY, 80])
    rows += [
        {"image": "copy.png", "label": "COVID", "group": "p0", "split": "train"},
        {"image": "near.jpg", "label": "Normal", "group": "other", "split": "train"},
    ]
    out = tmp_path / "out"
    words = ("audit", _write(tmp_path, rows), "--output", out, *FEW)
    printed = hilum(*words)
    hilum(*words, "--strict", code=1)
    report = _report(out)
    found = {finding.check: finding for finding in report.findings}
    assert found["duplicate_across_splits"].severity == found["group_across_splits"].severity == "error"
    assert set(found["duplicate_across_splits"].records) == {"0.png", "copy.png", "9.png", "near.jpg"}
    assert set(found["group_across_splits"].records) == {"0.png", "copy.png"}
    assert set(found["duplicate_across_groups"].records) == {"9.png", "near.jpg"}
    assert report.duplicates is not None
    assert (report.duplicates["exact_pairs"], report.duplicates["near_pairs"]) == (1, 1)
    assert {(pair["first"], pair["second"]) for pair in report.duplicates["pairs"]} == {
        ("0.png", "copy.png"), ("9.png", "near.jpg"),
    }  # fmt: skip
    assert (out / "audit.html").read_text(encoding="utf-8").count("data:image/png;base64") == 2
    assert printed.index("duplicate_across_splits") < printed.index("duplicate_across_groups")
    assert report.conclusion is not None
    assert report.conclusion.leaks == 2


def test_splits_of_a_split_file(hilum: Hilum, tmp_path: Path) -> None:
    rows = _table(tmp_path)
    data = _write(tmp_path, rows, COLUMNS[:3])
    hilum("split", data, "--output", tmp_path / "split.json")
    hilum("audit", data, "--split-file", tmp_path / "split.json", "--output", tmp_path / "out", *FEW)
    assert sum(_report(tmp_path / "out").data.splits.values()) == len(rows)
    hilum("audit", data, "--output", tmp_path / "out", *FEW)
    assert _report(tmp_path / "out").data.splits == {"(none)": len(rows)}


def test_a_planted_marker_is_an_error(hilum: Hilum, tmp_path: Path) -> None:
    write_confounded(tmp_path / "data", 80, "marker", 0.9, size=SIDE)
    printed = hilum("audit", tmp_path / "data", "--output", tmp_path / "out", "--strict", *FEW, code=1)
    report = _report(tmp_path / "out")
    assert "shortcut_border" in _errors(report)
    assert report.conclusion is not None
    assert report.conclusion.data == "shortcut"
    lines = printed.splitlines()
    first = lines.index(report.conclusion.text)  # after the estimate and the lines of progress, before all else
    progress = re.compile(r"This will take about |\d\d:\d\d:\d\d ")
    assert all(progress.match(line) for line in lines[:first])
    assert any("shortcut_border" in line for line in lines[first:])
    html = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert html.index(report.conclusion.text) < html.index('class="matrix"') < html.index('id="pictures"')
    (border,) = [probe for probe in report.probes if probe["probe"] == "border"]
    assert border["auc"]["value"] > 0.75
    assert border["severity"] == "error"
    assert list(report.not_run) == ["model"]


@pytest.mark.slow
def test_a_model_is_audited_beside_its_data(
    hilum: Hilum, phantoms: Path, trained_run: RunFolder, tmp_path: Path
) -> None:
    words = ("audit", phantoms, "--bundle", trained_run.bundle, *FEW)
    hilum(*words, "--limit", "8", "--output", tmp_path / "all")
    report = _report(tmp_path / "all")
    assert report.not_run == {}
    assert report.model is not None
    assert report.model["split"] == "all"
    (seen,) = [finding for finding in report.findings if finding.check == "model_seen"]
    assert seen.count == sum(name != "test" for name in load_split(trained_run.split).assignment.values())
    assert report.model["images"] + report.model["left_out"] == 48
    assert len(report.robustness) == 41
    assert {point["accuracy"]["n"] for point in report.robustness} == {8}
    # A fifth of the phantoms has no mask: the network finds the lungs of all, and no image lacks a figure.
    assert report.data.with_masks < 48
    html = (tmp_path / "all" / "audit.html").read_text(encoding="utf-8")
    assert '<section id="model">' in html
    assert '<section id="robustness">' in html

    hilum(*words, "--limit", "0", "--class", "COVID", "--class", "Normal", "--output", tmp_path / "none")
    report = _report(tmp_path / "none")
    assert report.not_run == {"robustness": "Left out by --limit 0."}
    assert report.robustness == ()
    assert report.model is not None
    assert report.model["images"] + report.model["left_out"] == 24


def test_the_time_is_told_before_the_work(hilum: Hilum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hilum.audit import run

    told: list[float] = []
    monkeypatch.setattr("hilum.cli.audit._expect", lambda seconds, work: told.append(seconds))
    whole = run.scan
    monkeypatch.setattr(run, "scan", lambda *args, **options: (told.append(0), whole(*args, **options))[1])
    hilum("audit", _write(tmp_path, _table(tmp_path, 6)), "--output", tmp_path / "out", *FEW)
    assert told[0] > 0
    assert told[1] == 0


def test_an_interrupted_audit_writes_no_report(hilum: Hilum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hilum.audit.run.run_probes", stop)
    hilum("audit", _write(tmp_path, _table(tmp_path, 6)), "--output", tmp_path / "out", *FEW, code=130)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_classes_that_the_model_does_not_know_are_refused_before_the_work(hilum: Hilum, tmp_path: Path) -> None:
    rows = [{**row, "label": "Zebra"} if row["label"] == "COVID" else row for row in _table(tmp_path, 6)]
    data = _write(tmp_path, rows)
    printed = hilum("audit", data, "--bundle", "default", "--output", tmp_path / "out", code=2)
    assert "Zebra" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_bad_files_do_not_stop_the_audit_of_a_model(hilum: Hilum, trained_run: RunFolder, tmp_path: Path) -> None:
    rows = [{**row, "mask": ""} for row in _table(tmp_path, 16)]
    (tmp_path / "0.png").write_text("a text renamed")
    (tmp_path / "mask.png").write_text("another")
    rows[1]["mask"] = "mask.png"
    data = _write(tmp_path, rows, (*COLUMNS[:3], "mask"))
    words = ("--bundle", trained_run.bundle, "--limit", "0", "--output", tmp_path / "out")
    hilum("audit", data, *words, *FEW, "--strict", code=1)
    report = _report(tmp_path / "out")
    assert {*_errors(report)} - {"background_swap"} == {"unreadable"}  # what so small a model reads is not asked here
    assert "unusable_mask" in [finding.check for finding in report.findings]
    assert report.model is not None or "no lungs" in report.not_run["model"]


@pytest.mark.parametrize(("labels", "said"), [((), "have 0"), (("Normal",), "have 1")])
def test_without_two_classes_there_are_no_probes(
    hilum: Hilum, tmp_path: Path, labels: tuple[str, ...], said: str
) -> None:
    rows = _table(tmp_path, 6, ("Normal",))
    data = _write(tmp_path, rows, COLUMNS if labels else ("image", "group"))
    printed = hilum("audit", data, "--output", tmp_path / "out", "--strict")
    report = _report(tmp_path / "out")
    assert report.probes == ()
    assert said in report.not_run["probes"]
    assert report.not_run["probes"] in printed
    assert report.not_run["probes"] in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert report.conclusion is not None
    assert report.conclusion.data == "not_measured"
    assert report.data.classes == {labels[0] if labels else "(none)": 6}


@pytest.mark.parametrize("what", ["empty", "absent", "class", "split", "bundle", "out"])
def test_refusals(hilum: Hilum, tmp_path: Path, what: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    _write(data, _table(data, 4))
    (tmp_path / "empty").mkdir()
    other = {"seed": 0, "assignment": {"elsewhere.png": "train"}}
    (tmp_path / "split.json").write_text(json.dumps(other))
    (tmp_path / "file").write_text("in the way")
    words: dict[str, tuple[str | Path, ...]] = {
        "empty": (tmp_path / "empty",),
        "absent": (tmp_path / "nowhere",),
        "class": (data, "--class", "Zebra"),
        "split": (data, "--split-file", tmp_path / "split.json"),
        "bundle": (data, "--bundle", tmp_path / "empty"),
        "out": (data, "--output", tmp_path / "file"),
    }
    out = () if what == "out" else ("--output", tmp_path / "out")
    assert "Error: " in hilum("audit", *words[what], *out, code=2)
    assert not (tmp_path / "out").exists()


def test_a_split_of_other_data_is_refused(hilum: Hilum, tmp_path: Path) -> None:
    for name, n in (("one", 12), ("more", 14)):
        (tmp_path / name).mkdir()
        _write(tmp_path / name, _table(tmp_path / name, n), COLUMNS[:3])
    hilum("split", tmp_path / "one", "--output", tmp_path / "split.json")
    words = ("--split-file", tmp_path / "split.json", "--output", tmp_path / "out")
    printed = hilum("audit", tmp_path / "more", *words, code=2)
    assert "Error: 2 images are not in" in printed
    assert "12.png" in printed


def test_the_lean_install_finds_duplicates_and_says_what_it_lacks(tmp_path: Path) -> None:
    rows = _table(tmp_path, 6)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    _write(tmp_path, [*rows, {"image": "copy.png", "label": "COVID", "group": "p0", "split": "train"}])
    absent = ["torch", "sklearn", "scipy", "monai", "timm", "matplotlib", "onnx"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); from pathlib import Path;"
        "from hilum.audit.run import audit; folder = Path(sys.argv[1]); report = audit(folder, folder / 'out');"
        "print(report.duplicates['exact_pairs'], report.not_run['probes'])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 ")
    assert done.stdout.strip().endswith('pip install ".[train]"')
    assert _errors(_report(tmp_path / "out"))[0] == "duplicate_across_splits"
