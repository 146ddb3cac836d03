"""``hilum serve``: the REST service."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hilum.bundle.default import DEFAULT
from hilum.cli.app import new_typer
from hilum.cli.console import say
from hilum.cli.inputs import BundleOption, FixOrientation, GateOption, Host, Port, check_orientation
from hilum.errors import MissingExtraError, extra_hint

app = new_typer()

TOKEN = "HILUM_TOKEN"  # the name of the variable, not a token
"""The environment variable with the bearer token: a flag would stand in the list of processes."""


@app.command()
def serve(
    bundle: BundleOption = DEFAULT,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    gate: GateOption = "learned",
    fix_orientation: FixOrientation = False,
    queue: Annotated[int, typer.Option(min=1, help="Films under way or waiting; more are answered with 429.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Films in one forward pass at most.")] = 8,
    max_files: Annotated[int, typer.Option(min=1, help="Files in one request.")] = 32,
    max_upload: Annotated[int, typer.Option(min=1, help="Megabytes of one request.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which a request is given up.")] = 30.0,
) -> None:
    """Serve a bundle over REST; the documentation is at /docs. HILUM_TOKEN asks for a bearer token."""
    check_orientation(gate, fix_orientation)
    try:
        from hilum.service.address import LOOPBACK
        from hilum.service.api import run
        from hilum.service.settings import ServeSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Expected the serve extra, {error.name} is not installed.", hint=extra_hint("serve")
        ) from error
    settings = ServeSettings(
        bundle=bundle, host=host, port=port, gate=gate, fix_orientation=fix_orientation, queue=queue,
        batch_size=batch_size, max_files=max_files, max_upload=max_upload * 1_000_000, timeout=timeout,
        token=os.environ.get(TOKEN) or None,
    )  # fmt: skip
    if settings.token is None and host not in LOOPBACK:
        say(f"[yellow]warning[/] {host} can be reached by others and no token is asked for: set {TOKEN}.")
    run(settings, lambda address: say(f"Serving on {address}, documentation at /docs. Not a medical device."))
