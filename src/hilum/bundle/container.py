"""Store named files as a folder or one ``.hilum`` zip. The content of bundles is defined in bundle.py."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from hilum.errors import BundleError, OutputError
from hilum.storage import temporary_folder, write_bytes

MANIFEST = "bundle.json"
"""File that identifies a bundle."""
SIGNATURE = "model.sig"
"""Signature over all files of a bundle that it names, and the manifest; optional."""
SUFFIX = ".hilum"
"""Suffix of a bundle in one file."""
DAMAGED = "Copy the bundle again or export it again; changed bundles are not loaded."
"""Hint of all errors about damaged bundles."""

MAX_MANIFEST_BYTES = 8 << 20
"""Maximum size of the manifest."""

_MAX_BYTES = 2 << 30
_MAX_RATIO = 100  # of the inflated to the compressed size of a zip; deflate reaches 1,032, weights and text below 10
_ZIP_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    NotImplementedError,  # zipfile: unknown compression
    RuntimeError,  # zipfile: encryption
)


def read_files(path: Path, names: Iterable[str], max_bytes: int = _MAX_BYTES) -> dict[str, bytes]:
    """Return the contents of the named files in a folder or zip; other files are not read.

    Args:
        path: The folder or zip.
        names: Names of the files.
        max_bytes: Maximum size of all of them.

    Raises:
        BundleError: There is no bundle, a file is missing, the files are larger than ``max_bytes``, or the zip is
            damaged or inflates to more than 100 times its size.
    """
    return _read_zip(path, names, max_bytes) if path.is_file() else _read_folder(path, names, max_bytes)


def read_signature(path: Path) -> bytes | None:
    """Return the signature of a bundle; None if it has none.

    Raises:
        BundleError: It is larger than a manifest may be, or the zip is damaged.
    """
    is_there = SIGNATURE in _names_in_zip(path) if path.is_file() else (path / SIGNATURE).is_file()
    return read_files(path, [SIGNATURE], MAX_MANIFEST_BYTES)[SIGNATURE] if is_there else None


def write_files(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write files as a zip if ``path`` ends in ``.hilum``, else as a folder; replaces an existing bundle at the end.

    Args:
        path: Output path.
        contents: Contents of the files by name.

    Raises:
        OutputError: ``path`` exists and is not a bundle, or cannot be written; existing files are unchanged.
    """
    check_replaceable(path, contents)
    if path.suffix != SUFFIX:
        _write_folder(path, contents)
        return
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # ZipInfo without a timestamp
    write_bytes(path, stream.getvalue())


def check_replaceable(path: Path, contents: Iterable[str]) -> None:
    """Check that ``path`` does not exist, is an empty folder, or is a bundle without foreign files.

    Args:
        path: Output path.
        contents: Names of the files to be written.

    Raises:
        OutputError: ``path`` is something else.
    """
    hint = "Choose another --output."
    if path.suffix == SUFFIX and path.is_file():
        is_bundle = zipfile.is_zipfile(path) and MANIFEST in _names_in_zip(path)
    else:
        present = sorted(child.name for child in path.iterdir()) if path.is_dir() else []
        is_bundle = MANIFEST in present or (not present and (path.is_dir() or not path.exists()))
        own = {*contents, *(_files_of(path / MANIFEST) if MANIFEST in present else ())}
        if is_bundle and (foreign := [name for name in present if name not in own]):
            raise OutputError(f"The bundle '{path}' also contains {foreign[0]}, which is not part of it.", hint=hint)
    if not is_bundle:
        raise OutputError(f"'{path}' exists and is not a hilum bundle.", hint=hint)


def _files_of(manifest: Path) -> set[str]:
    try:
        return {MANIFEST, SIGNATURE, *json.loads(manifest.read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):  # damaged: other files may not belong to the bundle
        return {MANIFEST}


def _write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write to a temporary folder and move it into place; the old folder is removed at the end."""
    try:
        with temporary_folder(path.parent) as scratch:
            old, new = scratch / "old", scratch / "new"
            for name, content in contents.items():
                write_bytes(new / name, content)
            if path.exists():
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
    except OSError as error:
        raise OutputError(
            f"Cannot write the bundle '{path}': {error.strerror or error}.", hint="Choose another --output."
        ) from error


def _read_folder(path: Path, names: Iterable[str], max_bytes: int) -> dict[str, bytes]:
    if not (path / MANIFEST).is_file():
        raise BundleError(
            f"'{path}' is not a bundle: neither a folder with {MANIFEST} nor a {SUFFIX} file.",
            hint="Export a run as a bundle: hilum export RUN",
        )
    contents: dict[str, bytes] = {}
    for name in names:
        file = path / name
        if Path(name).name != name or not file.is_file():  # names must not leave the folder
            raise _missing(name, path)
        try:
            if file.stat().st_size > max_bytes - sum(map(len, contents.values())):
                raise _too_large(path, max_bytes)
            contents[name] = file.read_bytes()
        except OSError as error:
            raise BundleError(f"Cannot read the bundle '{path}': {error}.", hint="Check its permissions.") from error
    return contents


def _read_zip(path: Path, names: Iterable[str], max_bytes: int) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        most = min(max_bytes, _MAX_RATIO * path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            for name in names:
                if name not in entries:
                    raise _missing(name, path)
                if entries[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise NotImplementedError(f"{name} is neither stored nor deflated")
                if entries[name].file_size > most - sum(map(len, contents.values())):
                    raise _too_large(path, most)
                with archive.open(entries[name]) as stream:
                    contents[name] = stream.read(entries[name].file_size)  # at most the declared size
    except _ZIP_ERRORS as error:
        raise BundleError(f"'{path}' is not a {SUFFIX} bundle (a zip): {error}.", hint=DAMAGED) from error
    return contents


def _too_large(path: Path, most: int) -> BundleError:
    return BundleError(f"The content of '{path}' is larger than {most:,} bytes.", hint="Check that it is a bundle.")


def _names_in_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except _ZIP_ERRORS:
        return []


def _missing(name: str, path: Path) -> BundleError:
    return BundleError(f"{name} is missing from the bundle '{path}'.", hint=DAMAGED)
