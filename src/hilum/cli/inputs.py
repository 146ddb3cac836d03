"""Arguments and options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hilum.errors import ConfigError
from hilum.types import CalibratedPer

_BUNDLE = "A bundle (folder, .hilum file or its address), a run's folder, or default: the packaged model."

Inputs = Annotated[
    list[str], typer.Argument(metavar="IMAGES", help="Files, folders (searched recursively) or glob patterns.")
]
DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="Dataset: a folder of class folders, or a CSV.")]
AddressableData = Annotated[
    str, typer.Argument(metavar="DATA", help="Dataset: a folder of class folders, or a CSV, or the address of either.")
]
BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help=_BUNDLE)]
BundleOption = Annotated[str, typer.Option("--bundle", help=_BUNDLE)]
VerifyKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--verify-key",
        envvar="HILUM_VERIFY_KEY",
        help="PEM file of the public key that must have signed the bundle. Needs the signing extra.",
    ),
]
GateOption = Annotated[
    Literal["learned", "classic", "none"],
    typer.Option("--gate", help="Input check; classic: the original project's nine checks; none accepts every image."),
]
FixOrientation = Annotated[
    bool,
    typer.Option("--fix-orientation", help="Undo rotations by 90° steps and inverted gray scale before prediction."),
]
BackendOption = Annotated[
    Literal["auto", "onnxruntime", "openvino", "pytorch"],
    typer.Option(
        "--backend",
        help="Inference engine; auto: the one measured as fastest. openvino and pytorch need the extras openvino and "
        "train.",
    ),
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "int8"],
    typer.Option(
        "--precision",
        help="Precision of the network; auto: fp32, or a faster one whose agreement with it is in the bundle.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="Device of the backend: cpu, cuda or cuda:N.")]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per forward pass, at most.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Maximum number of images.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]
ClassesOption = Annotated[
    list[str] | None, typer.Option("--class", help="Keep only this class; repeat the option for more.")
]
ResamplesOption = Annotated[
    int, typer.Option("--resamples", min=100, help="Bootstrap resamples for the confidence intervals.")
]
CalibratePerOption = Annotated[
    CalibratedPer | None,
    typer.Option(
        "--calibrate-per",
        help="Fit one temperature and abstention threshold over all images, or one for each predicted class.",
        show_default=False,
    ),
]
SplitFileOption = Annotated[
    Path | None, typer.Option("--split-file", help="A split.json, for data without a split column.")
]
MaxUpload = Annotated[int, typer.Option("--max-upload", min=1, help="Upload limit, MiB.")]
Host = Annotated[str, typer.Option("--host", help="Address to bind; 0.0.0.0 is reachable from other machines.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to bind; 0 takes a free one.")]


def check_orientation(gate: str, fix_orientation: bool) -> None:
    """Check that ``--fix-orientation`` is used with a gate that detects the orientation.

    Raises:
        ConfigError: The gate does not detect the orientation; only ``learned`` does.
    """
    if fix_orientation and gate != "learned":
        raise ConfigError(
            f"--fix-orientation needs the learned gate, got --gate {gate}.", hint="Use --gate learned, the default."
        )
