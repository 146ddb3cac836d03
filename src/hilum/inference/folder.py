"""Predict on files, folders and patterns: one row per file, whatever happens to it."""

from __future__ import annotations

import csv
import glob
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from hilum.data.read import IMAGE_SUFFIXES
from hilum.errors import ConfigError, DataError, OutputError
from hilum.export.bundle import Manifest
from hilum.inference.evidence_file import save_evidence as save_map
from hilum.inference.evidence_file import step_of
from hilum.inference.predictor import Answer, Predictor
from hilum.inference.render import class_evidence, mask_png, overlay, save_png
from hilum.types import Prediction, Refusal

TABLE = "predictions.csv"
PARTIAL = "predictions.partial.csv"
_PICTURE_FOLDERS = ("overlays", "masks", "evidence")
_MASK_FOLDERS = ("masks", "regions")


@dataclass(frozen=True)
class FolderResult:
    """What became of a set of files: the table, the count per status, and the count per label."""

    table: Path
    statuses: Mapping[str, int]
    labels: Mapping[str, int]


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
                cure=f"Name a file, a folder or a pattern; suffixes read: {', '.join(sorted(IMAGE_SUFFIXES))}.",
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
    save_overlays: bool = False,
    save_masks: bool = False,
    save_evidence: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FolderResult:
    """Predict on every file and write ``predictions.csv``, with overlays, masks and evidence where asked for.

    The table has ``file, status, label, label_set, prob_<class>..., lung_fraction, reason``; status is ``predicted``,
    ``refused`` (by the gate) or ``unreadable``. ``label_set`` is class names with ``;`` between, the most probable
    first. The reason of a predicted file is its warnings, such as that of a prediction that abstains.

    The table grows as ``predictions.partial.csv`` and gets its name once complete, so that a killed run leaves what
    it had done, under a name that says so. Overlays and masks are PNGs under ``overlays/`` and ``masks/``, in the
    folders that the inputs came from; a mask is 0/255 at the file's own size. Evidence is that of the predicted class,
    at the file's own size under ``evidence/`` (hilum.inference.evidence_file); the table then has a column
    ``evidence_step`` before the reason: logits per grey level.

    Args:
        predictor: answers.
        files: from find_files.
        out: a folder, made if absent.
        save_overlays, save_masks: whether to draw.
        save_evidence: whether to write the evidence.
        progress: called with (files done, files in all).

    Raises:
        ConfigError: evidence is asked of a network that gives none; nothing is done.
        OutputError: ``out`` cannot be written, or the disk is full; rows written so far stay.
    """
    if save_evidence:
        _require_evidence(predictor.manifest)
    statuses: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    names = picture_names(files)
    partial = out / PARTIAL
    class_names = predictor.manifest.class_names
    with _opened(partial) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(table_header(class_names, with_evidence=save_evidence))
        for done, (file, answer) in enumerate(zip(files, predictor.predict_many(files), strict=True), start=1):
            evidence = _evidence(predictor, answer) if save_overlays or save_evidence else None
            steps = [step_of(evidence) if evidence is not None else ""] if save_evidence else []
            writer.writerow(table_row(file, answer.result, len(class_names), steps))
            stream.flush()
            if isinstance(answer.result, Prediction):
                statuses["predicted"] += 1
                labels[answer.result.label] += 1
                _draw(answer, evidence, out, names[file], overlays=save_overlays, masks=save_masks, maps=save_evidence)
            else:
                statuses[answer.result.status] += 1
            if progress:
                progress(done, len(files))
        os.fsync(stream.fileno())
        partial.replace(out / TABLE)
    return FolderResult(out / TABLE, statuses, labels)


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
        left_out = {folder for folder in {file.parent for file in candidates} if _is_passed_over(folder, path)}
        kept = (file for file in candidates if file.parent not in left_out and not file.name.startswith("."))
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
    made = [root.joinpath(*below[:depth]) for depth, part in enumerate(below) if part in _PICTURE_FOLDERS]
    return any((place / table).is_file() for place in made for table in (TABLE, PARTIAL))


def _absolute(file: Path) -> Path:
    # Not resolve(): links keep their names. Not absolute() alone: a `..` would lead pictures out of their folder.
    return Path(os.path.normpath(file.absolute()))


def table_header(class_names: Sequence[str], *, with_evidence: bool = False) -> list[str]:
    """The columns of ``predictions.csv``."""
    probabilities = [f"prob_{name}" for name in class_names]
    steps = ["evidence_step"] if with_evidence else []
    return ["file", "status", "label", "label_set", *probabilities, "lung_fraction", *steps, "reason"]


def table_row(
    file: str | Path, result: Prediction | Refusal, num_classes: int, steps: Sequence[object] = ()
) -> list[object]:
    """One file's row of ``predictions.csv``; ``steps`` is its ``evidence_step``, where the table has one."""
    if not isinstance(result, Prediction):
        return [file, result.status, "", "", *[""] * num_classes, "", *steps, result.reason]
    probabilities = [f"{value:.6f}" for value in result.probabilities]
    reason = "; ".join(finding.message for finding in result.findings)
    label_set = ";".join(result.label_set)
    return [file, "predicted", result.label, label_set, *probabilities, f"{result.lung_fraction:.4f}", *steps, reason]


def _require_evidence(manifest: Manifest) -> None:
    if "evidence" not in manifest.outputs:
        raise ConfigError(
            f"Expected a model with evidence for --save-evidence, got {manifest.name} ({manifest.model.name}), whose "
            "network gives none.",
            cure="Leave --save-evidence out, or use a bundle of the network evidence or encoder-unet.",
        )


def _evidence(predictor: Predictor, answer: Answer) -> NDArray[np.float32] | None:
    """That of the predicted class at the file's own size, or None."""
    if not isinstance(answer.result, Prediction) or answer.radiograph is None:
        return None
    return class_evidence(answer.result, answer.radiograph.shape, predictor.manifest.preprocess)


def _draw(
    answer: Answer,
    evidence: NDArray[np.float32] | None,
    out: Path,
    name: Path,
    *,
    overlays: bool,
    masks: bool,
    maps: bool,
) -> None:
    prediction, radiograph = answer.result, answer.radiograph
    if not isinstance(prediction, Prediction) or radiograph is None:
        return
    if masks:
        save_png(mask_png(prediction.mask), out / "masks" / name)
    if maps and evidence is not None:
        save_map(out / "evidence" / name, evidence, prediction)
    if overlays:
        save_png(overlay(radiograph, prediction, evidence=evidence), out / "overlays" / name)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A table that grows row by row; OSErrors of opening and writing become an OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:  # file names
            yield stream
    except OSError as error:
        raise OutputError(
            f"Could not write {path}: {error.strerror or error}.", cure="Choose another --out, or free space."
        ) from error
