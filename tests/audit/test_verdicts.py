"""The severity of what the probes found."""

from __future__ import annotations

import numpy as np

from hilum.audit.findings import ALPHA, verdicts
from hilum.audit.probes import REST, ProbeResult
from hilum.metrics.bootstrap import Interval


def _result(
    probe: str = "border", auc: float = 0.97, half: float = 0.01, p: float = 0.005, negative: str = "Normal"
) -> ProbeResult:
    interval = Interval(auc, auc - half, auc + half, 2000)
    return ProbeResult(probe, "COVID", negative, interval, 0.45, 0.55, p, (900, 1100), (400, 500))


def test_a_shortcut_names_its_pair_and_its_figures() -> None:
    (finding,) = verdicts([_result()])
    assert (finding.severity, finding.check) == ("error", "shortcut_border")
    for part in ("COVID", "Normal", "0.97 (0.96–0.98), n = 2,000", "0.45–0.55", "p = 0.005"):
        assert part in finding.message


def test_significance_and_effect_decide_the_severity() -> None:
    cases = {
        "error": [_result(), _result(auc=0.58, half=0.03), _result(p=ALPHA)],
        "warning": [_result(auc=0.56, half=0.02)],
        "info": [_result(p=ALPHA + 0.005), _result("thumbnail"), _result("histogram")],
    }
    for severity, results in cases.items():
        assert {finding.severity for finding in verdicts(results)} == {severity}


def test_what_holds_the_lung_is_called_so() -> None:
    (finding,) = verdicts([_result("histogram")])
    assert finding.check == "probe_histogram"


def test_findings_are_ranked_by_severity_then_effect() -> None:
    nothing = Interval(np.nan, np.nan, np.nan, 3)
    unknown = ProbeResult("border", "COVID", "rare", nothing, np.nan, np.nan, np.nan, (2, 1), (2, 1))
    results = [
        unknown,
        _result("histogram", 0.99),
        _result(auc=0.56, half=0.02, negative="C"),
        _result(auc=0.7, negative="B"),
        _result(auc=0.9, negative="A"),
    ]
    findings = verdicts(results)
    assert [finding.severity for finding in findings] == ["error", "error", "warning", "info", "info"]
    assert [finding.message.split()[2] for finding in findings] == ["A", "B", "C", "Normal", "rare"]


def test_pairs_of_classes_come_before_one_against_the_rest() -> None:
    found = verdicts([_result(auc=0.99, negative=REST), _result(auc=0.9), _result("thumbnail", negative="Other")])
    assert [finding.severity for finding in found] == ["error", "error", "info"]
    named = [[name for name in ("Normal", REST, "Other") if name in finding.message] for finding in found]
    assert named == [["Normal"], [REST], ["Other"]]
