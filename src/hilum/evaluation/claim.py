"""Write the CLAIM checklist of an evaluation: what it fills in by itself, and what the author must write.

The items are those of the Checklist for Artificial Intelligence in Medical Imaging, 2024 update (Tejani et al. 2024,
Radiology: Artificial Intelligence 6:e240300), in hilum's own words. What the evaluation knows is in
hilum.evaluation.claim_entries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from hilum.document import write_document
from hilum.evaluation.claim_entries import entries_of
from hilum.evaluation.page import CLAIM_PAGE, PAGE_FILE
from hilum.evaluation.report import Report
from hilum.storage import write_text

CLAIM_TEXT = "claim.md"
SOURCE = (
    "Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 "
    "Update. Radiology: Artificial Intelligence 2024;6(4):e240300. doi:10.1148/ryai.240300."
)


class Item(NamedTuple):
    """One item of the checklist.

    Attributes:
        number: Its number, from 1 to 44.
        topic: Its subject.
        author: What the author writes.
    """

    number: int
    topic: str
    author: str


class Section(NamedTuple):
    """A section of the checklist."""

    title: str
    items: tuple[Item, ...]


SECTIONS = (
    Section("Title and abstract", (
        Item(1, "AI method in the title or abstract", "Name the kind of AI method in the title or abstract."),
        Item(2, "Abstract", "Summarize design, methods, results and conclusions."),
    )),
    Section("Introduction", (
        Item(3, "Background and intended use", "Give the clinical background and the role the model is meant for."),
        Item(4, "Aims", "State aims and hypotheses."),
    )),
    Section("Methods: study design", (
        Item(5, "Prospective or retrospective", "Say whether the images were taken before the study or for it."),
        Item(6, "Goal of the study", "Say what it is: development, feasibility, validation, comparison."),
    )),
    Section("Methods: data", (
        Item(7, "Sources of the data", "Name institutions, dates, links, licenses and the ethics approval."),
        Item(8, "Inclusion and exclusion", "Give the criteria for patients, examinations and images."),
        Item(9, "Preprocessing", "Describe what was done to the images before hilum read them."),
        Item(10, "Selection of parts of the data", "Say whether images, views or regions were selected, and how."),
        Item(11, "De-identification", "Say how identifiers were removed, also those burned into the image."),
        Item(12, "Missing data", "Say why labels or masks are missing, and whether that is related to the outcome."),
        Item(13, "Image acquisition", "Give manufacturers, views and acquisition parameters."),
    )),
    Section("Methods: reference standard", (
        Item(14, "Definition", "Define how each label and each mask was obtained, so that it can be repeated."),
        Item(15, "Reason for the choice", "Say why this reference standard, and what its errors are."),
        Item(16, "Annotators", "Name who annotated, with qualification, training, instructions and tools."),
        Item(17, "Annotation of the test set", "Say how the test set was annotated, if otherwise than the rest."),
        Item(18, "Agreement of the annotators", "Give the agreement between and within annotators."),
    )),
    Section("Methods: partitions", (
        Item(19, "Assignment to partitions", "Give the reason for the sizes; for given partitions, their origin."),
        Item(20, "Level of separation", "Confirm that a group is a patient, or say what it is."),
    )),
    Section("Methods: testing data", (
        Item(21, "Size of the test set", "Say how the size was chosen, such as by a power calculation."),
    )),
    Section("Methods: model", (
        Item(22, "Description of the model", "Cite the architecture; describe what differs from it."),
        Item(23, "Software", "Name the software of the training, where the evaluation ran elsewhere."),
        Item(24, "Initial weights", "Cite the data and the license of pretrained weights."),
    )),
    Section("Methods: training", (
        Item(25, "Training procedure", "Say how settings were chosen; give hardware and duration of training."),
        Item(26, "Selection of the final model", "Say how many runs were tried, and how this one was chosen."),
        Item(27, "Ensembles", "Describe the ensemble, if several models were combined."),
    )),
    Section("Methods: evaluation", (
        Item(28, "Metrics", "Say which metric is primary, and why."),
        Item(29, "Statistics", "Name tests, corrections and the level of significance of every comparison."),
        Item(30, "Robustness", "Report how changes of the images affect the results (see hilum audit)."),
        Item(31, "Explainability", "Say what the maps are used for, and how they were validated."),
        Item(32, "Internal testing", "Say whether the test set was used for any decision before."),
        Item(33, "External testing", "Report results on data of other institutions, or say that there are none."),
        Item(34, "Trial registration", "Give registry and number, if this is a clinical trial."),
    )),
    Section("Results: data", (
        Item(35, "Included and excluded", "Give numbers of patients and examinations, best as a flow diagram."),
        Item(36, "Characteristics of the cases", "Give age, sex, severity and other facts for each partition."),
    )),
    Section("Results: model performance", (
        Item(37, "Performance with uncertainty", "Compare with readers or other models, where the study does so."),
        Item(38, "Diagnostic performance", "Give the operating point that is meant for use, with its reason."),
        Item(39, "Failure analysis", "Describe what the wrong predictions have in common."),
    )),
    Section("Discussion", (
        Item(40, "Limitations", "Discuss bias, uncertainty and generalization beyond these data."),
        Item(41, "Implications", "Say what follows for practice, and what is needed before use."),
    )),
    Section("Other information", (
        Item(42, "Protocol", "Link the protocol, or say that there is none."),
        Item(43, "Availability", "Give links and licenses of code, model and data, or say why there are none."),
        Item(44, "Funding", "Name funding, other support, and the role of the funders."),
    )),
)  # fmt: skip
"""The checklist, in its order."""


def write_claim(report: Report, folder: Path) -> None:
    """Write ``claim.html``, a self-contained page, and ``claim.md``, the same as Markdown tables.

    Args:
        report: The report.
        folder: The folder of report.html.

    Raises:
        OutputError: The folder cannot be written.
    """
    context = claim_context(report)
    write_document(folder / CLAIM_PAGE, "claim.html.j2", context)
    write_text(folder / CLAIM_TEXT, claim_markdown(report))


def claim_context(report: Report) -> dict[str, Any]:
    """Return the variables of the template."""
    entries = entries_of(report)
    every = [item for section in SECTIONS for item in section.items]
    return {
        "kind": "CLAIM 2024 checklist",
        "title": f"{report.model.name}, {report.title}",
        "sections": {_anchor(section): section.title for section in SECTIONS},
        "parts": [
            {
                "anchor": _anchor(section),
                "title": section.title,
                "rows": [{**item._asdict(), "entries": entries.get(item.number, ())} for item in section.items],
            }
            for section in SECTIONS
        ],
        "overlap": report.overlap_sentence if report.contaminated else None,
        "filled": sum(bool(entries.get(item.number)) for item in every),
        "total": len(every),
        "report_page": PAGE_FILE,
        "markdown": CLAIM_TEXT,
        "source": SOURCE,
    }


def claim_markdown(report: Report) -> str:
    """Return the checklist as Markdown, one table per section."""
    entries = entries_of(report)
    lines = [
        f"# CLAIM 2024 checklist: {_cell(report.model.name)}, {report.title}",
        "",
        *([f"**{report.overlap_sentence}**", ""] if report.contaminated else []),
        f"Written by hilum {report.hilum_version}. *From this run* is what the evaluation knows; *for the author* is "
        f"what it cannot know and does not claim. Items, abridged in hilum's own words, after {SOURCE} Check them "
        "against the published table before you submit.",
    ]
    for section in SECTIONS:
        lines += [
            "", f"## {section.title}", "", "| No. | Item | From this run | For the author |", "|---|---|---|---|",
        ]  # fmt: skip
        for item in section.items:
            known = "<br>".join(map(_cell, entries.get(item.number, ()))) or "–"
            lines.append(f"| {item.number} | {item.topic} | {known} | {item.author} |")
    return "\n".join(lines) + "\n"


def _anchor(section: Section) -> str:
    return section.title.lower().replace(": ", "-").replace(" ", "-")


def _cell(text: str) -> str:
    """A text inside a Markdown table: no pipe, no line end, no HTML."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(safe.split())
