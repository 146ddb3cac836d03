"""Fetch images, predict on them and store the results, one at a time. Failed images do not stop the others."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from hilum.dicomweb.archive import find_study, images_of
from hilum.dicomweb.selection import Image, Skip, Study
from hilum.dicomweb.server import Server
from hilum.errors import DataError, RequestError, ServerError
from hilum.inference.dicom_out import Kind, instance_uid, objects_of, source_header
from hilum.inference.predictor import Predictor, Upload
from hilum.inference.result import Prediction, Result
from hilum.progress import Progress

if TYPE_CHECKING:
    from pydicom import Dataset

Status = Literal["ok", "refused", "unreadable", "failed"]

DONE = "done before"
IN_A_ROW = 5
"""Number of consecutive failures that ends the run, since the server itself is then assumed to fail."""

_ATTEMPTS = 3


class Row(NamedTuple):
    """Result of one image. ``stored`` are the kinds of objects in the archive, none if the status is ``failed``."""

    image: Image
    status: Status
    reason: str = ""
    label: str = ""
    probability: float | None = None
    stored: tuple[Kind, ...] = ()


class ToDo(NamedTuple):
    """Number of images of a study that are not processed yet."""

    study: Study
    images: int


@dataclass
class Counts:
    """Number of images by status, predicted label and reason for skipping, and of stored objects by kind."""

    statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    stored: Counter[Kind] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def worked_on(self) -> int:
        """Number of images processed, including failures."""
        return self.statuses.total()


class Worker:
    """Processes the images of studies that have no report of this bundle yet.

    An image is done when its report is in the archive, which is stored last, and so is each of ``more`` that the image
    can have. The UIDs of all are functions of image, bundle and predictor settings, so an interrupted image is
    processed again with the same objects.

    Args:
        server: The archive.
        predictor: The predictor.
        more: Kinds of objects to store in addition to segmentation and report.
    """

    def __init__(self, server: Server, predictor: Predictor, *, more: Sequence[Kind] = ()) -> None:
        self._server, self._predictor, self._more = server, predictor, tuple(more)
        self._failures: Counter[str] = Counter()
        self._handled: set[str] = set()
        self._in_a_row = 0

    def work(
        self,
        studies: Sequence[Study],
        counts: Counts,
        *,
        limit: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> Iterator[Row]:
        """Process the images of studies that are not done yet, in order, and yield a row for each after storing it.

        Args:
            studies: The studies.
            counts: Updated for each image.
            limit: Maximum number of images.
            stopped: Called before each image; processing ends if it returns True.
            progress: Called with (studies done, total studies).

        Raises:
            ServerError: The server cannot be reached, rejects the credentials, or fails IN_A_ROW times.
        """
        rows = 0
        for number, study in enumerate(studies, start=1):
            for image in self._pending(study.uid, counts):
                if stopped() or rows == limit:
                    return
                if image is None:
                    continue
                row = image if isinstance(image, Row) else self._do(image)
                rows += 1
                counts.statuses[row.status] += 1
                counts.stored.update(row.stored)
                if row.label:
                    counts.labels[row.label] += 1
                yield row
                self._note(row)
            if stopped() or rows == limit:
                return
            if progress:
                progress(number, len(studies))

    def to_do(
        self,
        studies: Sequence[Study],
        counts: Counts,
        *,
        limit: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> Iterator[ToDo | Row]:
        """Yield what ``work`` would process, without processing it: a ToDo for each study that has such images.

        A study that cannot be searched yields a failed row. Arguments and errors are those of ``work``; ``counts`` gets
        the status ``to do``.
        """
        left = limit
        for number, study in enumerate(studies, start=1):
            images = 0
            for image in self._pending(study.uid, counts):
                if stopped() or images == left:
                    break
                if isinstance(image, Row):
                    counts.statuses[image.status] += 1
                    yield image
                    self._note(image)
                images += isinstance(image, Image)
            if images:
                counts.statuses["to do"] += images
                known = study if study.date else find_study(self._server, study.uid)
                yield ToDo(known or study, images)
            left = None if left is None else left - images
            if stopped() or left == 0:
                return
            if progress:
                progress(number, len(studies))

    def _pending(self, study: str, counts: Counts) -> Iterator[Image | Row | None]:
        """Yield each image to process, None for one to skip, or a failed row if the study cannot be searched."""
        try:
            images, has_reports = images_of(self._server, study)
            if not images and find_study(self._server, study) is None:
                raise RequestError("There is no such study.")
            for image in images:
                if isinstance(image, Skip):
                    counts.skipped[image.reason] += image.images
                elif self._failures[image.instance] >= _ATTEMPTS:
                    counts.skipped[f"failed {_ATTEMPTS} times"] += 1
                    yield None
                elif has_reports and self._is_done(image):
                    counts.skipped[DONE] += 1
                    yield None
                else:
                    yield image
        except RequestError as error:
            yield Row(Image(study, "", ""), "failed", error.message)

    def _is_done(self, image: Image) -> bool:
        """Return whether the objects of an image are in the archive; one without segmentation was refused."""
        if not self._has(image, "sr"):
            return False
        if not self._more or image.instance in self._handled or all(self._has(image, kind) for kind in self._more):
            return True
        return not self._has(image, "seg")

    def _has(self, image: Image, kind: Kind) -> bool:
        bundle_id, settings = self._predictor.manifest.bundle_id, self._predictor.settings
        return self._server.has(image.study, instance_uid(image.instance, bundle_id, kind, settings))

    def _do(self, image: Image) -> Row:
        try:
            content = self._server.fetch(image)
            with warnings.catch_warnings():  # pydicom's warnings quote values, which may be patient names
                warnings.simplefilter("ignore")
                result = self._predictor.predict(Upload(content, _name(image)))
                objects = self._objects(image, content, result)
                self._server.store(image.study, list(objects.values()))
        except (RequestError, DataError) as error:
            return Row(image, "failed", _unquoted(error.message))
        self._handled.add(image.instance)
        stored = tuple(objects)
        if not isinstance(result, Prediction):
            reason = result.reason if result.status == "refused" else _unquoted(result.reason)
            return Row(image, result.status, reason, stored=stored)
        reason = "; ".join(finding.message for finding in result.findings)
        return Row(image, "ok", reason, result.label, result.probability, stored)

    def _objects(self, image: Image, content: bytes, result: Result) -> Mapping[Kind, Dataset]:
        """Return the objects to store for a result, the report last.

        Raises:
            DataError: No object can be created from the image's header, or the server returned another image.
        """
        manifest, settings = self._predictor.manifest, self._predictor.settings
        header = source_header(content, origin=_name(image))
        if (str(header.StudyInstanceUID), str(header.SOPInstanceUID)) != (image.study, image.instance):
            raise DataError(f"The server returned another image instead of {image.instance}.")
        return objects_of(header, result, manifest, settings, kinds=("seg", "sr", *self._more))

    def _note(self, row: Row) -> None:
        """Count failures, and raise ServerError after IN_A_ROW consecutive ones."""
        if row.status != "failed":
            self._in_a_row = 0
            return
        self._failures[row.image.instance or row.image.study] += 1
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise ServerError(
                f"{IN_A_ROW} consecutive images failed. The last error: {row.reason}",
                hint="Check the server and run the command again; completed work is kept.",
            )


def _name(image: Image) -> str:
    """Return the name of an image in messages, with a suffix, since some archives omit the DICOM preamble."""
    return f"{image.instance}.dcm"


def _unquoted(message: str) -> str:
    """Return a message without the text of a decoder's error, which may quote the file; its type is kept."""
    return re.sub(r" \((\w+): .*\)\.", r" (\1).", message)
