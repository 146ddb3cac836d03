"""Record bundle, settings and inputs of a prediction in its output folder, so that only the same one is continued.

The lock of the folder is here as well. Rows are in ``hilum.inference.journal``, shards in ``hilum.inference.shards``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hilum._version import __version__
from hilum.data.find import DICOM_FOLDER, IMAGE_FOLDERS, PARQUET_TABLE, PARTIAL, RUN_MANIFEST, TABLE
from hilum.errors import OutputError
from hilum.filesystems import LocalFolder, OutputFolder, RemoteFile, RemoteFolder, is_uri
from hilum.inference.journal import writing
from hilum.inference.predictor import Predictor
from hilum.inference.saving import Wanted
from hilum.storage import TEMPORARY_NAME

LOCK = ".hilum-predictions.lock"
_SHARD = re.compile(r"part-\d{6}\.parquet")
START_OVER = "Choose another --output, or start over with --overwrite."
"""The hint of errors about an output folder that cannot be continued."""
_ENGINE = ("backend", "precision", "device")
"""Settings of the inference engine, which are options of the command as well."""


@dataclass(frozen=True)
class RunManifest:
    """What the rows of an output folder depend on, as stored in ``predictions.json``.

    Attributes:
        hilum: Version of this package.
        bundle: Name and ``bundle_id`` of the bundle.
        settings: Settings of the predictor, format of the table, and the files saved for each image.
        inputs: Number of inputs, and the SHA-256 over the name, size and modification time of each, in order.
    """

    hilum: str
    bundle: Mapping[str, str]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]

    @classmethod
    def of(cls, predictor: Predictor, inputs: Mapping[str, Any], save: Wanted, **settings: Any) -> RunManifest:
        """Return the manifest of a prediction.

        Args:
            predictor: The predictor.
            inputs: From ``describe_files``.
            save: Files to save for each image.
            **settings: Further settings.
        """
        manifest = predictor.manifest
        bundle = {"name": manifest.name, "bundle_id": manifest.bundle_id}
        return cls(__version__, bundle, {**predictor.described(), **settings, "save": asdict(save)}, inputs)

    @classmethod
    def read(cls, content: bytes | None) -> RunManifest | None:
        """Return the manifest stored in a folder; None if there is none.

        Raises:
            OutputError: It was not written by ``hilum predict``.
        """
        if content is None:
            return None
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"'{RUN_MANIFEST}' was not written by hilum predict: {error}.", hint=START_OVER
            ) from error

    def check_same(self, earlier: RunManifest, place: str) -> None:
        """Check that an earlier prediction into the same folder gives the same rows.

        Raises:
            OutputError: The bundle, a setting, the inputs or the version of hilum differ. The hint names the options
                with which the run can be resumed, if only the inference engine differs.
        """
        changes = [
            *_changes("bundle", earlier.bundle, self.bundle),
            *_changes("", earlier.settings, self.settings),
            *_changes("inputs", earlier.inputs, self.inputs),
            *_changes("", {"hilum": earlier.hilum}, {"hilum": self.hilum}),
        ]
        if changes:
            raise OutputError(
                f"'{place}' has the predictions of another run: {', '.join(changes)}.", hint=self._hint(earlier)
            )

    def _hint(self, earlier: RunManifest) -> str:
        """Return what to do about an earlier prediction; with --backend auto, only the engine may differ."""
        engine = {key: earlier.settings.get(key) for key in _ENGINE}
        if replace(self, settings={**self.settings, **engine}) != earlier or None in engine.values():
            return START_OVER
        options = " ".join(f"--{key} {value}" for key, value in engine.items() if value != self.settings.get(key))
        return f"Resume it with {options}. {START_OVER}"

    def content(self) -> dict[str, Any]:
        """Return the manifest as JSON types."""
        return asdict(self)


def _changes(prefix: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield each entry that differs, with both values; of digests, the beginnings."""
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        name = f"{prefix} {key}".strip()
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(name, old, new)
        elif old != new:
            yield f"{name} was {_shown(old)}, now {_shown(new)}"


def _shown(value: object) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)


def describe_files(files: Sequence[Path | RemoteFile]) -> dict[str, Any]:
    """Return number and digest of input files: SHA-256 over each one's name, size and modification time."""
    digest = hashlib.sha256()
    for file in files:
        name = str(file)
        digest.update(
            os.fsencode(name) + f"\0{file.state if isinstance(file, RemoteFile) else _state(name)}\n".encode()
        )
    return {"count": len(files), "digest": digest.hexdigest()}


def _state(name: str) -> str:
    try:
        found = os.stat(name)  # noqa: PTH116  # Path takes twice as long
    except OSError:
        return "-"
    return f"{found.st_size} {found.st_mtime_ns}"


@contextmanager
def claimed(out: Path | str, manifest: RunManifest, *, overwrite: bool) -> Iterator[OutputFolder]:
    """Lock an output folder, check that it is empty or of the same prediction, and store the manifest.

    Temporary files of processes that were killed are removed, before and after. A folder on an object store is not
    locked.

    Args:
        out: The folder, or its address on an object store.
        manifest: The prediction.
        overwrite: Delete an earlier table instead of raising.

    Raises:
        OutputError: The folder has a table of another prediction, another process predicts into it, or it cannot be
            written.
    """
    if isinstance(out, str) and is_uri(out):
        place: OutputFolder = RemoteFolder(out)
        _claim(place, manifest, overwrite=overwrite)
        yield place
        return
    folder = Path(out)
    place = LocalFolder(folder)
    with locked(folder):
        _remove_temporaries(folder)
        _claim(place, manifest, overwrite=overwrite)
        yield place
        _remove_temporaries(folder)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Create an output folder and keep other processes from predicting into it.

    Raises:
        OutputError: Another process does so, or the folder cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"Another process is predicting into '{out}'.", hint="Wait until it ends, or choose another --output."
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # before the release; filelock rejects a file that was removed meanwhile
            (out / LOCK).unlink()
        lock.release()


def _claim(place: OutputFolder, manifest: RunManifest, *, overwrite: bool) -> None:
    if overwrite:
        _discard(place)
    stored = place.read(RUN_MANIFEST)
    earlier = RunManifest.read(stored)
    if earlier is not None:
        manifest.check_same(earlier, str(place))
        return
    for name in (TABLE, PARTIAL, PARQUET_TABLE):
        if _exists(place, name):
            raise OutputError(
                f"'{place}' has a {name} but no {RUN_MANIFEST}, so it is unknown which run wrote it.", hint=START_OVER
            )
    place.write(RUN_MANIFEST, (json.dumps(manifest.content(), indent=2) + "\n").encode())


def _exists(place: OutputFolder, name: str) -> bool:
    if isinstance(place, LocalFolder):
        return (place.path / name).exists()
    return bool(place.names(name)) if name == PARQUET_TABLE else place.read(name) is not None


def _discard(place: OutputFolder) -> None:
    """Delete the tables and the manifest of an earlier prediction; files of other names are kept."""
    for name in place.names(PARQUET_TABLE):
        if _SHARD.fullmatch(name):
            place.delete(f"{PARQUET_TABLE}/{name}")
    if isinstance(place, LocalFolder) and (place.path / PARQUET_TABLE).is_dir():
        with suppress(OSError):  # it has other files
            (place.path / PARQUET_TABLE).rmdir()
    else:
        place.delete(PARQUET_TABLE)
    for name in (TABLE, PARTIAL, RUN_MANIFEST):
        place.delete(name)


def _remove_temporaries(out: Path) -> None:
    """Remove what hilum.storage.atomic_path leaves when its process is killed."""
    for folder in (out, *(out / name for name in (PARQUET_TABLE, *IMAGE_FOLDERS, DICOM_FOLDER))):
        for root, folders, files in os.walk(folder):
            for name in files:
                if TEMPORARY_NAME.fullmatch(name):
                    Path(root, name).unlink(missing_ok=True)
            if folder == out:
                folders.clear()
