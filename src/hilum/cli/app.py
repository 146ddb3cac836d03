"""Define the ``hilum`` command and its subcommands. Command modules are imported only when called.

Errors that a user can act on are printed as one message with a hint, and the exit code is 2.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from itertools import groupby
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from hilum._version import __version__
from hilum.errors import ConfigError, HilumError, missing_from_train


class Command(NamedTuple):
    """A command's module and its entry in ``hilum --help``."""

    module: str  # in hilum.cli
    group: str
    line: str  # equals the first line of the command's docstring, which a test checks


COMMANDS = {
    "index": Command("data", "Data", "Index a dataset and report problems with its files."),
    "split": Command(
        "data", "Data", "Split a dataset into train, val and test, stratified by class, grouped by patient."
    ),
    "phantom": Command("data", "Data", "Generate synthetic radiographs with exact lung and region masks."),
    "audit": Command(
        "audit", "Data", "Audit a dataset for duplicates, leaks and shortcuts, and a model for shortcuts."
    ),
    "train": Command("train", "Training", "Train a model on a folder of radiographs, evaluate it and export a bundle."),
    "train-gate": Command(
        "train_gate", "Training", "Train an input check on your own radiographs and negative examples."
    ),
    "export": Command(
        "export", "Training", "Export a run as a bundle, if PyTorch and ONNX Runtime agree on its outputs."
    ),
    "quantize": Command(
        "quantize", "Training", "Add an int8 network to a bundle, if it agrees with float32 on the validation split."
    ),
    "import-checkpoint": Command("export", "Training", "Convert a checkpoint of the original project to a bundle."),
    "evaluate": Command(
        "evaluate", "Evaluation", "Evaluate a run or a bundle, with confidence intervals, and write a report."
    ),
    "plan": Command(
        "plan",
        "Evaluation",
        "Plan an evaluation: images and groups for an interval width or a non-inferiority margin.",
    ),
    "compare": Command(
        "compare",
        "Evaluation",
        "Compare two models on the same images by one primary metric; the others are adjusted for their number.",
    ),
    "recalibrate": Command(
        "recalibrate", "Evaluation", "Recalibrate a bundle on 100 or more local labeled images, without training."
    ),
    "predict": Command(
        "predict", "Inference", "Predict class, lung mask and evidence for images, folders or DICOM files."
    ),
    "gate": Command("gate", "Inference", "Check whether images are upright frontal chest radiographs, with reasons."),
    "info": Command("info", "Inference", "Show a bundle's classes, network, test metrics, calibration and size."),
    "sign": Command("sign", "Inference", "Sign a bundle with a private key, or replace its signature."),
    "bench": Command(
        "bench", "Inference", "Measure this machine's inference engines, and choose the one that --backend auto uses."
    ),
    "serve": Command(
        "serve", "Serving", "Serve a bundle over REST, with the web app at / and the API documentation at /docs."
    ),
    "app": Command(
        "serve", "Serving", "Open the web app: predict and review in the browser; the server stores nothing."
    ),
    "dicomweb": Command(
        "dicomweb", "Serving", "Predict on the chest radiographs of a PACS and store segmentations and reports there."
    ),
}
"""The commands by group, as ``hilum --help`` lists them; their modules are imported when they are called."""


class _LazyGroup(TyperGroup):
    """Command group that imports a command when it is called and reports errors with exit code 2."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=command.line) for name, command in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        if any(word == "" or re.fullmatch("--[a-z0-9-]+=", word) for word in rest):  # Path("") is the current folder
            raise ConfigError("An argument is empty.", hint="Check for a shell variable that is not set.")
        return name, load_command(name) if name is not None else None, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, COMMANDS))
        for group, entries in groupby(COMMANDS.items(), lambda entry: entry[1].group):
            with formatter.section(group):
                formatter.write_dl([(f"{name:<{width}}", command.line) for name, command in entries])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HilumError as error:
            _fail(error.message, error.hint)
        except ModuleNotFoundError as error:
            if (missing := missing_from_train(error, "This command")) is None:
                raise
            _fail(missing.message, missing.hint)
        except OSError as error:
            _fail(f"Operating system error: {error}.", "")
        except KeyboardInterrupt:
            _say("Interrupted.")
            sys.exit(130)


def load_command(name: str) -> Any:
    """Import the command ``name`` of COMMANDS."""
    loaded: Any = typer.main.get_command(import_module(f"hilum.cli.{COMMANDS[name].module}").app)
    return loaded.commands[name] if hasattr(loaded, "commands") else loaded


def new_typer() -> typer.Typer:
    """Return a Typer for one module's commands.

    Help is plain text: long names wrap instead of being cut off, and brackets are not interpreted as markup.
    """
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)


def examples(*lines: str) -> str:
    """Return a help epilog that lists example command lines, one per line."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


app = typer.Typer(
    cls=_LazyGroup,
    help="Train, evaluate, export and run multi-task chest radiograph models. A research tool, not a medical device.",
    epilog=examples("hilum predict image.png --save-overlays", "hilum train DATA --output runs/a"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"hilum {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _fail(message: str, hint: str) -> None:
    _say(f"Error: {message}")
    if hint:
        _say(hint)
    sys.exit(2)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def main() -> None:
    """Run the ``hilum`` command."""
    app(prog_name="hilum")
