"""Which bundle a name means: the packaged model, a bundle of the user's, or that of a run."""

from __future__ import annotations

import os
from pathlib import Path

from hilum.bundle.container import MANIFEST
from hilum.errors import BundleError
from hilum.run_folder import RunFolder

DEFAULT = "default"
"""The name of the packaged model."""

_FOLDER = Path(__file__).resolve().parents[1] / "default_model"


def resolve_bundle(name: str | os.PathLike[str] | None = None) -> Path:
    """Return the place of the bundle that ``name`` means; whether it is intact is for load_bundle to say.

    Args:
        name: Nothing or ``default`` for the packaged model; a bundle's folder or ``.hilum`` file; or a run's folder,
            which is taken for the bundle in it. The word ``default`` means the packaged model even where the working
            folder has a folder of that name, which is ``./default``. A ``Path`` is always a path.

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
        raise BundleError(f"The run '{path}' has no bundle.", hint=f"Write it with: hilum export {path}")
    return run.bundle


def _packaged() -> Path:
    if not (_FOLDER / MANIFEST).is_file():
        raise BundleError(
            f"This install has no packaged model at {_FOLDER}.",
            hint="Name a bundle of your own (hilum export RUN writes one), or install hilum from a release. A folder "
            "of yours that is called default is ./default.",
        )
    return _FOLDER
