"""The audit's conclusion in words, derived from its results. No statistic is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hilum.audit.findings import ERASED, PROBE_INPUTS, best_index, judge, model_findings, severity_of, told_apart
from hilum.audit.model_shortcuts import ModelShortcuts, TreatedScore
from hilum.audit.probes import MIN_GROUPS, ProbeResult
from hilum.audit.report import AuditFinding, Conclusion
from hilum.format import bounds, count, number
from hilum.metrics.bootstrap import Interval


def conclude(
    probes: Sequence[ProbeResult],
    model: ModelShortcuts | None,
    findings: Sequence[AuditFinding],
    not_run: Mapping[str, str],
    *,
    has_model: bool,
) -> Conclusion:
    """Return what the results come to, in one to three sentences and as keywords.

    Args:
        probes: The results of run_probes; none where the probes were not run.
        model: The results of audit_model; None where they were not run.
        findings: All findings of the audit.
        not_run: Why a part was not run, as in AuditReport.
        has_model: Whether a model was given.
    """
    data, said = _of_data(probes, not_run)
    leaks, leaked = _of_leaks(findings)
    use, used = _of_model(model, not_run, has_model=has_model, found=data in ("shortcut", "weak_shortcut"))
    seen = next((finding.message for finding in findings if finding.check == "model_seen"), "")
    text = " ".join(part for part in (said, leaked, used, seen) if part)
    return Conclusion.model_validate({"text": text, "data": data, "model": use, "leaks": leaks})


def _of_data(probes: Sequence[ProbeResult], not_run: Mapping[str, str]) -> tuple[str, str]:
    """A value of Conclusion.data, and its sentence."""
    tried = [result for result in probes if result.shortcut]
    measured = [result for result in tried if result.measurable]
    if not measured:
        reason = not_run.get("probes", f"Each class needs images of at least {MIN_GROUPS} patients or groups.")
        return "not_measured", f"Shortcuts in the data were not measured. {reason}"
    for key, severity, words in (
        ("shortcut", "error", "The data offer shortcuts"),
        ("weak_shortcut", "warning", "The data offer weak shortcuts only"),
    ):
        if hits := [result for result in measured if severity_of(result) == severity]:
            best = max(hits, key=lambda result: (result.pairwise, result.probe != "source", result.auc.value))
            source = PROBE_INPUTS.get(best.probe, best.probe)
            return (
                key,
                f"{words}: {told_apart(best)} by {source}, AUROC {_interval(best.auc)}{_of_pairs(hits, measured)}.",
            )
    best = max(measured, key=lambda result: result.auc.value)
    inputs = [PROBE_INPUTS.get(name, name) for name in dict.fromkeys(result.probe for result in measured)]
    left = len(tried) - len(measured)
    missing = f" {count(left)} of {count(len(tried))} comparisons had too few images." if left else ""
    return (
        "none_found",
        f"No shortcut was found: no class could be told from another by {_or(inputs)} better than chance; the largest "
        f"AUROC {_interval(best.auc)}.{missing}",
    )


def _of_pairs(hits: Sequence[ProbeResult], measured: Sequence[ProbeResult]) -> str:
    """How many pairs of classes are concerned, where there is more than one pair."""
    own, every = ({(r.positive, r.negative) for r in results if r.pairwise} for results in (hits, measured))
    return f"; {len(own)} of {len(every)} pairs of classes are affected" if len(every) > 1 and own else ""


def _of_leaks(findings: Sequence[AuditFinding]) -> tuple[int, str]:
    """How many leaks there are, and a sentence where there are any."""
    leaks = [finding for finding in findings if finding.kind == "leak" and finding.severity == "error"]
    names = {"duplicate_across_splits": "copies of an image", "group_across_splits": "images of one patient or group"}
    what = [f"{names.get(leak.check, leak.check)} ({count(leak.count)} files)" for leak in leaks]
    text = (
        f"More than one split holds {' and '.join(what)}: test figures on these splits are too high." if leaks else ""
    )
    return len(leaks), text


def _of_model(
    model: ModelShortcuts | None, not_run: Mapping[str, str], *, has_model: bool, found: bool
) -> tuple[str, str]:
    """A value of Conclusion.model, and its sentence."""
    them = "them" if found else "shortcuts"
    if not has_model:
        return "no_model", f"No model was given, so whether a model uses {them} was not tested."
    if model is None:
        return "not_measured", f"Whether the model uses {them} was not measured. {not_run.get('model', '')}".strip()
    if np.isnan(best_index(model.score(model.headline)).value):
        return "inconclusive", f"Whether the model uses {them} is open: it does no better than a guess."
    severities = {finding.check: finding.severity for finding in model_findings(model)}
    judged = judge(model)
    effect, border = model.background_effect, model.score("border_only")
    reasons = [_without_lungs(model, judged.telling)] if judged.severity != "info" else []
    if "border_alone" in severities:
        reasons.append(f"given the border alone it has {_told(border)}")
    if "background_swap" in severities and effect is not None:
        reasons.append(f"the background of another class costs {_interval(effect, percent=True)} accuracy")
    if "error" in severities.values():
        return "relies_on_them", f"The model relies on what is outside the lungs: {'; '.join(reasons)}."
    if "warning" in severities.values():
        return "may_rely_on_them", f"The model may rely in part on what is outside the lungs: {'; '.join(reasons)}."
    kept = _without_lungs(model, judged.telling)
    if not judged.open:
        return "no_reliance", f"The model makes little or no use of {them}: {kept}."
    return "inconclusive", f"Whether the model uses {them} is open, since {judged.open}: {kept}."


def _without_lungs(model: ModelShortcuts, treatment: str) -> str:
    """What the model still does after one way of erasing the lungs."""
    score = model.score(treatment)
    index, measure = best_index(score), "accuracy"
    if score.index is None or np.isnan(score.index.value):
        measure = "balanced accuracy"
    if index.value > 0:
        kept = f"keeps {_interval(index, percent=True, with_n=False)} of its gain in {measure} over a guess"
    else:
        kept = f"has no more {measure} than a guess, shortcut index {_interval(index, with_n=False)},"
    told = _told(score)
    if score.information_kept is not None and not np.isnan(score.information_kept.value):
        share = _interval(score.information_kept, percent=True, with_n=False)
        told += f", which keep {share} of what they tell of the class"
    return f"with the lungs {ERASED[treatment]} it {kept} and {told}"


def _told(score: TreatedScore) -> str:
    """How well the classes can be told apart by the model, and by its outputs."""
    refit = "" if score.refitted_auc is None else f", refitted to its outputs {_interval(score.refitted_auc)}"
    return f"an AUROC of {_interval(score.auc, with_n=score.refitted_auc is None)}{refit}"


def _interval(auc: Interval, *, percent: bool = False, with_n: bool = True) -> str:
    digits = 0 if percent else 2
    spread = bounds(auc, digits, percent=percent)
    parts = [f"95% CI {spread}"] if spread else []
    parts += [f"n = {count(auc.n)}"] if with_n else []
    value = number(auc.value, digits, percent=percent)
    return f"{value} ({', '.join(parts)})" if parts else value


def _or(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
