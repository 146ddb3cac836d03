"""Which images of an archive are taken: by date, modality, kind of object and body part. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from hilum.errors import ConfigError

Item: TypeAlias = Mapping[str, Any]
"""One result of a search, in the DICOM JSON model (PS3.18 F): tag of eight hex digits to its VR and values."""

MODALITIES = ("CR", "DX")
SOP_CLASS, SOP_INSTANCE, MODALITY, BODY_PART = "00080016", "00080018", "00080060", "00180015"
STUDY, SERIES, MODALITIES_IN_STUDY, INSTANCES_IN_SERIES = "0020000D", "0020000E", "00080061", "00201209"

_CR = "1.2.840.10008.5.1.4.1.1.1"
_DX = "1.2.840.10008.5.1.4.1.1.1.1"
_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_CHEST = ("CHEST", "THORAX", "LUNG")  # PS3.16 CID 4, and what devices write: CHEST PA, THORAX AP
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Image(NamedTuple):
    """Where one image lies in the archive: three UIDs."""

    study: str
    series: str
    instance: str


class Skip(NamedTuple):
    """Images that are not taken, and why."""

    reason: str
    images: int = 1


def is_uid(text: str) -> bool:
    """Whether ``text`` may stand in a path: numbers and dots, at most 64 characters (PS3.5 9.1).

    Leading zeros are let pass, since some devices write them.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def first_day(since: str, now: datetime) -> date:
    """The first study date that ``since`` means.

    A study is dated by its day, so hours reach back to the day in which they began: at noon ``24h`` takes all of
    yesterday.

    Args:
        since: A day (``2026-11-01``), or how far back: ``24h``, ``7d``, ``2w``.
        now: The time here.

    Raises:
        ConfigError: It is neither, or lies ahead.
    """
    try:
        if back := re.fullmatch(r"(\d+)([hdw])", since.strip().lower()):
            day = (now - timedelta(**{_UNITS[back[2]]: int(back[1])})).date()
        else:
            day = date.fromisoformat(since.strip())
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"Expected a day or a time span for --since, got {since!r}.", hint="Such as 2026-11-01, 24h, 7d or 2w."
        ) from error
    if day > now.date():
        raise ConfigError(f"Expected a day up to today for --since, got {day}.", hint="Such as 2026-11-01 or 7d.")
    return day


def values(item: Item, tag: str) -> frozenset[str]:
    """The values of an element as text; none where the server gives none."""
    element = item.get(tag)
    found = element.get("Value") if isinstance(element, Mapping) else None
    return frozenset(str(one).strip() for one in found if one is not None) if isinstance(found, list) else frozenset()


def value(item: Item, tag: str) -> str:
    """The one value of an element as text; empty where the server gives none, or several."""
    found = values(item, tag)
    return next(iter(found)) if len(found) == 1 else ""


def why_not_series(series: Item) -> Skip | None:
    """Why a CR or DX series is not taken; None where it is. Many chest radiographs name no body part."""
    part = value(series, BODY_PART).upper()
    if not part or any(word in part for word in _CHEST):
        return None
    count = value(series, INSTANCES_IN_SERIES)
    return Skip("another body part", int(count) if count.isdecimal() else 1)


def why_not_instance(instance: Item) -> Skip | None:
    """Why an instance of such a series is not taken; None where it is, or where its class is not told."""
    kind = value(instance, SOP_CLASS)
    if kind == _DX_FOR_PROCESSING:
        return Skip("for processing, not for presentation")
    return None if kind in (_CR, _DX, "") else Skip("no CR or DX image")
