"""``hilum app``: the page in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilum.bundle.default import DEFAULT
from hilum.cli.app import new_typer
from hilum.cli.console import say
from hilum.cli.inputs import BundleOption, FixOrientation, GateOption, Host, Port, check_orientation
from hilum.errors import MissingExtraError, extra_hint

app = new_typer()


@app.command("app")
def page(
    bundle: BundleOption = DEFAULT,
    gate: GateOption = "learned",
    fix_orientation: FixOrientation = False,
    audit: Annotated[
        Path | None, typer.Option(help="audit.json, or its folder: its findings are shown beside the model card.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8501,
    max_upload: Annotated[int, typer.Option(min=1, help="Megabytes of one file.")] = 256,
    max_session: Annotated[int, typer.Option(min=1, help="Megabytes of all files of a session.")] = 4000,
) -> None:
    """Open the page: drop films, see class, lung and evidence, save the results; nothing is stored."""
    check_orientation(gate, fix_orientation)
    try:
        import streamlit  # noqa: F401

        from hilum.service.address import LOOPBACK
        from hilum.service.page.run import run
        from hilum.service.page.settings import PageSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Expected the serve extra, {error.name} is not installed.", hint=extra_hint("serve")
        ) from error
    settings = PageSettings(
        bundle=bundle, gate=gate, fix_orientation=fix_orientation, audit=audit, host=host, port=port,
        max_upload=max_upload, max_session=max_session,
    )  # fmt: skip
    if host not in LOOPBACK:
        say(f"[yellow]warning[/] {host} can be reached by others, and the page asks nobody who they are.")
    run(settings, lambda address: say(f"The page is on {address}. Not a medical device. Ctrl+C ends it."))
