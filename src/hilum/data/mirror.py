"""Local copies of dataset files on object stores and web servers.

    CACHE/files/s3/bucket/folder/image.png    the copy of s3://bucket/folder/image.png

A file is fetched once, and again when its size or modification time has changed. Its path tells its address, so that
records of such files are read like any others. Copies may be deleted at any time.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from hilum.data.find import TABLE_NAME
from hilum.data.find_remote import may_be_image
from hilum.errors import DataError, ReadError
from hilum.filesystems import RemoteFile, filesystem_of, find_file, is_uri, list_files
from hilum.storage import TEMPORARY_NAME, atomic_path, cache_folder
from hilum.types import Record

_FETCHERS = 16
"""Number of files that are fetched at a time: a request waits for the store, not for a processor."""
_PLAIN = " !#$&'()+,;=@[]^_`{}~"
"""Characters that file names may have beside letters, digits and ``-._~``; others are percent-encoded."""


def mirrored(uri: str) -> Path:
    """Return the path of the local copy of an address, whether it exists or not."""
    scheme, _, rest = uri.partition("://")
    parts = [_encoded(part) for part in rest.split("/") if part]
    return _root().joinpath(scheme, *parts)


def address_of(path: Path) -> str | None:
    """Return the address of which ``path`` is the local copy, or None for a file of this machine."""
    text, root = path.as_posix(), f"{_root().as_posix()}/"
    if not text.startswith(root):  # string operations: see hilum.data.integrity.name_of
        return None
    scheme, *parts = text[len(root) :].split("/")
    return f"{scheme}://{'/'.join(map(unquote, parts))}"


def beside(folder: Path, cell: str) -> Path:
    """Return the file that a cell of a table in ``folder`` names: an address, an absolute path, or one beside it."""
    if is_uri(cell):
        return mirrored(cell)
    base = address_of(folder)
    if base is None or cell.startswith("/"):
        # Not resolve(): datasets of symbolic links (git-annex, DVC) must keep their names.
        return Path(os.path.normpath(folder / cell))
    scheme, _, rest = base.partition("://")
    return mirrored(f"{scheme}://{posixpath.normpath(f'{rest}/{cell}')}")


def local_dataset(data: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None) -> Path:
    """Return the path of a dataset; the table or the images at an address are fetched.

    Args:
        data: A path, or the address of a CSV or of a folder of class folders.
        progress: Called with (files fetched, total files).

    Raises:
        DataError: There is nothing at the address, or the server cannot be reached.
    """
    if not is_uri(name := os.fspath(data)):
        return Path(name)
    place = mirrored(name)
    if PurePosixPath(name).suffix.lower() == ".csv":
        fetch([place])
        if not place.is_file():
            raise DataError(f"'{name}' does not exist.", hint="Check the address.")
        return place
    if name.startswith("http"):
        raise DataError(f"'{name}' is not a CSV.", hint="Folders cannot be listed on a web server; name a CSV.")
    files = {mirrored(file.uri): file for file in list_files(name)}
    wanted = {path for path, file in files.items() if path == place / TABLE_NAME or may_be_image(file.uri)}
    for path in [path for path in place.rglob("*") if path.is_file() and path not in wanted]:
        if not TEMPORARY_NAME.fullmatch(path.name):  # another process may be fetching the same dataset
            path.unlink(missing_ok=True)  # deleted at the address
    _fetch_all([(path, files[path]) for path in sorted(wanted)], progress)
    return place


def fetch_records(records: Iterable[Record], progress: Callable[[int, int], None] | None = None) -> None:
    """Fetch the images and masks of records that are copies of files at addresses, where these are new or changed."""
    fetch(
        [
            path
            for record in records
            for path in (record.image_path, record.mask_path, record.region_path, record.second_mask_path)
            if path is not None
        ],
        progress,
    )


def fetch(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> None:
    """Fetch the files of which ``paths`` are the local copies; other paths, and files that do not exist, are left out.

    Raises:
        DataError: The server cannot be reached.
    """
    named = [(path, address) for path in dict.fromkeys(paths) if (address := address_of(path)) is not None]
    if not named:
        return
    with ThreadPoolExecutor(_FETCHERS) as pool:
        found = list(pool.map(find_file, [address for _, address in named]))
    for (path, _), file in zip(named, found, strict=True):
        if file is None:
            path.unlink(missing_ok=True)
    _fetch_all([(path, file) for (path, _), file in zip(named, found, strict=True) if file is not None], progress)


def _fetch_all(files: Sequence[tuple[Path, RemoteFile]], progress: Callable[[int, int], None] | None) -> None:
    with ThreadPoolExecutor(_FETCHERS) as pool:
        try:
            for done, _ in enumerate(pool.map(_fetch_one, files), 1):
                if progress:
                    progress(done, len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_one(named: tuple[Path, RemoteFile]) -> None:
    path, file = named
    size, _, modified = file.state.partition(" ")
    if path.is_file():
        status = path.stat()
        if str(status.st_size) == size and modified in ("None", str(status.st_mtime_ns)):
            return
    filesystem, place = filesystem_of(file.uri)
    try:
        with atomic_path(path) as temporary, filesystem.open_input_stream(place) as stream:
            with temporary.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
            if modified != "None":
                os.utime(temporary, ns=(int(modified), int(modified)))
    except (OSError, ValueError) as error:
        raise ReadError(f"Cannot read '{file.uri}': {error}.", hint="Run the command again.") from error


def _root() -> Path:
    return cache_folder().absolute() / "files"


def _encoded(part: str) -> str:
    """Return one part of an address as a file name; ``.`` and ``..`` are names on an object store."""
    return part.replace(".", "%2E") if part in (".", "..") else quote(part, safe=_PLAIN)
