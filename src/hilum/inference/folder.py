"""Predict on files, folders and patterns: one row per file, whatever happens to it."""

from __future__ import annotations

import glob
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hilum.errors import DataError, OutputError
from hilum.imaging.read import IMAGE_SUFFIXES
from hilum.inference.predictor import Predictor
from hilum.inference.saving import (
    DICOM_FOLDER,
    DICOM_SUFFIXES,
    PICTURE_FOLDERS,
    Wanted,
    make_extras,
    write_extras,
)
from hilum.storage import CsvWriter
from hilum.types import Prediction, Refusal

TABLE = "predictions.csv"
PARTIAL = "predictions.partial.csv"
_MASK_FOLDERS = ("masks", "regions")
_NOTHING = Wanted()


@dataclass(frozen=True)
class FolderResult:
    """What became of a set of files.

    Attributes:
        table: its path.
        statuses, labels: the count of each.
        objects: the count of DICOM objects written, per kind, and under ``none`` that of films that were read but of
            which none could be made, such as PNGs.
    """

    table: Path
    statuses: Mapping[str, int]
    labels: Mapping[str, int]
    objects: Mapping[str, int]


def find_files(inputs: Sequence[str | Path]) -> list[Path]:
    """All files that ``inputs`` name, each once, in the order given; folders recursively, sorted.

    A folder gives the files with a suffix of IMAGE_SUFFIXES, but not what is hidden, the masks beside ``images/``
    and the pictures of an earlier prediction. A file is taken as it is, so that a wrong one gets a row that says so.
    A pattern may use ``*``, ``?``, ``[..]`` and ``**``.

    Raises:
        DataError: an input names nothing, or a folder holds no image.
    """
    found: dict[Path, Path] = {}
    for item in inputs:
        files = list(_expand(item))
        if not files:
            raise DataError(
                f"Expected image files at {item}, found none.",
                hint=f"Name a file, a folder or a pattern; suffixes read: {', '.join(sorted(IMAGE_SUFFIXES))}.",
            )
        for file in files:
            found.setdefault(_absolute(file), file)
    return list(found.values())


def sample_files(files: Sequence[Path], count: int, seed: int = 0) -> list[Path]:
    """``count`` of the files at random, a function of the seed, in the order they had; all if there are fewer."""
    if count >= len(files):
        return list(files)
    chosen = sorted(random.Random(seed).sample(range(len(files)), count))
    return [files[position] for position in chosen]


def predict_folder(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    *,
    save: Wanted = _NOTHING,
    progress: Callable[[int, int], None] | None = None,
) -> FolderResult:
    """Predict on every file and write ``predictions.csv``, and what else is wanted beside it.

    The table has ``file, status, label, prediction_set, prob_<class>..., lung_fraction, reason``; status is
    ``predicted``, ``refused`` (by the gate) or ``unreadable``. ``prediction_set`` is class names with ``;`` between,
    the most probable first. The reason of a predicted file is its warnings, such as that of a prediction that
    abstains. Where evidence is saved there is a column ``evidence_step`` before the reason: logits per gray level.

    The table grows as ``predictions.partial.csv`` and gets its name once complete, so that a killed run leaves what
    it had done, under a name that says so. Everything else lies in the folders that the inputs came from.

    Args:
        predictor: answers.
        files: from find_files.
        out: a folder, made if absent.
        save: what to save of each answer.
        progress: called with (files done, files in all).

    Raises:
        ConfigError: evidence is asked of a network that gives none; nothing is done.
        OutputError: ``out`` cannot be written, or the disk is full; rows written so far stay.
    """
    manifest = predictor.manifest
    save.check(manifest)
    statuses, labels, objects = Counter[str](), Counter[str](), Counter[str]()
    names = picture_names(files)
    partial = out / PARTIAL
    with _opened(partial) as stream:
        writer = CsvWriter(stream)
        writer.write_row(table_header(manifest.class_names, with_evidence=save.evidence))
        for done, (file, answer) in enumerate(zip(files, predictor.predict_many(files), strict=True), start=1):
            extras = make_extras(file, answer, predictor, save)
            steps = [extras.evidence_step] if save.evidence else []
            writer.write_row(table_row(file, answer.result, len(manifest.class_names), steps, extras.remark))
            stream.flush()
            write_extras(extras, answer, out, names[file], save)
            if isinstance(answer.result, Prediction):
                statuses["predicted"] += 1
                labels[answer.result.label] += 1
            else:
                statuses[answer.result.status] += 1
            objects.update(["none"] if extras.remark else list(extras.objects))
            if progress:
                progress(done, len(files))
        os.fsync(stream.fileno())
        partial.replace(out / TABLE)
    return FolderResult(out / TABLE, statuses, labels, objects)


def picture_names(files: Sequence[Path]) -> dict[Path, Path]:
    """For each file the relative path of its pictures: its place under the files' common folder, then ``.png``.

    The file's own suffix is kept (``film.dcm.png``) where two files would otherwise share a name.
    """
    if not files:
        return {}
    absolute = {file: _absolute(file) for file in files}
    parents = [path.parent for path in absolute.values()]
    common = next(
        folder for folder in (parents[0], *parents[0].parents) if all(p.is_relative_to(folder) for p in parents)
    )
    plain = {file: path.relative_to(common).with_suffix(".png") for file, path in absolute.items()}
    whole = {file: name.with_name(f"{file.name}.png") for file, name in plain.items()}
    taken = Counter(plain.values())
    names = {file: name if taken[name] == 1 else whole[file] for file, name in plain.items()}
    return names if len({*names.values()}) == len(names) else whole


def _expand(item: str | Path) -> Iterator[Path]:
    path = Path(item)
    if path.is_dir():
        candidates = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]
        folders = {file.parent for file in candidates}
        left_out = {folder for folder in folders if _is_passed_over(folder, path)}
        of_objects = {folder for folder in folders if _is_made(folder, path, (DICOM_FOLDER,))}
        own = tuple(DICOM_SUFFIXES.values())  # by name too: films may well lie in a folder "dicom"
        kept = (
            file
            for file in candidates
            if file.parent not in left_out
            and not file.name.startswith(".")
            and not (file.parent in of_objects and file.name.endswith(own))
        )
        yield from (file for file in kept if file.is_file())
    elif path.exists():
        yield path
    else:
        yield from (Path(name) for name in sorted(glob.glob(str(item), recursive=True)) if Path(name).is_file())  # noqa: PTH207  # Path.glob takes no absolute pattern


def _is_passed_over(folder: Path, root: Path) -> bool:
    """Whether the walk of ``root`` leaves a folder out: hidden, masks beside the films, or pictures made of them."""
    below = folder.relative_to(root).parts
    if any(part.startswith(".") for part in below):
        return True
    if folder.name in _MASK_FOLDERS and (folder.parent / "images").is_dir():
        return True
    return _is_made(folder, root, PICTURE_FOLDERS)


def _is_made(folder: Path, root: Path, names: Sequence[str]) -> bool:
    """Whether a folder is, or is below, one of ``names`` beside a table of predictions."""
    below = folder.relative_to(root).parts
    made = [root.joinpath(*below[:depth]) for depth, part in enumerate(below) if part in names]
    return any((place / table).is_file() for place in made for table in (TABLE, PARTIAL))


def _absolute(file: Path) -> Path:
    # Not resolve(): links keep their names. Not absolute() alone: a `..` would lead pictures out of their folder.
    return Path(os.path.normpath(file.absolute()))


def table_header(class_names: Sequence[str], *, with_evidence: bool = False) -> list[str]:
    """The columns of ``predictions.csv``."""
    probabilities = [f"prob_{name}" for name in class_names]
    steps = ["evidence_step"] if with_evidence else []
    return ["file", "status", "label", "prediction_set", *probabilities, "lung_fraction", *steps, "reason"]


def table_row(
    file: str | Path, result: Prediction | Refusal, num_classes: int, steps: Sequence[object] = (), remark: str = ""
) -> list[object]:
    """One file's row of ``predictions.csv``.

    Args:
        file: what the first column says.
        result: its answer.
        num_classes: of the bundle.
        steps: its ``evidence_step``, where the table has that column.
        remark: put behind what the findings say.
    """
    reasons = [finding.message for finding in result.findings] + ([remark] if remark else [])
    tail = [*steps, "; ".join(reasons)]
    if not isinstance(result, Prediction):
        return [file, result.status, "", "", *[""] * num_classes, "", *tail]
    probabilities = [f"{value:.6f}" for value in result.probabilities]
    prediction_set = ";".join(result.prediction_set)
    return [file, "predicted", result.label, prediction_set, *probabilities, f"{result.lung_fraction:.4f}", *tail]


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A table that grows row by row; OSErrors of opening and writing become an OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:  # file names
            yield stream
    except OSError as error:
        raise OutputError(
            f"Could not write {path}: {error.strerror or error}.", hint="Choose another --out, or free space."
        ) from error
