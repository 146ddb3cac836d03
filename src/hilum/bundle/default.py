"""Which bundle a name on the command line means: the one that comes with hilum, or one of the user's."""

from __future__ import annotations

from pathlib import Path

from hilum.bundle.container import MANIFEST
from hilum.errors import BundleError

DEFAULT = "default"
"""The name of the bundle inside the package."""

_FOLDER = Path(__file__).resolve().parents[1] / "default_model"


def resolve_bundle(name: str | Path) -> Path:
    """Where the bundle ``name`` lies; whether a user's path holds one is for load_bundle to say.

    The word ``default`` always means the packaged bundle, also where the working folder has a folder of that name:
    ``./default`` is that one. A ``Path`` is a path whatever it is called, since it cannot tell the two apart.

    Raises:
        BundleError: ``default`` in an install without a bundle.
    """
    if name != DEFAULT:
        return Path(name)
    if not (_FOLDER / MANIFEST).is_file():
        raise BundleError(
            f"Expected the bundle that comes with hilum at {_FOLDER}, this install has none.",
            hint="Name a bundle of your own (hilum export RUN writes one), or install hilum from a release. A folder "
            "of yours that is called default is ./default.",
        )
    return _FOLDER
