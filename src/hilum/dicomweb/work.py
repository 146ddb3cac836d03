"""Images fetched, answered and given back, one at a time; whatever happens to one, the others go on."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from hilum.dicomweb.archive import has_study, images_of
from hilum.dicomweb.selection import Image, Skip
from hilum.dicomweb.server import Server
from hilum.errors import DataError, RequestError, ServerError
from hilum.inference.dicom_out import instance_uid, report, segmentation, source_header
from hilum.inference.predictor import Predictor, Upload
from hilum.inference.result import Prediction, Result
from hilum.progress import Progress

if TYPE_CHECKING:
    from pydicom import Dataset

Status = Literal["ok", "refused", "unreadable", "failed", "to do"]

DONE = "done before"
IN_A_ROW = 5
"""After so many failures one after the other it is the server that fails, and the run ends."""

_ATTEMPTS = 3


class Row(NamedTuple):
    """What became of one image; ``failed`` has nothing in the archive, all others but ``to do`` have."""

    image: Image
    status: Status
    reason: str = ""
    label: str = ""
    probability: float | None = None


@dataclass
class Counts:
    """What became of many images."""

    statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def worked_on(self) -> int:
        """Images that were not there before, or failed."""
        return self.statuses.total()


class Worker:
    """Does the images of studies that have no report of this bundle yet.

    An image is done once its report is in the archive. It is stored together with the segmentation, after it, and
    both have UIDs that follow from image, bundle and the predictor's settings: an image whose storing was cut off is
    done again and gives the same objects, another gate gives others.

    Args:
        server: the archive.
        predictor: answers.
        dry_run: only say which images are to be done.
    """

    def __init__(self, server: Server, predictor: Predictor, *, dry_run: bool = False) -> None:
        self._server, self._predictor, self._dry_run = server, predictor, dry_run
        self._failures: Counter[str] = Counter()
        self._in_a_row = 0

    def work(
        self,
        studies: Sequence[str],
        counts: Counts,
        *,
        limit: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> Iterator[Row]:
        """The images of the studies that are not done yet, in order; each is in the archive when its row comes.

        Args:
            studies: UIDs.
            counts: is added to.
            limit: end after so many images.
            stopped: asked before each image whether to end.
            progress: called with (studies done, studies in all).

        Raises:
            ServerError: the server cannot be reached any more, rejects the credentials, or fails IN_A_ROW times.
        """
        rows = 0
        for number, study in enumerate(studies, start=1):
            for image in self._pending(study, counts):
                if stopped() or rows == limit:
                    return
                if image is None:
                    continue
                row = image if isinstance(image, Row) else self._do(image)
                rows += 1
                counts.statuses[row.status] += 1
                if row.label:
                    counts.labels[row.label] += 1
                yield row
                self._note(row)
            if stopped() or rows == limit:
                return
            if progress:
                progress(number, len(studies))

    def _pending(self, study: str, counts: Counts) -> Iterator[Image | Row | None]:
        """Yield each image to process, None for one to leave alone, a row where the study cannot be searched."""
        try:
            images, has_reports = images_of(self._server, study)
            if not images and not has_study(self._server, study):
                raise RequestError("there is no such study")
            for image in images:
                if isinstance(image, Skip):
                    counts.skipped[image.reason] += image.images
                elif self._failures[image.instance] >= _ATTEMPTS:
                    counts.skipped[f"failed {_ATTEMPTS} times"] += 1
                    yield None
                elif has_reports and self._server.has(study, self._report_of(image)):
                    counts.skipped[DONE] += 1
                    yield None
                else:
                    yield image
        except RequestError as error:
            yield Row(Image(study, "", ""), "failed", error.message)

    def _report_of(self, image: Image) -> str:
        return instance_uid(image.instance, self._predictor.manifest.bundle_id, "sr", self._predictor.settings)

    def _do(self, image: Image) -> Row:
        if self._dry_run:
            return Row(image, "to do")
        try:
            content = self._server.fetch(image)
            with warnings.catch_warnings():  # pydicom quotes ill values: a patient's name would be shown
                warnings.simplefilter("ignore")
                result = self._predictor.predict(Upload(content, _name(image)))
                objects = self._objects(image, content, result)
                self._server.store(image.study, objects)
        except (RequestError, DataError) as error:
            return Row(image, "failed", _unquoted(error.message))
        if not isinstance(result, Prediction):
            reason = result.reason if result.status == "refused" else _unquoted(result.reason)
            return Row(image, result.status, reason)
        reason = "; ".join(finding.message for finding in result.findings)
        return Row(image, "ok", reason, result.label, result.probability)

    def _objects(self, image: Image, content: bytes, result: Result) -> list[Dataset]:
        """What is stored of an answer, the report last.

        Raises:
            DataError: no object can be made of the image's header, or it is another image's.
        """
        manifest, settings = self._predictor.manifest, self._predictor.settings
        header = source_header(content, origin=_name(image))
        if (str(header.StudyInstanceUID), str(header.SOPInstanceUID)) != (image.study, image.instance):
            raise DataError(f"Expected the image {image.instance}, the server gave one of other UIDs.")
        objects = [segmentation(header, result, manifest, settings)] if isinstance(result, Prediction) else []
        return [*objects, report(header, result, manifest, settings)]

    def _note(self, row: Row) -> None:
        """Count failures; raise when it is no longer an image that fails but the server."""
        if row.status != "failed":
            self._in_a_row = 0
            return
        self._failures[row.image.instance or row.image.study] += 1
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise ServerError(
                f"Expected images to be fetched and stored, {IN_A_ROW} failed in a row; the last: {row.reason}",
                hint="See to the server, then run the command again: it goes on where it stopped.",
            )


def _name(image: Image) -> str:
    """What an image is called in messages. The suffix says what it is: some archives leave the preamble out."""
    return f"{image.instance}.dcm"


def _unquoted(message: str) -> str:
    """A message without what a decoder said, of which only the error's type is kept: some quote the file's bytes."""
    return re.sub(r" \((\w+): .*\)\.", r" (\1).", message)
