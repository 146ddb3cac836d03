"""Public prediction API: ``load`` returns a Model, which predicts on files, arrays and datasets.

Training, evaluation and audits are in hilum.verbs; the CLI and the services use hilum.inference.predictor.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from hilum.backends.open import BackendName, PrecisionName, open_backend
from hilum.bundle.bundle import Bundle, load_bundle
from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.bundle.gate import GateName, open_gate
from hilum.errors import BundleError, DataError
from hilum.imaging.convert import ImageLike, is_image_like
from hilum.inference.predictor import InMemory, Predictor, Source, Upload
from hilum.inference.result import Result
from hilum.types import Radiograph

if TYPE_CHECKING:
    import pandas

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | ImageLike | Radiograph"
"""One image: a file's path or content, a NumPy array, a PIL image, a pydicom dataset or a Radiograph."""


class Model:
    """A loaded bundle that predicts class, lung mask and evidence of chest radiographs. Thread-safe.

    Created by ``load``.

    Args:
        bundle: The loaded bundle.
        predictor: A predictor on that bundle.

    Attributes:
        bundle: The loaded bundle; ``bundle.manifest`` describes it.
        predictor: The predictor that commands and services use as well.
    """

    def __init__(self, bundle: Bundle, predictor: Predictor) -> None:
        self.bundle = bundle
        self.predictor = predictor

    def __repr__(self) -> str:
        return f"Model({self.name!r}, classes={list(self.class_names)}, bundle={self.bundle_id[:12]!r})"

    @property
    def name(self) -> str:
        """Display name of the bundle."""
        return self.bundle.manifest.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names, in the order of the network's outputs."""
        return self.bundle.manifest.class_names

    @property
    def bundle_id(self) -> str:
        """SHA-256 over the bundle's content, 64 hexadecimal digits."""
        return self.bundle.manifest.bundle_id

    @overload
    def predict(self, source: ImageSource) -> Result: ...  # type: ignore[overload-overlap]  # a str is one path

    @overload
    def predict(self, source: Sequence[ImageSource]) -> list[Result]: ...

    def predict(self, source: ImageSource | Sequence[ImageSource]) -> Result | list[Result]:
        """Predict on one image or a list of images and return a Result per image.

        A refused or unreadable file does not raise: its Result has that ``status`` and the reasons.

        Args:
            source: The path of a file (PNG, JPEG, WebP, BMP, TIFF, DICOM) as str or Path; the content of a file as
                bytes; an array (H, W) or (H, W, 3) of uint8, uint16 or floating point in [0, 1]; a PIL image; a
                pydicom dataset; a Radiograph; or a list of these. The conversion to gray is described in
                hilum.imaging.convert.radiograph_of.

        Returns:
            A Result for one image; a list of Results, in the same order, for a list. Each Result holds its decoded
            image; use ``stream`` for more images than fit into memory.

        Raises:
            DataError: The source is a folder, is of an unsupported type, or is an array of unsupported shape, dtype or
                range.
        """
        if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
            return list(self.stream(source))
        return next(self.stream([source]))

    def stream(self, sources: Iterable[ImageSource]) -> Iterator[Result]:
        """Yield a Result for each image, in order, with only a few batches in memory.

        Args:
            sources: Images as for ``predict``; ``hilum.find_images`` lists the images of folders.

        Raises:
            DataError: As for ``predict``, when the iterator reaches that source.
        """
        if isinstance(sources, (str, bytes, os.PathLike, Radiograph)) or is_image_like(sources):
            raise DataError("stream takes an iterable of images, got one image.", hint="Use predict for one image.")
        return self.predictor.predict_many(_source(item, number) for number, item in enumerate(sources))


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    backend: BackendName = "auto",
    precision: PrecisionName = "auto",
    device: str = "cpu",
    gate: GateName = "learned",
    batch_size: int = 8,
    fix_orientation: bool = False,
    verify_key: str | os.PathLike[str] | None = None,
) -> Model:
    """Load a bundle and return a Model for prediction.

    Args:
        name_or_path: None or ``default`` for the packaged model; a bundle (folder or ``.hilum`` file); or the folder
            of a run, whose bundle is loaded.
        backend: ``onnxruntime``, ``openvino``, ``pytorch``, or ``auto``: the one that ``hilum bench``,
            ``hilum predict`` on a folder, or a service measured as fastest for this bundle on this machine, else ONNX
            Runtime.
        precision: ``fp32``, ``bf16``, ``int8``, or ``auto``: ``fp32``, or a precision that was measured as faster and
            whose agreement with ``fp32`` is in the bundle and accepted.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        gate: Input check: ``learned``, ``classic`` (the original project's nine rules) or ``none``.
        batch_size: Maximum number of images per forward pass.
        fix_orientation: Undo rotations by 90° steps and inverted gray scale that the input check detects.
        verify_key: PEM file of the public key that must have signed the bundle; None: signatures are not verified.

    Returns:
        The model; it may be shared by threads.

    Raises:
        BundleError: There is no bundle, it is damaged, or ``verify_key`` has not signed it.
        ConfigError: An argument is not one of those above, or ``fix_orientation`` is set with a gate other than
            ``learned``, the only one that detects the orientation.
        DeviceError: The device is not available.
        MissingExtraError: The backend is not installed.
    """
    bundle = load_bundle(bundle_path(name_or_path), verify_key=None if verify_key is None else Path(verify_key))
    predictor = Predictor(
        bundle,
        backend=open_backend(bundle, backend, device, precision),
        gate=open_gate(bundle, gate),
        batch_size=batch_size,
        fix_orientation=fix_orientation,
    )
    return Model(bundle, predictor)


def bundle_path(name_or_path: str | os.PathLike[str] | None) -> Path:
    """Return the path of the bundle that ``load`` opens for ``name_or_path``.

    Raises:
        BundleError: The run has no bundle, or this install has no packaged model.
    """
    if name_or_path is None:
        return resolve_bundle(DEFAULT)
    if not os.fspath(name_or_path):
        raise BundleError("The path of the bundle is empty.", hint="Omit it for the packaged model.")
    return resolve_bundle(name_or_path if isinstance(name_or_path, str) else Path(name_or_path))


def to_dataframe(results: Result | Iterable[Result]) -> pandas.DataFrame:
    """Return one or more results as a pandas data frame with one row each and the columns of ``predictions.csv``.

    The columns are ``file, status, predicted_label, prediction_set, abstained, prob_<class>..., lung_fraction,
    evidence_<zone>..., reason``. Values that a result does not have are missing.

    Raises:
        MissingExtraError: Pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        from hilum.errors import MissingExtraError

        raise MissingExtraError("pandas is not installed.", hint="Install it: pip install pandas") from error
    if isinstance(results, Result):
        results = [results]
    rows: list[dict[str, Any]] = [
        {
            "file": result.origin.encode("utf-8", "backslashreplace").decode(),
            "status": result.status,
            "predicted_label": result.label,
            "prediction_set": result.prediction_set,
            "abstained": result.abstained,
            **{f"prob_{name}": (result.probabilities or {}).get(name) for name in result.class_names},
            "lung_fraction": result.lung_fraction,
            **{f"evidence_{zone}": share for zone, share in (result.evidence_zones or {}).items()},
            "reason": result.reason,
        }
        for result in results
    ]
    return pandas.DataFrame(rows)


def _source(item: ImageSource, number: int) -> Source:
    """Return an item as a source of the predictor; ``number`` names images without a file name."""
    if isinstance(item, Radiograph):
        return item
    name = f"image {number}"
    if isinstance(item, bytes):
        return Upload(item, name)
    if isinstance(item, (str, os.PathLike)):
        if not os.fspath(item):
            raise DataError("The path of the image is empty.", hint="Name a file.")
        path = Path(item)
        if path.is_dir():
            raise DataError(
                f"'{path}' is a folder, not an image.",
                hint=f"for result in model.stream(hilum.find_images({str(path)!r})): ...",
            )
        return path
    if is_image_like(item):
        return InMemory(item, name)
    raise DataError(
        f"Cannot predict on an object of type {type(item).__module__}.{type(item).__qualname__}.",
        hint="Pass a path, bytes, a NumPy array, a PIL image, a pydicom Dataset, or a list of them.",
    )
