"""``hilum serve``: serve a bundle over REST."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hilum.bundle.default import DEFAULT
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.cli.inputs import (
    BatchSizeOption,
    BundleOption,
    FixOrientation,
    GateOption,
    Host,
    MaxUpload,
    Port,
    check_orientation,
)
from hilum.errors import MissingExtraError, extra_hint

app = new_typer()

TOKEN = "HILUM_TOKEN"  # the name of the variable, not a token
"""Environment variable with the bearer token; a command-line option would be visible in the process list."""


@app.command(epilog=examples("hilum serve", "HILUM_TOKEN=secret hilum serve --host 0.0.0.0 --port 8080"))
def serve(
    bundle: BundleOption = DEFAULT,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    gate: GateOption = "learned",
    fix_orientation: FixOrientation = False,
    queue: Annotated[
        int, typer.Option(min=1, help="Images in progress or waiting, at most; further requests get status 429.")
    ] = 128,
    batch_size: BatchSizeOption = 8,
    max_files: Annotated[int, typer.Option(min=1, help="Files per request, at most.")] = 32,
    max_upload: MaxUpload = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Time limit of a request, seconds.")] = 30.0,
) -> None:
    """Serve a bundle over REST, with the API documentation at /docs.

    Set the environment variable HILUM_TOKEN to require a bearer token.
    """
    check_orientation(gate, fix_orientation)
    try:
        from hilum.service.address import LOOPBACK
        from hilum.service.api import run
        from hilum.service.settings import ServeSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"The service needs {error.name}, which is not installed.", hint=extra_hint("serve")
        ) from error
    settings = ServeSettings(
        bundle=bundle, host=host, port=port, gate=gate, fix_orientation=fix_orientation, queue=queue,
        batch_size=batch_size, max_files=max_files, max_upload=max_upload, timeout=timeout,
        token=os.environ.get(TOKEN) or None,
    )  # fmt: skip
    if settings.token is None and host not in LOOPBACK:
        say(f"[yellow]warning[/] {host} is reachable from other machines and no token is required: set {TOKEN}.")
    run(settings, lambda address: say(f"Serving on {address}, documentation at /docs. Not a medical device."))
