"""Resolve a name or path to a bundle: the packaged model, a user's bundle, or the bundle of a run."""

from __future__ import annotations

import os
from pathlib import Path

from hilum.bundle.container import MANIFEST, SUFFIX
from hilum.errors import BundleError
from hilum.filesystems import RemoteFile, is_uri
from hilum.run_folder import RunFolder
from hilum.storage import cache_folder, sha256_bytes, write_bytes

DEFAULT = "default"
"""Name of the packaged model."""

_FOLDER = Path(__file__).resolve().parents[1] / "default_model"


def resolve_bundle(name: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of the bundle that ``name`` refers to. The bundle itself is checked by load_bundle.

    Args:
        name: None or ``default`` for the packaged model; a bundle (folder or ``.hilum`` file); or a run's folder, for
            the bundle in it. The string ``default`` always means the packaged model; write ``./default`` for a folder
            of that name. A ``Path`` is always a path. A string with ``s3://``, ``gs://``, ``abfs://`` or ``https://``
            is the address of a ``.hilum`` file, which is copied to the cache folder.

    Raises:
        BundleError: This install has no packaged model, or the run has not been exported.
        ReadError: There is no file at the address, or the server cannot be reached.
    """
    if name is None or name == DEFAULT:
        return _packaged()
    if isinstance(name, str) and is_uri(name):
        return _fetched(name)
    path = Path(name)
    run = RunFolder(path)
    if not run.config.is_file() or (path / MANIFEST).is_file():
        return path
    if not (run.bundle / MANIFEST).is_file():
        raise BundleError(f"Run '{path}' has no bundle.", hint=f"Export it: hilum export {path}")
    return run.bundle


def _fetched(uri: str) -> Path:
    """Return a copy of the file at an address, named by its SHA-256."""
    content = RemoteFile(uri).read()
    path = cache_folder() / "bundles" / f"{sha256_bytes(content)}{SUFFIX}"
    if not path.is_file():
        write_bytes(path, content)
    return path


def _packaged() -> Path:
    if not (_FOLDER / MANIFEST).is_file():
        raise BundleError(
            f"This installation has no packaged model at '{_FOLDER}'.",
            hint="Name another bundle (hilum export RUN writes one), or install hilum from a release. A folder named "
            "default is ./default.",
        )
    return _FOLDER
