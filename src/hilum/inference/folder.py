"""Predict on a list of files and write a table with one row per file, including unreadable and refused files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import Literal, NamedTuple, TextIO, TypeAlias

from hilum.bundle.bundle import Manifest
from hilum.data.find import PARQUET_TABLE, PARTIAL, TABLE, absolute_path
from hilum.errors import OutputError
from hilum.imaging.read import IMAGE_SUFFIXES
from hilum.inference.parquet import require_pyarrow, to_parquet
from hilum.inference.predictor import Predictor, Source
from hilum.inference.result import Prediction, Result
from hilum.inference.saving import Wanted, make_extras, write_extras
from hilum.inference.zones import OUTSIDE, ZONES
from hilum.storage import CsvWriter, sha256_bytes

_NOTHING = Wanted()
_LONGEST_STEM = 240
"""Maximum length of a file name in bytes, which leaves room for ``.seg.dcm``."""

TableFormat: TypeAlias = Literal["csv", "parquet"]
_TABLE_NAMES = (TABLE, PARQUET_TABLE)


@dataclass(frozen=True)
class FolderResult:
    """Summary of a folder prediction.

    Attributes:
        table: Path of the table.
        statuses: Number of images by ``Result.status``.
        labels: Number of predictions by predicted label.
        uncertain: Number of predictions that abstained.
        objects: Number of DICOM objects written by kind (hilum.inference.saving.KIND_NAMES), and under ``none`` the
            number of images that lack a requested one, such as PNG files.
    """

    table: Path
    statuses: Mapping[str, int]
    labels: Mapping[str, int]
    uncertain: int
    objects: Mapping[str, int]


def predict_folder(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    *,
    save: Wanted = _NOTHING,
    table_format: TableFormat = "csv",
    progress: Callable[[int, int], None] | None = None,
    on_result: Callable[[Path, Result], None] | None = None,
) -> FolderResult:
    """Predict on every file, write ``predictions.csv`` and the requested images, and return a summary.

    The columns are ``file, status, predicted_label, prediction_set, abstained, prob_<class>..., lung_fraction,
    evidence_<zone>..., reason``. ``status`` is
    ``ok``, ``refused`` or ``unreadable``; ``prediction_set`` is class names joined by ``;``,
    most probable first; ``abstained`` is 1 for uncertain predictions; ``reason`` joins the messages of the findings.
    ``evidence_<zone>`` is the zone's share of the evidence (Result.evidence_zones), for networks with evidence. With
    ``save.evidence``, the column ``evidence_step`` is the logits per gray level of the evidence PNG.

    During the prediction, the table is ``predictions.partial.csv``; it is renamed when complete, so an interrupted run
    leaves the rows done so far. Images and DICOM objects keep the folder structure of the inputs.

    Args:
        predictor: The predictor.
        files: The files, such as those of hilum.data.find.find_images.
        out: Output folder; created if it does not exist.
        save: Images and DICOM objects to save for each file.
        table_format: ``csv`` or ``parquet``; the latter needs pyarrow.
        progress: Called with (files done, total files).
        on_result: Called with each file and its result after its row is written.

    Raises:
        MissingExtraError: Parquet is requested and pyarrow is not installed; nothing is written.
        ConfigError: Evidence is requested from a network without evidence; nothing is written.
        OutputError: ``out`` cannot be written, or the disk is full; rows written so far are kept.
    """
    manifest = predictor.manifest
    save.check(manifest)
    if table_format == "parquet":
        require_pyarrow()
    statuses, labels, objects = Counter[str](), Counter[str](), Counter[str]()
    uncertain = 0
    names = image_names(files) if save.folders else {}
    partial = out / PARTIAL
    with _opened(partial) as stream:
        writer = CsvWriter(stream)
        with _writing(partial):
            writer.write_row(table_header(manifest, with_step=save.evidence))
        pairs = predictor.process(files, partial_of(_save, predictor=predictor, names=names, out=out, save=save))
        for done, (file, (result, saved)) in enumerate(zip(files, pairs, strict=True), start=1):
            steps = [saved.evidence_step] if save.evidence else []
            with _writing(partial):
                writer.write_row(table_row(file, result, manifest, steps, saved.remark))
                stream.flush()
            if saved.error is not None:
                raise saved.error
            statuses[result.status] += 1
            if result.label is not None:
                labels[result.label] += 1
            uncertain += bool(result.abstained)
            objects.update([*saved.objects, *(["none"] if saved.remark else [])])
            if on_result:
                on_result(file, result)
            if progress:
                progress(done, len(files))
        with _writing(partial):
            os.fsync(stream.fileno())
    table, other = (out / name for name in (_TABLE_NAMES if table_format == "csv" else _TABLE_NAMES[::-1]))
    with _writing(table):
        if table_format == "parquet":
            to_parquet(partial, table)
            partial.unlink()
        else:
            partial.replace(table)
        other.unlink(missing_ok=True)  # of an earlier prediction into this folder
    return FolderResult(table, statuses, labels, uncertain, objects)


class _Saved(NamedTuple):
    """What was saved of an image: its columns, the kinds of DICOM objects, and the error that ended the saving."""

    evidence_step: float | str = ""
    remark: str = ""
    objects: tuple[str, ...] = ()
    error: OutputError | None = None


def _save(
    file: Source, result: Result, predictor: Predictor, names: Mapping[Path, Path], out: Path, save: Wanted
) -> _Saved:
    """Write the files of one result. An error is returned, so that its row can be written before it is raised."""
    if not isinstance(file, Path) or not save.folders:
        return _Saved()
    extras = make_extras(file, result, predictor, save)
    saved = _Saved(extras.evidence_step, extras.remark, tuple(extras.objects))
    try:
        write_extras(extras, result, out, names[file], save)
    except OutputError as error:
        return saved._replace(error=error)
    return saved


def image_names(files: Sequence[Path]) -> dict[Path, Path]:
    """Return the relative path of the output images of each file: its path below the common folder, as ``.png``.

    The original suffix is kept (``image.dcm.png``) if two files would otherwise have the same name. The end of a name
    that is too long is replaced by a digest.
    """
    if not files:
        return {}
    absolute = {file: absolute_path(file) for file in files}
    parents = [path.parent for path in absolute.values()]
    common = next(
        folder for folder in (parents[0], *parents[0].parents) if all(p.is_relative_to(folder) for p in parents)
    )
    whole = {file: _with_png(path.relative_to(common), path.name) for file, path in absolute.items()}
    plain = {
        file: _with_png(path.relative_to(common), path.stem) if path.suffix.lower() in IMAGE_SUFFIXES else whole[file]
        for file, path in absolute.items()
    }
    taken = Counter(plain.values())
    names = {file: name if taken[name] == 1 else whole[file] for file, name in plain.items()}
    return names if len({*names.values()}) == len(names) else whole


def _with_png(path: Path, stem: str) -> Path:
    encoded = os.fsencode(stem)
    if len(encoded) > _LONGEST_STEM:
        stem = f"{encoded[: _LONGEST_STEM - 17].decode('utf-8', 'ignore')}-{sha256_bytes(encoded)[:16]}"
    return path.with_name(f"{stem}.png")


def table_header(manifest: Manifest, *, with_step: bool = False) -> list[str]:
    """Return the columns of ``predictions.csv``.

    Args:
        manifest: Manifest of the bundle that predicts.
        with_step: Add the column ``evidence_step``.
    """
    probabilities = [f"prob_{name}" for name in manifest.class_names]
    steps = ["evidence_step"] if with_step else []
    tail = ["lung_fraction", *(f"evidence_{zone}" for zone in _zones(manifest)), *steps, "reason"]
    return ["file", "status", "predicted_label", "prediction_set", "abstained", *probabilities, *tail]


def table_row(
    file: str | Path, result: Result, manifest: Manifest, steps: Sequence[object] = (), remark: str = ""
) -> list[object]:
    """Return one image's row of ``predictions.csv``.

    Args:
        file: Value of the first column.
        result: The result of the image.
        manifest: Manifest of the bundle that predicts.
        steps: Its ``evidence_step``, if the table has this column.
        remark: Text to append to the messages of the findings.
    """
    shares = result.evidence_zones or {}
    zones = [f"{shares[zone]:.4f}" if zone in shares else "" for zone in _zones(manifest)]
    tail = [*zones, *steps, "; ".join(filter(None, [result.reason, remark]))]
    if not isinstance(result, Prediction):
        return [file, result.status, "", "", "", *[""] * len(result.class_names), "", *tail]
    probabilities = [f"{value:.6f}" for value in result.probabilities.values()]
    answer = [result.label, ";".join(result.prediction_set), int(result.abstained)]
    return [file, result.status, *answer, *probabilities, f"{result.lung_fraction:.4f}", *tail]


def _zones(manifest: Manifest) -> tuple[str, ...]:
    return (*ZONES, OUTSIDE) if "evidence" in manifest.outputs else ()


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a table for writing row by row."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")  # file names
    with stream:
        yield stream


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert OSError to OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}.", hint="Choose another --output, or free space."
        ) from error
