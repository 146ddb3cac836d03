"""The pages in a real browser: nothing runs over the side, and nothing is asked of any server."""

from __future__ import annotations

import html as escaping
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_writing import audit_report, failure_drawings, image_png, made_up_scores, provenance, report_of, trust_parts

from hilum.audit.page import write_page as write_audit
from hilum.evaluation.claim import write_claim
from hilum.evaluation.compare import compare
from hilum.evaluation.compare_page import write_comparison_page
from hilum.evaluation.page import write_page as write_evaluation
from hilum.evaluation.plots import training_plots, write_plots

pytestmark = pytest.mark.browser

LONG = "images/" + "a_very_long_name_of_an_image_" * 6 + ".png"
# The page in a frame: narrower than any window, and its own Content-Security-Policy stays in force.
FRAME = """<body><pre id="out"></pre><iframe id="f" width="{width}" height="800" srcdoc="{page}"></iframe><script>
const frame = document.getElementById("f");
const measure = () => {{
  const page = frame.contentDocument, wide = page.documentElement.scrollWidth;
  const images = [...page.images].filter(image => !image.naturalWidth).length;
  const outside = performance.getEntriesByType("resource").concat(
    frame.contentWindow.performance.getEntriesByType("resource")).filter(e => !e.name.startsWith("data:")).length;
  const accent = frame.contentWindow.getComputedStyle(page.querySelector("a")).color;
  document.getElementById("out").textContent =
    [frame.contentWindow.innerWidth, wide, page.images.length, images, outside, accent].join("|");
}};
frame.onload = measure;
</script></body>"""


def _evaluation(folder: Path) -> Path:
    scores = made_up_scores()
    parts = trust_parts()
    first = parts["failures"][0].model_copy(update={"file": LONG})
    report = report_of(scores, **{**parts, "failures": (first, *parts["failures"][1:])}, provenance=provenance())
    plots = write_plots(scores, report, folder / "plots") | training_plots(provenance().epochs, 2)
    return write_evaluation(report, folder, plots=plots, images={LONG: failure_drawings()})


def _claim(folder: Path) -> Path:
    write_claim(report_of(made_up_scores(), **trust_parts(), provenance=provenance()), folder)
    return folder / "claim.html"


def _comparison(folder: Path) -> Path:
    found = compare(made_up_scores(), made_up_scores(seed=1), resamples=20)
    write_comparison_page(found, folder / "ab.html", names=("runs/" + "long_" * 30, "b"))
    return folder / "ab.html"


def _audit(folder: Path) -> Path:
    report = audit_report()
    first = report.findings[1].model_copy(update={"records": (LONG,) * 3})
    report = report.model_copy(update={"findings": (first, *report.findings)})
    return write_audit(report, folder / "audit.html", images={"a.png\nb.png": image_png(0, 2)})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "evaluation": _evaluation(tmp_path_factory.mktemp("evaluation")),
        "audit": _audit(tmp_path_factory.mktemp("audit")),
        "claim": _claim(tmp_path_factory.mktemp("claim")),
        "comparison": _comparison(tmp_path_factory.mktemp("comparison")),
    }


def _measured(page: str, width: int, folder: Path) -> list[str]:
    """Width of the frame, of its content, images, broken ones, requests, and the color of a link."""
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width, page=escaping.escape(page)), encoding="utf-8")
    name = next(n for n in ("chromium", "chromium-browser", "google-chrome") if shutil.which(n))
    done = subprocess.run(
        [
            name, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--hide-scrollbars", "--virtual-time-budget=5000", f"--window-size={max(width, 500)},900",
            f"--user-data-dir={folder / 'profile'}", "--dump-dom", frame.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    found = re.search(r'<pre id="out">([^<]+)</pre>', done.stdout)
    assert found is not None, done.stderr[-2000:]
    return found[1].split("|")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["evaluation", "audit", "claim", "comparison"])
def test_nothing_runs_over_the_side(pages: dict[str, Path], name: str, width: int, tmp_path: Path) -> None:
    text = pages[name].read_text(encoding="utf-8")
    inner, content, images, broken, requests, accent = _measured(text, width, tmp_path)
    assert int(inner) == width
    assert int(content) <= width
    assert int(images) == text.count("<img")
    assert int(broken) == 0
    assert int(requests) == 0
    assert accent == "rgb(0, 114, 178)"  # the styles are in force


def test_the_measure_sees_what_runs_over(pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["audit"].read_text(encoding="utf-8").replace("<main>", '<main><div style="width: 600px">x</div>')
    assert int(_measured(text, 390, tmp_path)[1]) > 390
