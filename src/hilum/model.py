"""The public object: ``load`` gives a Model, which predicts on images of any kind. The CLI and services are built on
the layer below, hilum.inference.predictor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from hilum.backends.open import BackendName, open_backend
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
"""One image: the path of a file, a file's content, a NumPy array, a PIL image, a pydicom dataset."""


class Model:
    """A bundle that is opened for prediction: the class, the lung mask and the evidence of chest radiographs.

    ``load`` makes one. It may be used from several threads.

    Attributes:
        bundle: The opened bundle; ``bundle.manifest`` has all that it says of itself.
        predictor: The layer below, which commands and services share.
    """

    def __init__(self, bundle: Bundle, predictor: Predictor) -> None:
        self.bundle = bundle
        self.predictor = predictor

    def __repr__(self) -> str:
        return f"Model({self.name!r}, classes={list(self.class_names)}, bundle={self.bundle_id[:12]!r})"

    @property
    def name(self) -> str:
        """The bundle's name for people."""
        return self.bundle.manifest.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names, in the order of the network's outputs."""
        return self.bundle.manifest.class_names

    @property
    def bundle_id(self) -> str:
        """SHA-256 that names the bundle."""
        return self.bundle.manifest.bundle_id

    @overload
    def predict(self, source: ImageSource) -> Result: ...  # type: ignore[overload-overlap]  # a str is one path

    @overload
    def predict(self, source: Sequence[ImageSource]) -> list[Result]: ...

    def predict(self, source: ImageSource | Sequence[ImageSource]) -> Result | list[Result]:
        """Predict on one image, or on a list of images.

        A file that is refused or cannot be read has a Result with that ``status`` and its reasons; it stops nothing.

        Args:
            source: The path of a file (PNG, JPEG, WebP, BMP, TIFF, DICOM), as a str or Path; a file's content, as
                bytes; an array (H, W) or (H, W, 3) of uint8, of uint16, or of floating point in [0, 1]; a PIL image; a
                pydicom dataset; or a list of any of these. hilum.imaging.convert.radiograph_of says how each becomes
                gray.

        Returns:
            A Result for one image, a list of them for a list, in its order. Each holds its decoded image: for more
            images than fit into memory use ``stream``.

        Raises:
            DataError: The source is a folder, no kind of image, or an array of another shape, dtype or range.
        """
        if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
            return list(self.stream(source))
        return next(self.stream([source]))

    def stream(self, sources: Iterable[ImageSource]) -> Iterator[Result]:
        """Yield a Result for each image, in order, while only a few batches are in memory.

        Args:
            sources: Images as for ``predict``; ``hilum.find_images`` gives those of folders.

        Raises:
            DataError: As for ``predict``, once that source is reached.
        """
        if isinstance(sources, (str, bytes, os.PathLike, Radiograph)) or is_image_like(sources):
            raise DataError("stream takes an iterable of images, got one.", hint="Use predict for one image.")
        return self.predictor.predict_many(_source(item, number) for number, item in enumerate(sources))


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    backend: BackendName = "auto",
    device: str = "cpu",
    gate: GateName = "learned",
    batch_size: int = 8,
    fix_orientation: bool = False,
) -> Model:
    """Load a model for prediction.

    Args:
        name_or_path: Nothing or ``default`` for the packaged model; a bundle (a folder or a ``.hilum`` file); or the
            folder of a run, whose bundle is taken.
        backend: ``auto``, ``onnxruntime`` or ``pytorch``.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        gate: The input check: ``learned``, ``classic`` (nine fixed rules) or ``none``.
        batch_size: Images in one forward pass.
        fix_orientation: Rotate and invert images that the input check finds rotated by quarter turns or inverted.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        ConfigError: An argument is not one of those above, or ``fix_orientation`` is asked of another gate than
            ``learned``, the only one that sees the orientation.
        DeviceError: The device is absent.
        MissingExtraError: The backend is not installed.
    """
    bundle = load_bundle(bundle_path(name_or_path))
    predictor = Predictor(
        bundle,
        backend=open_backend(bundle, backend, device=device),
        gate=open_gate(bundle, gate),
        batch_size=batch_size,
        fix_orientation=fix_orientation,
    )
    return Model(bundle, predictor)


def bundle_path(name_or_path: str | os.PathLike[str] | None) -> Path:
    """Return where the bundle lies that ``load`` would open for ``name_or_path``.

    Raises:
        BundleError: The run has no bundle, or this install has no packaged model.
    """
    if name_or_path is None:
        return resolve_bundle(DEFAULT)
    if not os.fspath(name_or_path):
        raise BundleError("The path of the bundle is empty.", hint="Leave it out for the packaged model.")
    return resolve_bundle(name_or_path if isinstance(name_or_path, str) else Path(name_or_path))


def to_dataframe(results: Result | Iterable[Result]) -> pandas.DataFrame:
    """Return results, or one, as a pandas data frame: one row each, with the columns of ``predictions.csv``.

    The columns are ``file, status, predicted_label, prediction_set, abstained, prob_<class>..., lung_fraction,
    reason``; what does not exist is missing.

    Raises:
        MissingExtraError: pandas is not installed.
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
            "reason": result.reason,
        }
        for result in results
    ]
    return pandas.DataFrame(rows)


def _source(item: ImageSource, number: int) -> Source:
    """An item as the predictor takes it; ``number`` names what has no name."""
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
        f"Expected an image, got {type(item).__module__}.{type(item).__qualname__}.",
        hint="Pass a path, bytes, a NumPy array, a PIL image, a pydicom Dataset, or a list of them.",
    )
