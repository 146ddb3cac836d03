"""``hilum sign``: sign a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.cli.inputs import BundleArgument

app = new_typer()

PASSWORD = "HILUM_KEY_PASSWORD"  # the name of the variable, not a password
"""Environment variable with the password of the key; a command-line option would be visible in the process list."""


@app.command(epilog=examples("hilum sign model.hilum --key key.pem", "hilum sign runs/a --key key.pem"))
def sign(
    bundle: BundleArgument,
    key: Annotated[Path, typer.Option("--key", help="PEM file of a private key on the curve P-256, P-384 or P-521.")],
) -> None:
    """Sign a bundle with a private key, or replace its signature.

    If the key has a password, set the environment variable HILUM_KEY_PASSWORD to it.
    """
    from hilum.bundle.bundle import sign_bundle
    from hilum.bundle.signing import signer_of

    path = resolve_bundle(bundle)
    password = os.environ.get(PASSWORD)
    signed = sign_bundle(path, key, password.encode() if password else None)
    say(f"Signed [bold]{escape(str(path))}[/] with the key {signer_of(signed.signature or b'')[:12]}.")
