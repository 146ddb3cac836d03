"""The arguments that the commands over films share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from hilum.errors import ConfigError

Inputs = Annotated[list[str], typer.Argument(help="Files, folders (searched recursively) or patterns.")]
BundleName = Annotated[
    str, typer.Option("--bundle", help="A folder, a .hilum file, or default: the bundle that comes with hilum.")
]
GateOption = Annotated[
    Literal["learned", "classic", "open"],
    typer.Option("--gate", help="What refuses files that are no frontal chest films; open refuses none."),
]
FixOrientation = Annotated[
    bool, typer.Option("--fix-orientation", help="Turn back, or invert back, films that the gate finds wrong so.")
]
Host = Annotated[str, typer.Option("--host", help="Address to bind; 0.0.0.0 is reachable from other machines.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]


def check_orientation(gate: str, fix_orientation: bool) -> None:
    """That the gate can see how a film lies, where films are to be put right.

    Raises:
        ConfigError: it cannot.
    """
    if fix_orientation and gate != "learned":
        raise ConfigError("Expected the learned gate with --fix-orientation, which alone sees how a film lies.")
