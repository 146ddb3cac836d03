"""Select images of an archive by date, modality, SOP class and body part. No requests are made here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from hilum.errors import ConfigError
from hilum.gate.declared import is_chest

Item: TypeAlias = Mapping[str, Any]
"""One search result in the DICOM JSON model (PS3.18 F): tag of eight hexadecimal digits to VR and values."""

MODALITIES = ("CR", "DX")
SOP_CLASS, SOP_INSTANCE, MODALITY, BODY_PART = "00080016", "00080018", "00080060", "00180015"
STUDY, SERIES, MODALITIES_IN_STUDY, INSTANCES_IN_SERIES = "0020000D", "0020000E", "00080061", "00201209"
STUDY_DATE = "00080020"

_CR = "1.2.840.10008.5.1.4.1.1.1"
_DX = "1.2.840.10008.5.1.4.1.1.1.1"
_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Study(NamedTuple):
    """UID of a study in the archive, and its date, YYYYMMDD; empty if unknown."""

    uid: str
    date: str = ""


class Image(NamedTuple):
    """UIDs of an image in the archive."""

    study: str
    series: str
    instance: str


class Skip(NamedTuple):
    """Images to skip, and the reason."""

    reason: str
    images: int = 1


def is_uid(text: str) -> bool:
    """Return whether text is a UID: digits and dots, at most 64 characters (PS3.5 9.1).

    Leading zeros are accepted, since some devices write them.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def first_day(since: str, now: datetime) -> date:
    """Return the first study date of a time span.

    Studies have a date only, so that ``24h`` includes all of yesterday.

    Args:
        since: A date (``2026-11-01``), or a span before now: ``24h``, ``7d``, ``2w``.
        now: The local time.

    Raises:
        ConfigError: The text is neither, or the date is in the future.
    """
    try:
        if back := re.fullmatch(r"(\d+)([hdw])", since.strip().lower()):
            day = (now - timedelta(**{_UNITS[back[2]]: int(back[1])})).date()
        else:
            day = date.fromisoformat(since.strip())
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"--since takes a date or a time span, got {since!r}.", hint="For example: 2026-11-01, 24h, 7d or 2w."
        ) from error
    if day > now.date():
        raise ConfigError(f"--since is in the future: {day}.", hint="For example: 2026-11-01 or 7d.")
    return day


def values(item: Item, tag: str) -> frozenset[str]:
    """Return the values of an element as text; empty if there are none."""
    element = item.get(tag)
    found = element.get("Value") if isinstance(element, Mapping) else None
    return frozenset(str(one).strip() for one in found if one is not None) if isinstance(found, list) else frozenset()


def value(item: Item, tag: str) -> str:
    """Return the single value of an element as text; empty if there is none, or several."""
    found = values(item, tag)
    return next(iter(found)) if len(found) == 1 else ""


def why_not_series(series: Item) -> Skip | None:
    """Return the reason to skip a CR or DX series, or None. A missing body part is accepted, since it is common."""
    if is_chest(value(series, BODY_PART)):
        return None
    count = value(series, INSTANCES_IN_SERIES)
    return Skip("another body part", int(count) if count.isdecimal() else 1)


def why_not_instance(instance: Item) -> Skip | None:
    """Return the reason to skip an instance of a CR or DX series, or None. An unknown SOP class is accepted."""
    kind = value(instance, SOP_CLASS)
    if kind == _DX_FOR_PROCESSING:
        return Skip("for processing, not for presentation")
    return None if kind in (_CR, _DX, "") else Skip("not a CR or DX image")
