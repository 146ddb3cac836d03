"""Find studies in an archive, and the images of a study to predict on."""

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
    STUDY_DATE,
    Image,
    Item,
    Skip,
    Study,
    is_uid,
    value,
    values,
    why_not_instance,
    why_not_series,
)
from hilum.dicomweb.server import Server

_REPORTS = "SR"
_ILL_UID = Skip("invalid UID")


def find_studies(server: Server, since: date | None = None) -> list[Study]:
    """Return all studies with CR or DX images, each once.

    All studies are listed before the first is processed, since storing results may change the order in which a server
    lists them, so that pages would skip some. Modalities are filtered here, since Orthanc 1.10 returns a single page
    when it filters by modality.

    Args:
        server: The archive.
        since: Minimum study date; None for all.

    Raises:
        ServerError: The server cannot be reached, rejects the credentials, or is not a DICOMweb service.
    """
    found: dict[str, Study] = {}
    for item in server.studies({"StudyDate": f"{since:%Y%m%d}-"} if since else {}):
        modalities = values(item, MODALITIES_IN_STUDY)
        if not modalities or not modalities.isdisjoint(MODALITIES):
            found.setdefault(value(item, STUDY), _study(item))
    return [study for study in found.values() if is_uid(study.uid)]


def find_study(server: Server, uid: str) -> Study | None:
    """Return a study, or None if it is not in the archive.

    Raises:
        ServerError: As for find_studies.
    """
    found = (_study(item) for item in server.studies({"StudyInstanceUID": uid}))
    return next((study for study in found if study.uid == uid), None)


def images_of(server: Server, study: str) -> tuple[list[Image | Skip], bool]:
    """Return the CR and DX images of a study or reasons to skip them, and whether it has structured reports.

    Raises:
        ServerError: As for find_studies.
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


def _study(item: Item) -> Study:
    date = value(item, STUDY_DATE)
    return Study(value(item, STUDY), date if date.isdecimal() else "")


def _instances(server: Server, study: str, series: str) -> Iterator[Image | Skip]:
    if not is_uid(series):
        yield _ILL_UID
        return
    for item in server.instances(study, series):
        image = Image(study, series, value(item, SOP_INSTANCE))
        yield why_not_instance(item) or (image if is_uid(image.instance) else _ILL_UID)
