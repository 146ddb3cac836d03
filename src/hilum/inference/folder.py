"""Predict on a list of files and write a table with one row per file, including unreadable and refused files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hilum.errors import ConfigError
from hilum.filesystems import RemoteFolder, is_uri
from hilum.inference.parquet import SHARD_ROWS, require_pyarrow
from hilum.inference.predictor import Predictor
from hilum.inference.result import Result
from hilum.inference.run_manifest import RunManifest, claimed, describe_files
from hilum.inference.saving import Wanted
from hilum.inference.shards import FolderRun, ImageFile

_NOTHING = Wanted()

TableFormat: TypeAlias = Literal["csv", "parquet"]


@dataclass(frozen=True)
class FolderResult:
    """Summary of a folder prediction.

    Attributes:
        table: Path or address of the table: a CSV file, or a folder of Parquet files.
        statuses: Number of images by ``Result.status``.
        labels: Number of predictions by predicted label.
        uncertain: Number of predictions that abstained.
        objects: Number of DICOM objects written by kind (hilum.inference.saving.KIND_NAMES), and under ``none`` the
            number of images that lack a requested one, such as PNG files.
        resumed: Number of images that an earlier run had done.
    """

    table: Path | str
    statuses: Mapping[str, int]
    labels: Mapping[str, int]
    uncertain: int
    objects: Mapping[str, int]
    resumed: int = 0


def predict_folder(
    predictor: Predictor,
    files: Sequence[ImageFile],
    out: Path | str,
    *,
    save: Wanted = _NOTHING,
    table_format: TableFormat = "csv",
    shard_rows: int = SHARD_ROWS,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    on_result: Callable[[ImageFile, Result], None] | None = None,
) -> FolderResult:
    """Predict on every file, write a table and the requested images, and return a summary.

    The columns are ``file, status, predicted_label, prediction_set, abstained, prob_<class>..., lung_fraction,
    evidence_<zone>..., reason``. ``status`` is
    ``ok``, ``refused`` or ``unreadable``; ``prediction_set`` is class names joined by ``;``,
    most probable first; ``abstained`` is 1 for uncertain predictions; ``reason`` joins the messages of the findings.
    ``evidence_<zone>`` is the zone's share of the evidence (Result.evidence_zones), for networks with evidence. With
    ``save.evidence``, the column ``evidence_step`` is the logits per gray level of the evidence PNG.

    During the prediction, rows are appended to ``predictions.partial.csv``, each after the files of its image. A later
    call with the same bundle, settings and files resumes after them, and gives the same bytes as one that was not
    interrupted. Images and DICOM objects keep the folder structure of the inputs.

    Args:
        predictor: The predictor.
        files: The files, such as those of hilum.data.find.find_images.
        out: Output folder, created if it does not exist; or its address on an object store, for Parquet.
        save: Images and DICOM objects to save for each file.
        table_format: ``csv`` for ``predictions.csv``, or ``parquet`` for a folder ``predictions.parquet``, which needs
            pyarrow.
        shard_rows: Rows of each Parquet file.
        overwrite: Delete the table of an earlier prediction in ``out``, and predict on all files.
        progress: Called with (files done, total files), without those that an earlier run did.
        on_result: Called with each file and its result after its row is written; not for files done earlier.

    Raises:
        MissingExtraError: Parquet is requested and pyarrow is not installed; nothing is written.
        ConfigError: Evidence is requested from a network without evidence, CSV on an object store, or less than 1 row
            per shard; nothing is written.
        OutputError: ``out`` has predictions of another bundle, settings or files; or another process writes into it;
            or it cannot be written, or the disk is full; rows written so far are kept.
    """
    save.check(predictor.manifest)
    check_table(table_format, shard_rows, out)
    settings = {"format": "csv"} if table_format == "csv" else {"format": "parquet", "shard_rows": shard_rows}
    with claimed(out, RunManifest.of(predictor, describe_files(files), save, **settings), overwrite=overwrite) as place:
        run = FolderRun(predictor, files, place, save, shard_rows if table_format == "parquet" else None)
        pending = run.count_finished()
        run.resume(pending)
        resumed = run.done
        with closing(run.predict(pending)) as results:  # no thread writes after the folder is unlocked
            for file, result in results:
                if on_result:
                    on_result(file, result)
                if progress:
                    progress(run.done - resumed, len(files) - resumed)
    return summary_of(run, resumed)


def check_table(table_format: TableFormat, shard_rows: int, out: Path | str) -> None:
    """Check that a table can be written.

    Raises:
        MissingExtraError: Parquet is requested and pyarrow is not installed.
        ConfigError: ``shard_rows`` is below 1, or CSV is requested on an object store.
    """
    if shard_rows < 1:
        raise ConfigError(f"Expected at least 1 row per shard, got {shard_rows}.")
    if table_format == "parquet":
        require_pyarrow()
    elif is_uri(out):
        raise ConfigError(f"Cannot append rows to a CSV at '{out}'.", hint="Use --format parquet.")


def summary_of(run: FolderRun, resumed: int) -> FolderResult:
    """Return the summary of a prediction that is complete."""
    tally = run.tally
    table = f"{run.place}/{run.table}" if isinstance(run.place, RemoteFolder) else Path(str(run.place), run.table)
    return FolderResult(table, tally.statuses, tally.labels, tally.uncertain, +tally.objects, resumed)
