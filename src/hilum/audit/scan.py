"""Read every image once, and keep what the audit of the data needs of it: its digest, its fingerprint, its features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.audit.differences import MeanImages, view
from hilum.audit.features import IMAGE_PROBES, FileFacts, file_facts, image_features
from hilum.backends.base import Backend
from hilum.config import PreprocessSpec
from hilum.data.fingerprint import Fingerprint, Prints, fingerprint, stack
from hilum.data.integrity import ASPECT_TOLERANCE, gather
from hilum.errors import DataError, ReadError
from hilum.imaging.preprocess import fit_image, restore_probability, to_input, to_uint8
from hilum.imaging.read import read_mask, read_radiograph
from hilum.progress import Progress
from hilum.storage import sha256_bytes
from hilum.types import Finding, Radiograph, Record

LungFinder = Callable[[Sequence[Radiograph]], list[NDArray[np.bool_]]]
"""From images to their lung masks, (H, W) bool each."""

_CHUNK = 32
_READERS = 2


@dataclass(frozen=True)
class Scan:
    """The M readable images out of N records.

    Attributes:
        rows: (M,) int64, their places among the records.
        records: Those M, without the masks that cannot be used.
        sha256: M digests of the files' bytes.
        prints: Fingerprints, for finding duplicates.
        features: Probe to (M, F) float32; rows of NaN where an image has no lung mask.
        means: Sums of the images of each class.
        findings: Files that could not be read, and masks that were not used.
    """

    rows: NDArray[np.int64]
    records: tuple[Record, ...]
    sha256: tuple[str, ...]
    prints: Prints
    features: dict[str, NDArray[np.float32]]
    means: MeanImages
    findings: tuple[Finding, ...]


class _Image(NamedTuple):
    row: int
    sha256: str
    radiograph: Radiograph
    facts: FileFacts
    print: Fingerprint
    view: NDArray[np.uint8]  # (SIDE, SIDE)
    lung: NDArray[np.bool_] | None
    no_lung: str = ""  # why a mask that is named is not used


def scan(
    records: Sequence[Record],
    names: Sequence[str],
    *,
    find_lungs: LungFinder | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Read every record and compute its features; images and masks that cannot be read become findings.

    Args:
        records: N records.
        names: N names for messages.
        find_lungs: Finds the lungs of all images. Without it the reference masks are used, and an image without one
            has no features outside the lung.
        progress: Called with (records done, records in all).

    Raises:
        DataError: No record can be read.
    """
    rows: list[int] = []
    readable: list[Record] = []
    digests: list[str] = []
    prints: list[Fingerprint] = []
    features: dict[str, list[NDArray[np.float32]]] = {name: [] for name in IMAGE_PROBES}
    unreadable: list[tuple[str, str]] = []
    maskless: list[tuple[str, str]] = []
    means = MeanImages()
    done = 0
    with ThreadPoolExecutor(_READERS) as pool:
        for chunk in _chunks(range(len(records))):
            images = []
            for row, answer in zip(chunk, pool.map(lambda row: _read(records[row], row), chunk), strict=True):
                if isinstance(answer, ReadError):
                    unreadable.append((names[row], str(answer)))
                else:
                    images.append(answer)
                    readable.append(replace(records[row], mask_path=None) if answer.no_lung else records[row])
                    maskless += [(names[row], answer.no_lung)] if answer.no_lung else []
            for image, measured in zip(images, pool.map(_measure, _with_lungs(images, find_lungs)), strict=True):
                rows.append(image.row)
                digests.append(image.sha256)
                prints.append(image.print)
                label = records[image.row].label
                if label is not None:
                    means.add(label, image.view)
                for name, vector in measured.items():
                    features[name].append(vector)
            done += len(chunk)
            if progress:
                progress(done, len(records))
    if not rows:
        raise DataError(f"None of the {len(records):,} images can be read.", hint=unreadable[0][1])
    return Scan(
        np.array(rows, np.int64),
        tuple(readable),
        tuple(digests),
        stack(prints),
        {name: np.stack(vectors) for name, vectors in features.items()},
        means,
        _findings(unreadable, maskless),
    )


def lung_finder(backend: Backend, spec: PreprocessSpec, threshold: float) -> LungFinder:
    """Return a finder of the lungs as a network segments them, at each image's own size."""

    def find(images: Sequence[Radiograph]) -> list[NDArray[np.bool_]]:
        output = backend.run(to_input(np.stack([fit_image(image, spec) for image in images]), spec))
        maps = zip(output.segmentation[:, 0], images, strict=True)
        return [
            restore_probability(lung, image.square_shape, spec, size=image.shape) > threshold for lung, image in maps
        ]

    return find


def _findings(unreadable: list[tuple[str, str]], maskless: list[tuple[str, str]]) -> tuple[Finding, ...]:
    findings = []
    if unreadable:
        findings.append(gather("unreadable", "error", unreadable, "files cannot be read"))
    if maskless:
        findings.append(gather("unusable_mask", "warning", maskless, "images have a mask that is not used"))
    return tuple(findings)


def _chunks(rows: range) -> Iterator[list[int]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


def _read(record: Record, row: int) -> _Image | ReadError:
    try:
        content = _content(record.image_path)
        radiograph = read_radiograph(content, origin=str(record.image_path))
    except ReadError as error:
        return error
    lung, problem = _lung(record.mask_path, radiograph.shape)
    gray = to_uint8(radiograph)
    return _Image(
        row, sha256_bytes(content), radiograph, file_facts(content), fingerprint(gray), view(gray), lung, problem
    )


def _lung(path: Path | None, shape: tuple[int, int]) -> tuple[NDArray[np.bool_] | None, str]:
    """The mask at its own size, which may differ from the image's; else None and, where one is named, why."""
    if path is None:
        return None, ""
    try:
        lung = read_mask(path)
    except ReadError as error:
        return None, error.message.rstrip(".")
    height, width = lung.shape
    if abs(width * shape[0] / (height * shape[1]) - 1) > ASPECT_TOLERANCE:
        return None, f"mask {width} x {height}, image {shape[1]} x {shape[0]}"
    return (lung, "") if lung.any() else (None, "the mask is empty")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReadError(f"'{path}' cannot be read: {error.strerror}.") from error


def _with_lungs(images: Sequence[_Image], find_lungs: LungFinder | None) -> list[_Image]:
    """Use one kind of mask for all images: reference masks for some and predicted ones for others would differ."""
    if find_lungs is None or not images:
        return list(images)
    found = find_lungs([image.radiograph for image in images])
    return [image._replace(lung=lung) for image, lung in zip(images, found, strict=True)]


def _measure(image: _Image) -> dict[str, NDArray[np.float32]]:
    return image_features(image.radiograph, image.facts, image.lung)
