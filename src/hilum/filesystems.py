"""Files on object stores and web servers, and output folders there or on this machine.

``s3://``, ``gs://`` and ``abfs://`` are opened by PyArrow and ``http(s)://`` by fsspec, when they are first used.
Credentials are those of the environment, such as ``AWS_ACCESS_KEY_ID`` or ``GOOGLE_APPLICATION_CREDENTIALS``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from hilum.errors import DataError, MissingExtraError, OutputError, ReadError, extra_hint
from hilum.storage import write_bytes

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_URI = re.compile(r"(s3|gs|gcs|abfss?|https?)://.")
_ATTEMPTS = 10
"""Attempts of a request to S3, with growing pauses in between; the last is made after about 20 seconds."""
_CONNECT_SECONDS, _REQUEST_SECONDS = 10, 60
"""Without an answer for so long, S3 is asked again. The defaults, 1 and 3 s, are short for a busy server or link."""


def is_uri(name: object) -> bool:
    """Return whether a string is the address of a file on an object store or web server."""
    return isinstance(name, str) and _URI.match(name) is not None


@dataclass(frozen=True)
class RemoteFile:
    """A file on an object store or web server.

    Attributes:
        uri: Its address.
        state: Size and modification time, if they are known.
    """

    uri: str
    state: str = ""

    def __str__(self) -> str:
        return self.uri

    def read(self) -> bytes:
        """Return the content.

        Raises:
            ReadError: The file does not exist, or the server cannot be reached.
        """
        try:
            filesystem, path = filesystem_of(self.uri)
            with filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())
        except (OSError, ValueError) as error:
            raise ReadError(
                f"Cannot read '{self.uri}': {_brief(error)}.", hint="Check the address and the credentials."
            ) from error


def file_of(name: str) -> Path | RemoteFile:
    """Return the file of a path or an address."""
    return RemoteFile(name) if is_uri(name) else Path(name)


def place_of(name: str | os.PathLike[str]) -> Path | str:
    """Return an address as it is, and anything else as a path."""
    return name if isinstance(name, str) and is_uri(name) else Path(name)


def find_file(uri: str) -> RemoteFile | None:
    """Return the file at an address with its state, or None if there is none.

    Raises:
        DataError: The server cannot be reached.
    """
    from pyarrow.fs import FileType

    try:
        filesystem, path = filesystem_of(uri)
        info = filesystem.get_file_info(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read '{uri}': {_brief(error)}.", hint="Check the address and the credentials."
        ) from error
    return RemoteFile(uri, f"{info.size} {info.mtime_ns}") if info.type == FileType.File else None


def list_files(uri: str) -> list[RemoteFile]:
    """Return the file at an address, or all files below it, sorted.

    Raises:
        DataError: There is none, or the server cannot be reached.
    """
    from pyarrow.fs import FileSelector, FileType

    try:
        filesystem, path = filesystem_of(uri)
        info = filesystem.get_file_info(path)
        if info.type == FileType.File:
            return [RemoteFile(uri, f"{info.size} {info.mtime_ns}")]
        infos = filesystem.get_file_info(FileSelector(path, recursive=True)) if info.type != FileType.NotFound else []
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot list '{uri}': {_brief(error)}.", hint="Check the address and the credentials."
        ) from error
    found = [
        RemoteFile(f"{uri.rstrip('/')}{info.path[len(path.rstrip('/')) :]}", f"{info.size} {info.mtime_ns}")
        for info in infos
        if info.type == FileType.File
    ]
    if not found:
        raise DataError(f"'{uri}' does not exist or has no files.", hint="Check the address.")
    return sorted(found, key=str)


@contextmanager
def local_file(name: str) -> Iterator[Path]:
    """Yield the path to write a file to; one at an address is stored there at the end.

    Raises:
        OutputError: The address cannot be written.
    """
    if not is_uri(name):
        yield Path(name)
        return
    folder, _, file = name.rpartition("/")
    with TemporaryDirectory() as temporary:
        yield Path(temporary) / file
        RemoteFolder(folder).write(file, (Path(temporary) / file).read_bytes())


class OutputFolder(Protocol):
    """A folder to which complete files are written; a partly written file is never visible."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, by its path relative to the folder.

        Raises:
            OutputError: The folder cannot be written.
        """

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if there is none.

        Raises:
            OutputError: The folder cannot be read.
        """

    def names(self, folder: str) -> set[str]:
        """Return the names of the files in a subfolder, without those below it.

        Raises:
            OutputError: The folder cannot be read.
        """

    def delete(self, name: str) -> None:
        """Delete a file, if there is one.

        Raises:
            OutputError: The folder cannot be written.
        """


@dataclass(frozen=True)
class LocalFolder:
    """An OutputFolder on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def write(self, name: str, content: bytes) -> None:
        """See OutputFolder."""
        write_bytes(self.path / name, content)

    def read(self, name: str) -> bytes | None:
        """See OutputFolder."""
        with _using(f"{self.path / name}"):
            try:
                return (self.path / name).read_bytes()
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> set[str]:
        """See OutputFolder."""
        path = self.path / folder
        with _using(str(path)):
            return {entry.name for entry in os.scandir(path) if entry.is_file()} if path.is_dir() else set()

    def delete(self, name: str) -> None:
        """See OutputFolder."""
        with _using(f"{self.path / name}"):
            (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteFolder:
    """An OutputFolder on an object store, whose files appear when they are complete."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    @contextmanager
    def _at(self, name: str) -> Iterator[tuple[FileSystem, str]]:
        """Yield the file system, and the path in it of a file or subfolder; convert errors to OutputError."""
        if self.uri.startswith("http"):
            raise OutputError(f"Cannot write to '{self.uri}'.", hint="Use s3://, gs:// or abfs://, or a folder.")
        uri = f"{self.uri.rstrip('/')}/{name}"
        with _using(uri):
            yield filesystem_of(uri)

    def write(self, name: str, content: bytes) -> None:
        """See OutputFolder."""
        with self._at(name) as (filesystem, path), filesystem.open_output_stream(path) as stream:
            stream.write(content)

    def read(self, name: str) -> bytes | None:
        """See OutputFolder."""
        with self._at(name) as (filesystem, path):
            if not _is_file(filesystem, path):
                return None
            with filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())

    def names(self, folder: str) -> set[str]:
        """See OutputFolder."""
        from pyarrow.fs import FileSelector, FileType

        with self._at(folder) as (filesystem, path):
            found = filesystem.get_file_info(FileSelector(path, allow_not_found=True))
        return {info.base_name for info in found if info.type == FileType.File}

    def delete(self, name: str) -> None:
        """See OutputFolder."""
        with self._at(name) as (filesystem, path):
            if _is_file(filesystem, path):
                filesystem.delete_file(path)


def filesystem_of(uri: str) -> tuple[FileSystem, str]:
    """Return the file system of an address, and the path in it.

    Raises:
        MissingExtraError: PyArrow or fsspec is not installed.
        OSError: The file system rejects the address.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        return _opened("http", ""), uri
    path = uri.partition("://")[2].rstrip("/")
    if scheme in ("abfs", "abfss"):
        container, _, account = path.partition("/")[0].partition("@")
        rest = path.partition("/")[2]
        return _opened("abfs", account.partition(".")[0]), f"{container}/{rest}".rstrip("/")
    return _opened("gs" if scheme == "gcs" else scheme, ""), path


@lru_cache
def _opened(scheme: str, account: str) -> FileSystem:
    try:
        from pyarrow import fs

        if scheme == "http":
            import aiohttp  # noqa: F401  # what fsspec needs
            import fsspec

            return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("http")))
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Addresses with {scheme}:// need {error.name}, which is not installed.", hint=extra_hint("remote")
        ) from error
    if scheme == "s3":
        retries = fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)
        return fs.S3FileSystem(
            retry_strategy=retries, connect_timeout=_CONNECT_SECONDS, request_timeout=_REQUEST_SECONDS, **_s3_options()
        )
    if scheme == "gs":
        return fs.GcsFileSystem()
    name = account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT", "")
    return fs.AzureFileSystem(name, account_key=os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"))


def _s3_options() -> dict[str, Any]:
    """Return the endpoint of the AWS variables, which PyArrow does not read (apache/arrow#49643)."""
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not address:
        return {}
    parts = urlsplit(address)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return {"endpoint_override": parts.netloc, "scheme": parts.scheme or "https", "region": region}


def _brief(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0].rstrip(".")


def _is_file(filesystem: FileSystem, path: str) -> bool:
    from pyarrow.fs import FileType

    return bool(filesystem.get_file_info(path).type == FileType.File)


@contextmanager
def _using(place: str) -> Iterator[None]:
    """Convert the errors of a file system to OutputError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise OutputError(
            f"Cannot use '{place}': {_brief(error)}.", hint="Check the address, the credentials and the free space."
        ) from error
