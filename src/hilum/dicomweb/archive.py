"""What there is in an archive: studies with images, and the images of a study that are taken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from hilum.dicomweb.selection import (
    MODALITIES,
    MODALITIES_IN_STUDY,
    MODALITY,
    SERIES,
    SOP_INSTANCE,
    STUDY,
    Image,
    Skip,
    is_uid,
    value,
    values,
    why_not_instance,
    why_not_series,
)
from hilum.dicomweb.server import Server

_REPORTS = "SR"
_ILL_UID = Skip("a UID that is none")


def find_studies(server: Server, since: date | None = None) -> list[str]:
    """The UIDs of all studies with CR or DX images, each once; of ``since`` or later, by the study's date.

    All are asked for before the first is worked on: what is stored in between may change the order in which a
    server lists them, and pages would then leave some out. 100,000 UIDs take some 15 MB. The modality is looked at
    here: where it is asked for, Orthanc 1.10 gives no second page.

    Raises:
        ServerError: The server cannot be reached, rejects the credentials, or is no DICOMweb service.
    """
    found: dict[str, None] = {}
    for item in server.studies({"StudyDate": f"{since:%Y%m%d}-"} if since else {}):
        modalities = values(item, MODALITIES_IN_STUDY)
        if not modalities or not modalities.isdisjoint(MODALITIES):
            found.setdefault(value(item, STUDY))
    return [study for study in found if is_uid(study)]


def has_study(server: Server, study: str) -> bool:
    """Whether a study is in the archive.

    Raises:
        ServerError: As find_studies.
    """
    return any(value(item, STUDY) == study for item in server.studies({"StudyInstanceUID": study}))


def images_of(server: Server, study: str) -> tuple[list[Image | Skip], bool]:
    """The CR and DX images of a study, or why they are not taken; and whether it holds any structured report.

    Raises:
        ServerError: As find_studies.
    """
    images: list[Image | Skip] = []
    has_reports = False
    for series in server.series(study, fields=("BodyPartExamined",)):
        modality = value(series, MODALITY).upper()
        has_reports = has_reports or modality == _REPORTS
        if modality in MODALITIES:
            skip = why_not_series(series)
            images.extend([skip] if skip else _instances(server, study, value(series, SERIES)))
    return images, has_reports


def _instances(server: Server, study: str, series: str) -> Iterator[Image | Skip]:
    if not is_uid(series):
        yield _ILL_UID
        return
    for item in server.instances(study, series):
        image = Image(study, series, value(item, SOP_INSTANCE))
        yield why_not_instance(item) or (image if is_uid(image.instance) else _ILL_UID)
