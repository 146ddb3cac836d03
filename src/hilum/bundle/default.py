"""Resolve a name or path to a bundle: the packaged model, a user's bundle, or the bundle of a run."""

from __future__ import annotations

import os
from pathlib import Path

from hilum.bundle.container import MANIFEST
from hilum.errors import BundleError
from hilum.run_folder import RunFolder

DEFAULT = "default"
"""Name of the packaged model."""

_FOLDER = Path(__file__).resolve().parents[1] / "default_model"


def resolve_bundle(name: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of the bundle that ``name`` refers to. The bundle itself is checked by load_bundle.

    Args:
        name: None or ``default`` for the packaged model; a bundle (folder or ``.hilum`` file); or a run's folder, for
            the bundle in it. The string ``default`` always means the packaged model; write ``./default`` for a folder
            of that name. A ``Path`` is always a path.

    Raises:
        BundleError: This install has no packaged model, or the run has not been exported.
    """
    if name is None or name == DEFAULT:
        return _packaged()
    path = Path(name)
    run = RunFolder(path)
    if not run.config.is_file() or (path / MANIFEST).is_file():
        return path
    if not (run.bundle / MANIFEST).is_file():
        raise BundleError(f"Run '{path}' has no bundle.", hint=f"Export it: hilum export {path}")
    return run.bundle


def _packaged() -> Path:
    if not (_FOLDER / MANIFEST).is_file():
        raise BundleError(
            f"This installation has no packaged model at '{_FOLDER}'.",
            hint="Name another bundle (hilum export RUN writes one), or install hilum from a release. A folder named "
            "default is ./default.",
        )
    return _FOLDER
