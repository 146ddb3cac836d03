"""``hilum serve`` and ``hilum app``: serve a bundle over REST, with the web app."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.bundle.default import DEFAULT
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.cli.inputs import (
    BackendOption,
    BundleOption,
    FixOrientation,
    GateOption,
    Host,
    MaxUpload,
    Port,
    PrecisionOption,
    VerifyKeyOption,
    check_orientation,
)
from hilum.errors import MissingExtraError, extra_hint

app = new_typer()

TOKEN = "HILUM_TOKEN"  # the name of the variable, not a token
"""Environment variable with the bearer token; a command-line option would be visible in the process list."""

Audit = Annotated[
    Path | None, typer.Option(help="An audit's folder or its audit.json; the web app shows it beside the model card.")
]


@app.command(epilog=examples("hilum serve", "HILUM_TOKEN=secret hilum serve --host 0.0.0.0 --port 8080"))
def serve(
    bundle: BundleOption = DEFAULT,
    verify_key: VerifyKeyOption = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    gate: GateOption = "learned",
    fix_orientation: FixOrientation = False,
    audit: Audit = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin of pages that may call the service, such as https://pacs.example; repeatable."),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=1, help="Images in progress or waiting, at most; further requests get status 429.")
    ] = 128,
    batch_size: Annotated[int, typer.Option(min=1, max=4, help="Images per forward pass, at most.")] = 4,
    max_files: Annotated[int, typer.Option(min=1, help="Files per request, at most.")] = 32,
    max_upload: MaxUpload = 256,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Open connections, at most; those without a request make room for new ones.")
    ] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Time limit of a request, seconds.")] = 30.0,
) -> None:
    """Serve a bundle over REST, with the web app at / and the API documentation at /docs.

    Set the environment variable HILUM_TOKEN to require a bearer token.
    """
    _run(
        "Serving on {0}: the web app, the REST API below /v1, its documentation at /docs.", opens=False,
        bundle=bundle, verify_key=verify_key, host=host, port=port, backend=backend, precision=precision, gate=gate,
        fix_orientation=fix_orientation, audit=audit, cors=tuple(cors or ()), queue=queue, batch_size=batch_size,
        max_files=max_files, max_upload=max_upload, max_connections=max_connections, timeout=timeout,
    )  # fmt: skip


@app.command("app", epilog=examples("hilum app", "hilum app --bundle model.hilum --audit audit --port 9000"))
def web_app(
    bundle: BundleOption = DEFAULT,
    verify_key: VerifyKeyOption = None,
    gate: GateOption = "learned",
    fix_orientation: FixOrientation = False,
    audit: Audit = None,
    port: Port = 8000,
    max_upload: MaxUpload = 256,
    browser: Annotated[bool, typer.Option(help="Open the web app in the browser.")] = True,
) -> None:
    """Open the web app: predict and review in the browser; the server stores nothing.

    This is hilum serve on 127.0.0.1, which opens the browser.
    """
    _run(
        "Serving the web app on {0}. Press Ctrl+C to stop.", opens=browser, bundle=bundle, verify_key=verify_key,
        host="127.0.0.1", port=port, gate=gate, fix_orientation=fix_orientation, audit=audit, max_upload=max_upload,
    )  # fmt: skip


def _run(message: str, *, opens: bool, **options: Any) -> None:
    """Serve with these settings, and open the browser if wanted."""
    check_orientation(options["gate"], options["fix_orientation"])
    try:
        from hilum.service.address import LOOPBACK
        from hilum.service.api import run
        from hilum.service.settings import ServeSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"The service needs {error.name}, which is not installed.", hint=extra_hint("serve")
        ) from error
    settings = ServeSettings(token=os.environ.get(TOKEN) or None, **options)
    if settings.token is None and settings.host not in LOOPBACK:
        warning = f"{settings.host} is reachable from other machines and no token is required: set {TOKEN}."
        say(f"[yellow]warning[/] {warning}")

    def announce(address: str) -> None:
        say(f"{message.format(address)} Not a medical device.")
        if opens:
            webbrowser.open(address)

    run(settings, announce)
