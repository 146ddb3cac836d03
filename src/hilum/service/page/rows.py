"""What the list says of each image, and of the session."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from hilum.inference.legend import percent
from hilum.inference.result import Prediction
from hilum.service.page.films import Film, Films


def film_row(film: Film) -> dict[str, Any]:
    """One image as the list shows it, for JSON."""
    row: dict[str, Any] = {"key": film.key, "name": film.name, "status": film.status, "thumbnail": _picture(film)}
    result = film.result
    if isinstance(result, Prediction):
        top = result.probability
        others = [name for name in result.prediction_set if name != result.label]
        row |= {"label": result.label, "probability": top, "percent": percent(top), "others": others}
    elif result is not None:
        row["reason"] = result.reason
    return row


def film_rows(films: Sequence[Film]) -> list[dict[str, Any]]:
    """The rows of some images, in order."""
    return [film_row(film) for film in films]


def progress(films: Films) -> dict[str, int]:
    """How many images are answered, of how many."""
    waiting = len(films.waiting())
    return {"done": len(films) - waiting, "all": len(films)}


def _picture(film: Film) -> str:
    return f"data:image/png;base64,{base64.b64encode(film.thumbnail).decode()}" if film.thumbnail else ""
