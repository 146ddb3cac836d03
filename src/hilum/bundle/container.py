"""A few named files as one thing: a folder, or one ``.hilum`` zip. What the bundle is kept in; it knows no contents."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from hilum.errors import BundleError, OutputError
from hilum.storage import write_bytes

MANIFEST = "bundle.json"
"""The file by which a bundle is known."""
SUFFIX = ".hilum"
"""Of a bundle in one file."""
DAMAGED = "Copy the bundle anew or export it again; a changed bundle is not used."
"""The hint of every error about a damaged bundle."""

_MAX_BYTES = 2 << 30
_ZIP_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    NotImplementedError,  # zipfile's for an unknown compression
    RuntimeError,  # its for encryption
)


def read_files(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """The contents of the files ``names`` in the folder or zip ``path``; nothing else in it is read.

    Raises:
        BundleError: it is no bundle, a name is missing, or the zip is damaged or inflates to more than 2 GiB.
    """
    return _read_zip(path, names) if path.is_file() else _read_folder(path, names)


def write_files(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write one zip if ``path`` ends in ``.hilum``, else a folder. An old bundle there is replaced when all is written.

    Raises:
        OutputError: something else than a bundle is there, or it cannot be written; what was there stays.
    """
    check_replaceable(path, contents)
    if path.suffix != SUFFIX:
        _write_folder(path, contents)
        return
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # ZipInfo: no time of writing
    write_bytes(path, stream.getvalue())


def check_replaceable(path: Path, contents: Iterable[str]) -> None:
    """Check that ``path`` is free, an empty folder, or a bundle with no other files than its own and ``contents``.

    Raises:
        OutputError: Something else is there.
    """
    hint = "Choose another --output."
    if path.suffix == SUFFIX and path.is_file():
        is_bundle = zipfile.is_zipfile(path) and MANIFEST in _names_in_zip(path)
    else:
        present = sorted(child.name for child in path.iterdir()) if path.is_dir() else []
        is_bundle = MANIFEST in present or (not present and (path.is_dir() or not path.exists()))
        own = {*contents, *(_files_of(path / MANIFEST) if MANIFEST in present else ())}
        if is_bundle and (foreign := [name for name in present if name not in own]):
            raise OutputError(f"The bundle '{path}' also holds {foreign[0]}, which is not its own.", hint=hint)
    if not is_bundle:
        raise OutputError(f"'{path}' exists and is not a hilum bundle.", hint=hint)


def _files_of(manifest: Path) -> set[str]:
    try:
        return {MANIFEST, *json.loads(manifest.read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):  # damaged: what lies beside it may be anyone's
        return {MANIFEST}


def _write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write beside ``path`` and move into place; the old folder is moved aside first and removed last."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise OutputError(
            f"Expected a writable folder for {path}, got: {error.strerror or error}.", hint="Choose another --output."
        ) from error
    old, new = scratch / "old", scratch / "new"
    try:
        for name, content in contents.items():
            write_bytes(new / name, content)
        if path.exists():
            path.rename(old)
        new.rename(path)
    except OSError as error:
        if old.exists():
            old.rename(path)
        raise OutputError(f"Could not write the bundle {path}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read_folder(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    if not (path / MANIFEST).is_file():
        raise BundleError(
            f"Expected a bundle (a folder with {MANIFEST}, or a {SUFFIX} file) at {path}, found none.",
            hint="`hilum export RUN` writes one.",
        )
    contents = {}
    for name in names:
        file = path / name
        if Path(name).name != name or not file.is_file():  # never a path out of the folder
            raise _missing(name, path)
        try:
            contents[name] = file.read_bytes()
        except OSError as error:
            raise BundleError(f"Expected a readable bundle at {path}, got: {error}.") from error
    return contents


def _read_zip(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            for name in names:
                if name not in entries:
                    raise _missing(name, path)
                size = entries[name].file_size
                if size + sum(map(len, contents.values())) > _MAX_BYTES:
                    raise BundleError(f"Expected a bundle of at most {_MAX_BYTES >> 30} GiB in {path}, it is larger.")
                with archive.open(entries[name]) as stream:
                    contents[name] = stream.read(size)  # no more than it says, whatever it inflates to
    except _ZIP_ERRORS as error:
        raise BundleError(f"Expected a {SUFFIX} bundle (a zip) in {path}, got: {error}.", hint=DAMAGED) from error
    return contents


def _names_in_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except _ZIP_ERRORS:
        return []


def _missing(name: str, path: Path) -> BundleError:
    return BundleError(f"Expected {name} in the bundle {path}, it is missing.", hint=DAMAGED)
