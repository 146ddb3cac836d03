"""What a session can be left with: tables, overlays, masks, and all of it in one zip; made in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePath

from hilum.bundle.bundle import Manifest
from hilum.data.find import TABLE
from hilum.errors import DataError, ReadError
from hilum.imaging.read import read_radiograph
from hilum.inference.folder import image_names, table_header, table_row
from hilum.inference.predictor import Predictor
from hilum.inference.render import class_evidence, mask_png, overlay, png_bytes
from hilum.inference.result import Prediction
from hilum.service.page.films import Film
from hilum.storage import CsvWriter


def table_csv(films: Iterable[Film], manifest: Manifest) -> bytes:
    """``predictions.csv`` of the images that have an answer, as ``hilum predict`` writes it."""
    stream = io.StringIO(newline="")
    writer = CsvWriter(stream)
    writer.write_row(table_header(manifest))
    for film in films:
        if film.result is not None:
            writer.write_row(table_row(film.name, film.result, manifest))
    return stream.getvalue().encode("utf-8", "backslashreplace")


def mask_file(film: Film) -> bytes:
    """The lung mask as a PNG of 0 and 255, at the image's own size.

    Raises:
        DataError: the image has no prediction.
    """
    return png_bytes(mask_png(_prediction(film).mask))


def overlay_file(film: Film, manifest: Manifest, max_pixels: int, class_name: str | None = None) -> bytes:
    """The image with outline, evidence for one class (the predicted one by default) and legend, as a PNG.

    Raises:
        DataError: the image has no prediction.
        ReadError: it cannot be read.
    """
    prediction = _prediction(film)
    radiograph = read_radiograph(film.content, origin=film.name, max_pixels=max_pixels)
    evidence = class_evidence(prediction, radiograph.shape, manifest.preprocess, class_name=class_name)
    return png_bytes(overlay(radiograph, prediction, evidence=evidence, class_name=class_name))


def everything_zip(films: Iterable[Film], manifest: Manifest, max_pixels: int) -> bytes:
    """``predictions.csv``, ``overlays/`` and ``masks/`` in the layout of ``hilum predict``."""
    films = list(films)
    names = image_names([Path(film.name) for film in films])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:  # PNGs are deflated already
        archive.writestr(TABLE, table_csv(films, manifest), zipfile.ZIP_DEFLATED)
        for film in films:
            if isinstance(film.result, Prediction):
                name = names[Path(film.name)].as_posix()
                archive.writestr(f"overlays/{name}", overlay_file(film, manifest, max_pixels))
                archive.writestr(f"masks/{name}", mask_file(film))
    return stream.getvalue()


def why_no_objects(film: Film) -> str:
    """Why no DICOM object can be made of an image; empty where one can."""
    if not film.is_dicom:
        return "it is no DICOM file"
    from hilum.inference.dicom_source import source_header

    try:
        source_header(film.content, film.name)
    except ReadError as error:
        return str(error)
    return ""


def segmentation_file(film: Film, predictor: Predictor) -> bytes:
    """The image's DICOM Segmentation: lung, and the evidence region of the predicted class.

    Raises:
        DataError: the image has no prediction.
        ReadError: no object can be made of its header.
    """
    from hilum.inference.dicom_out import encoded, segmentation, source_header  # highdicom: most of a second

    return encoded(
        segmentation(source_header(film.content, film.name), _prediction(film), predictor.manifest, predictor.settings)
    )


def report_file(film: Film, predictor: Predictor) -> bytes:
    """The image's DICOM structured report, of a prediction or a refusal.

    Raises:
        DataError: the image has no answer.
        ReadError: no object can be made of its header.
    """
    from hilum.inference.dicom_out import encoded, report, source_header

    result = film.prediction() or film.result
    if result is None:
        raise DataError(f"Expected an image with an answer, {film.name} is {film.status}.")
    return encoded(report(source_header(film.content, film.name), result, predictor.manifest, predictor.settings))


def file_name(film: Film, what: str, suffix: str = ".png") -> str:
    """What a download of an image is called: ``film-mask.png``."""
    return f"{PurePath(film.name).stem}-{what}{suffix}"


def _prediction(film: Film) -> Prediction:
    prediction = film.prediction()
    if prediction is None:
        raise DataError(f"Expected an image with a prediction, {film.name} is {film.status}.")
    return prediction
