"""Find images on this machine, object stores and web servers, and in a column of a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hilum.data.find import DICOM_FOLDER, IMAGE_FOLDERS, PARQUET_TABLE, RUN_MANIFEST, find_images, findings_of
from hilum.errors import DataError, MissingExtraError, extra_hint
from hilum.filesystems import RemoteFile, is_uri, list_files
from hilum.imaging.read import IMAGE_SUFFIXES
from hilum.storage import csv_text
from hilum.types import Finding

_NO_SUFFIX = re.compile(r"(\.[0-9]+)?")
"""Of names such as IM000001 and 1.2.840.10008.1, as DICOM files have them."""
_OUTPUTS = (*(f"{name}/" for name in (*IMAGE_FOLDERS, DICOM_FOLDER, PARQUET_TABLE)), RUN_MANIFEST)
"""Output of a folder prediction, which must not be used as input of the next one."""


def find_inputs(names: Sequence[str], column: str | None = None) -> tuple[list[Path | RemoteFile], list[Finding]]:
    """Return the images in files, folders, patterns and addresses, and why other files were skipped.

    Args:
        names: The inputs, see hilum.data.find.find_images and find_remote. Images on this machine come first.
        column: If given, ``names`` are tables, which name the images in this column.

    Raises:
        DataError: An input does not exist, cannot be read, or has no images; or a table has no such column.
        MissingExtraError: A table is Parquet and pyarrow is not installed.
    """
    if column is not None:
        names = [name for table in names for name in names_in_table(table, column)]
    files: list[Path | RemoteFile] = []
    skipped: list[Finding] = []
    if local := [name for name in names if not is_uri(name)]:
        found = find_images(local)
        files += found
        skipped += found.skipped
    for uri in filter(is_uri, names):
        images, findings = find_remote(uri) if column is None else ([RemoteFile(uri)], [])
        files += images
        skipped += findings
    return list(dict.fromkeys(files)), skipped


def find_remote(uri: str) -> tuple[list[RemoteFile], list[Finding]]:
    """Return the images at or below an address, sorted, and a Finding for each reason why files were skipped.

    A file below an address is an image by its suffix: one of IMAGE_SUFFIXES, none, or a number, since reading the
    beginning of every object takes as long as a prediction. A file that is named itself is always included.

    Raises:
        DataError: There is none, or the server cannot be reached.
    """
    if uri.startswith("http"):
        return [RemoteFile(uri)], []
    files = list_files(uri)
    if [file.uri for file in files] == [uri]:
        return files, []
    outputs = {file.uri.removesuffix(RUN_MANIFEST) for file in files if file.uri.endswith(f"/{RUN_MANIFEST}")}
    skipped: dict[str, list[str]] = {"not_image": [], "outputs": []}
    images = []
    for file in files:
        if any(file.uri.startswith(f"{out}{name}") for out in outputs for name in _OUTPUTS):
            skipped["outputs"].append(file.uri)
        elif may_be_image(file.uri):
            images.append(file)
        else:
            skipped["not_image"].append(file.uri)
    if not images:
        raise DataError(
            f"No images found in '{uri}'.", hint=f"Supported types: DICOM, {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return images, findings_of(skipped)


def may_be_image(name: str) -> bool:
    """Return whether a file's suffix is one of IMAGE_SUFFIXES, none, or a number."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES or _NO_SUFFIX.fullmatch(suffix) is not None


def names_in_table(table: str, column: str) -> list[str]:
    """Return a column of a CSV or Parquet file, on this machine or at an address.

    Raises:
        DataError: The table cannot be read or has no such column.
        MissingExtraError: The table is Parquet and pyarrow is not installed.
    """
    try:
        content = RemoteFile(table).read() if is_uri(table) else Path(table).read_bytes()
    except OSError as error:
        raise DataError(f"Cannot open '{table}': {error.strerror or error}.", hint="Check the path.") from error
    if content.startswith(b"PAR1"):
        columns, values = _parquet_column(content, table, column)
    else:
        try:
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
            columns, rows = list(reader.fieldnames or ()), list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"'{table}' is not a CSV or Parquet table: {error}.", hint="Check the file.") from error
        values = [csv_text(row[column]) for row in rows if row.get(column)]
    if column not in columns:
        raise DataError(
            f"'{table}' has no column {column!r}, only: {', '.join(columns) or 'nothing':.200}.",
            hint="Name one of its columns with --column.",
        )
    if not values:
        raise DataError(f"The column {column!r} of '{table}' is empty.", hint="Name the images in this column.")
    return values


def _parquet_column(content: bytes, table: str, column: str) -> tuple[list[str], list[str]]:
    """Return the names of all columns, and the values of one that are not empty; none if there is no such column."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"Reading '{table}' needs pyarrow.", hint=extra_hint("parquet")) from error
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        columns = list(file.schema_arrow.names)
        cells = file.read(columns=[column])[column].to_pylist() if column in columns else []
        return columns, [str(cell) for cell in cells if cell]
    except pyarrow.ArrowException as error:
        raise DataError(f"Cannot read '{table}': {error}.", hint="Check the file.") from error
