"""The images of one session: encoded files, answers and thumbnails in memory, never a decoded image."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import is_dicom
from hilum.inference.predictor import Upload
from hilum.inference.result import Prediction, Result
from hilum.storage import sha256_bytes
from hilum.types import Finding, Gray, Radiograph

Status: TypeAlias = Literal["waiting", "ok", "unsure", "refused", "unreadable"]
Filter: TypeAlias = Literal["all", "answered", "unsure", "refused"]
Order: TypeAlias = Literal["added", "class", "surest", "least sure"]

_NO_PIXELS = Radiograph(np.zeros((0, 0), np.uint8))
THUMBNAIL_SIDE = 112
"""Longer side of a thumbnail, pixels."""

_STATUSES: dict[Filter, frozenset[Status]] = {
    "all": frozenset({"waiting", "ok", "unsure", "refused", "unreadable"}),
    "answered": frozenset({"ok"}),
    "unsure": frozenset({"unsure"}),
    "refused": frozenset({"refused", "unreadable"}),
}


@dataclass
class Film:
    """One file and what became of it.

    Attributes:
        key: SHA-256 of the content: the same image is never answered twice.
        name: the file's, made distinct within the session.
        content: the file as it came; freed where it cannot be read.
        result: the answer, its mask taken out and packed; None while it waits.
        thumbnail: a PNG, empty where the file cannot be read.
        shape: (H0, W0) of the image, (0, 0) where unknown.
        bits: stored bits of a pixel.
    """

    key: str
    name: str
    content: bytes
    result: Result | None = None
    thumbnail: bytes = b""
    shape: tuple[int, int] = (0, 0)
    bits: int = 0
    _mask: bytes = b""

    @property
    def status(self) -> Status:
        """``unsure`` is a prediction that abstains."""
        if self.result is None:
            return "waiting"
        return "unsure" if self.result.abstained else self.result.status

    @property
    def is_dicom(self) -> bool:
        """Whether it was read as DICOM."""
        return is_dicom(self.content, self.name)

    def settle(self, answer: Result) -> None:
        """Keep an answer, without the decoded image."""
        if answer.radiograph is None:
            self.content = b""
        else:
            self.shape, self.bits = answer.radiograph.shape, answer.radiograph.bits_stored
            self.thumbnail = thumbnail(answer.radiograph)
        self.result = replace(answer, radiograph=None)
        if isinstance(answer, Prediction):
            self._mask = zlib.compress(np.packbits(answer.mask).tobytes(), 1)
            self.result = replace(answer, radiograph=_NO_PIXELS, mask=np.zeros((0, 0), np.bool_))

    def prediction(self) -> Prediction | None:
        """The prediction with its mask (H0, W0), or None."""
        if not isinstance(self.result, Prediction):
            return None
        bits = np.frombuffer(zlib.decompress(self._mask), np.uint8)
        height, width = self.shape
        mask = np.unpackbits(bits, count=height * width).reshape(self.shape).astype(np.bool_)
        return replace(self.result, mask=mask)


class Films:
    """The images of a session, in the order in which they came.

    Args:
        limit: bytes of all their files together; what comes beyond is not kept.
    """

    def __init__(self, limit: int) -> None:
        self._films: dict[str, Film] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._films)

    def __iter__(self) -> Iterator[Film]:
        return iter(tuple(self._films.values()))

    def get(self, key: str | None) -> Film | None:
        """The image of that key, or None."""
        return self._films.get(key or "")

    def add(self, name: str, content: bytes) -> bool:
        """Take a file in, to be answered; False where the same content is there already."""
        key = sha256_bytes(content)
        if key in self._films:
            return False
        film = Film(key, _distinct(name, {film.name for film in self}), content)
        if sum(len(other.content) for other in self) + len(content) > self._limit:
            message = f"This session holds {self._limit:,} bytes of images at most: remove some first."
            film.content = b""
            film.result = Result(
                origin=film.name,
                status="unreadable",
                findings=(Finding("session_full", "error", message, (film.name,)),),
            )
        self._films[key] = film
        return True

    def remove(self, key: str) -> None:
        """Forget one image."""
        self._films.pop(key, None)

    def clear(self) -> None:
        """Forget all images."""
        self._films.clear()

    def waiting(self, most: int | None = None) -> list[Film]:
        """Those without an answer, the first ``most``."""
        return [film for film in self if film.result is None][:most]

    def counts(self) -> dict[Filter, int]:
        """How many images each filter lets pass."""
        found = Counter(film.status for film in self)
        return {name: sum(found[status] for status in statuses) for name, statuses in _STATUSES.items()}

    def shown(self, chosen: Filter = "all", order: Order = "added") -> list[Film]:
        """The images of a filter in an order; images without a prediction come last where the order is by it."""
        films = [film for film in self if film.status in _STATUSES[chosen]]
        if order == "class":
            return sorted(films, key=lambda film: (_is_open(film), _label(film), -_top(film)))
        if order == "added":
            return films
        sign = -1 if order == "surest" else 1
        return sorted(films, key=lambda film: (_is_open(film), sign * _top(film)))


def upload(film: Film, max_pixels: int) -> Upload:
    """The image as the predictor takes it."""
    return Upload(film.content, film.name, max_pixels)


def thumbnail(radiograph: Radiograph, side: int = THUMBNAIL_SIDE) -> bytes:
    """An image as a small gray PNG, its longer side ``side`` pixels at most."""
    height, width = radiograph.shape
    factor = min(1.0, side / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small: Gray = cv2.resize(radiograph.pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    pixels: NDArray[np.uint8] = to_uint8(replace(radiograph, pixels=small))
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _distinct(name: str, taken: set[str]) -> str:
    """The name's last part, with a number where it is taken."""
    plain = PurePath(name.replace("\\", "/")).name or "film"
    path, number, distinct = PurePath(plain), 1, plain
    while distinct in taken:
        number += 1
        distinct = f"{path.stem} ({number}){path.suffix}"
    return distinct


def _is_open(film: Film) -> bool:
    return not isinstance(film.result, Prediction)


def _label(film: Film) -> str:
    return film.result.label if isinstance(film.result, Prediction) else ""


def _top(film: Film) -> float:
    return film.result.probability if isinstance(film.result, Prediction) else 0.0
