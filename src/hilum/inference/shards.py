"""A prediction into an output folder: its shards, which of them are done, and the loop that writes the others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

from hilum.data.find import PARQUET_TABLE, PARTIAL, TABLE
from hilum.errors import OutputError
from hilum.filesystems import LocalFolder, OutputFolder, RemoteFile
from hilum.inference.journal import Journal, Kept, MemoryJournal, whole_rows
from hilum.inference.parquet import parquet_bytes, shard_name, shard_rows_of, table_of_csv
from hilum.inference.predictor import Predictor, Source
from hilum.inference.result import Result
from hilum.inference.run_manifest import START_OVER
from hilum.inference.saving import Wanted, files_of, make_extras
from hilum.inference.table import Tally, image_names, objects_on_disk, table_header, table_row
from hilum.storage import csv_text

ImageFile: TypeAlias = Path | RemoteFile


class Saved(NamedTuple):
    """What was made of an image beside its row.

    Attributes:
        evidence_step: Cell of the column ``evidence_step``.
        remark: Text to append to the reason.
        objects: Kinds of DICOM objects.
        images: Content of the files that were kept instead of written, by folder.
    """

    evidence_step: float | str = ""
    remark: str = ""
    objects: tuple[str, ...] = ()
    images: Mapping[str, bytes] = {}


def save_result(
    file: Source, result: Result, *, predictor: Predictor, names: Mapping[ImageFile, str], save: Wanted,
    write: Callable[[str, bytes], None] | None,
) -> Saved:  # fmt: skip
    """Write the files of one result with ``write``, or keep their contents if it is None."""
    if not isinstance(file, (Path, RemoteFile)) or not save.folders:
        return Saved()
    extras = make_extras(file, result, predictor, save)
    images = {}
    for path, content in files_of(extras, result, names.get(file, ""), save):
        if write is None:
            images[path.partition("/")[0]] = content
        else:
            write(path, content)
    return Saved(extras.evidence_step, extras.remark, tuple(extras.objects), images)


def row_of(file: ImageFile, result: Result, saved: Saved, predictor: Predictor, save: Wanted) -> list[object]:
    """Return one image's row of the table."""
    steps = [saved.evidence_step] if save.evidence else []
    return table_row(str(file), result, predictor.manifest, steps, saved.remark)


@dataclass
class FolderRun:
    """A prediction into a folder that no other process writes to.

    Attributes:
        predictor: The predictor.
        files: All files.
        place: The folder.
        save: Images and DICOM objects to save.
        shard_rows: Rows of a Parquet shard; None for CSV.
        done: Number of files whose row is written.
        tally: Counts over their rows.
    """

    predictor: Predictor
    files: Sequence[ImageFile]
    place: OutputFolder
    save: Wanted
    shard_rows: int | None
    done: int = 0
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.names = image_names(self.files) if self.save.folders else {}
        self.header = table_header(self.predictor.manifest, with_step=self.save.evidence)
        self.table = TABLE if self.shard_rows is None else PARQUET_TABLE
        self._journal: Journal | MemoryJournal = MemoryJournal(self.header)
        if isinstance(self.place, LocalFolder):
            self._journal = Journal(self.place.path / PARTIAL, self.header)
        self._in_journal = 0

    @property
    def shards(self) -> list[range]:
        """Positions of the files in each shard; one without files has an empty shard."""
        total = len(self.files)
        size = self.shard_rows or max(total, 1)
        return [range(start, min(start + size, total)) for start in range(0, max(total, 1), size)]

    def name_of(self, shard: range) -> str:
        """Return the name of a shard's file, relative to the folder."""
        if self.shard_rows is None:
            return TABLE
        return f"{PARQUET_TABLE}/{shard_name(shard.start // self.shard_rows)}"

    def count_finished(self) -> list[range]:
        """Count the rows of the shards that are done, and return the others.

        Raises:
            OutputError: A shard does not have its rows.
        """
        found = {TABLE} if self.shard_rows is None and self.place.read(TABLE) is not None else set()
        if self.shard_rows is not None:
            found = {f"{PARQUET_TABLE}/{name}" for name in self.place.names(PARQUET_TABLE)}
        pending = []
        for shard in self.shards:
            if self.name_of(shard) in found:
                self._count(shard)
            else:
                pending.append(shard)
        return pending

    def resume(self, pending: Sequence[range]) -> None:
        """Count the rows of the first pending shard that a process left, and drop those that are incomplete."""
        if not pending:
            self._journal.remove()
            return
        first = pending[0]
        files = self.files[first.start : first.stop]
        self._in_journal = self._journal.resume(files, first.start, self.predictor.stride, self._count_row)
        self.done += self._in_journal

    def predict(self, pending: Sequence[range]) -> Generator[tuple[ImageFile, Result], None, None]:
        """Predict on the files of the pending shards that are not done, and yield each with its result."""
        left = [range(shard.start + (self._in_journal if shard is pending[0] else 0), shard.stop) for shard in pending]
        work = partial(save_result, predictor=self.predictor, names=self.names, save=self.save, write=self.place.write)
        sources = (self.files[index] for index in chain(*left))
        pairs = self.predictor.process(sources, work, total=len(self.files))
        with closing(self._journal), closing(pairs):
            for shard, rest in zip(pending, left, strict=True):
                for index in rest:
                    result, saved = next(pairs)
                    self._write(self.files[index], result, saved)
                    yield self.files[index], result
                self._finish(shard, last=shard is pending[-1])

    def _write(self, file: ImageFile, result: Result, saved: Saved) -> None:
        self._journal.append(row_of(file, result, saved, self.predictor, self.save))
        objects = [*saved.objects, *(["none"] if saved.remark else [])]
        self.tally.add(result.status, result.label, bool(result.abstained), objects)
        self.done += 1

    def _finish(self, shard: range, *, last: bool) -> None:
        """Make a shard of the rows in the journal, all of which are written."""
        if self.shard_rows is None:
            assert isinstance(self._journal, Journal)
            assert isinstance(self.place, LocalFolder)
            self._journal.become(self.place.path / TABLE)
            return
        self.place.write(self.name_of(shard), parquet_bytes(table_of_csv(self._journal.content())))
        if last:
            self._journal.remove()
        else:
            self._journal.restart()

    def _count(self, shard: range) -> None:
        """Count the rows of a shard that is done."""
        name, before = self.name_of(shard), self.done
        content = self.place.read(name) or b""
        files = self.files[shard.start : shard.stop]
        if self.shard_rows is None:
            for row in whole_rows(BytesIO(content), self.header, files):
                self._count_row(row)
                self.done += 1
        else:
            for file, (status, label, abstained, reason) in zip(files, shard_rows_of(content, name), strict=False):
                self._add(file, status, label, abstained, reason)
                self.done += 1
        if self.done - before != len(shard):
            raise OutputError(
                f"'{name}' in '{self.place}' does not have the {len(shard):,} rows of its images.",
                hint=START_OVER,
            )

    def _count_row(self, row: Kept) -> None:
        _, status, label, _, abstained, *_, reason = row.cells
        self._add(row.file, status, csv_text(label), abstained == "1", reason)

    def _add(self, file: ImageFile, status: str, label: str | None, abstained: bool, reason: str) -> None:
        out = self.place.path if isinstance(self.place, LocalFolder) else None
        objects = [] if out is None else objects_on_disk(out, self.names.get(file), reason, self.save)
        self.tally.add(status, label, abstained, objects)


def rows_of(
    results: Iterable[tuple[ImageFile, tuple[Result, Saved]]], header: Sequence[str], predictor: Predictor, save: Wanted
) -> tuple[bytes, list[Mapping[str, bytes]]]:
    """Return results as the content of a CSV table, and the images that were kept for each.

    Args:
        results: Files with what hilum.inference.predictor.Predictor.process yields for them.
        header: The columns.
        predictor: The predictor.
        save: Images and DICOM objects to save.
    """
    journal, images = MemoryJournal(header), []
    for file, (result, saved) in results:
        journal.append(row_of(file, result, saved, predictor, save))
        images.append(saved.images)
    return journal.content(), images
