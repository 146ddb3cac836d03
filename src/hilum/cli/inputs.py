"""The arguments that the commands over films share."""

from __future__ import annotations

from typing import Annotated

import typer

Inputs = Annotated[list[str], typer.Argument(help="Files, folders (searched recursively) or patterns.")]
BundleName = Annotated[
    str, typer.Option("--bundle", help="A folder, a .hilum file, or default: the bundle that comes with hilum.")
]
