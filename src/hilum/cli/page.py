"""``hilum app``: serve the web app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilum.bundle.default import DEFAULT
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.cli.inputs import BundleOption, FixOrientation, GateOption, Host, MaxUpload, Port, check_orientation
from hilum.errors import MissingExtraError, extra_hint

app = new_typer()


@app.command("app", epilog=examples("hilum app", "hilum app --bundle model.hilum --audit audit --port 9000"))
def page(
    bundle: BundleOption = DEFAULT,
    gate: GateOption = "learned",
    fix_orientation: FixOrientation = False,
    audit: Annotated[
        Path | None, typer.Option(help="An audit's folder or its audit.json, shown with the model card.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8501,
    max_upload: MaxUpload = 256,
    max_session: Annotated[int, typer.Option(min=1, help="Limit for all files of a session, MiB.")] = 4000,
) -> None:
    """Serve the web app: predict in the browser; nothing is stored on the server."""
    check_orientation(gate, fix_orientation)
    try:
        import streamlit  # noqa: F401

        from hilum.service.address import LOOPBACK
        from hilum.service.page.run import run
        from hilum.service.page.settings import PageSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"The web app needs {error.name}, which is not installed.", hint=extra_hint("serve")
        ) from error
    settings = PageSettings(
        bundle=bundle, gate=gate, fix_orientation=fix_orientation, audit=audit, host=host, port=port,
        max_upload=max_upload, max_session=max_session,
    )  # fmt: skip
    if host not in LOOPBACK:
        say(f"[yellow]warning[/] {host} is reachable from other machines, and the web app has no authentication.")
    run(settings, lambda address: say(f"Serving the web app on {address}. Not a medical device. Press Ctrl+C to stop."))
