"""The chosen image as the browser draws it: pixels, outline, evidence and region scale, as one JSON object.

The browser is given values, not pictures: it applies window, level and inversion to the image's own gray levels, and
draws evidence at any share of the lung, without asking again.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.bundle.bundle import Manifest
from hilum.config import PreprocessSpec
from hilum.errors import ReadError
from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import read_radiograph
from hilum.inference.contour import BANDS, FRACTION_BITS, LEVELS, OPACITY, evidence_scale
from hilum.inference.legend import percent
from hilum.inference.render import class_evidence, display_shape, outline
from hilum.inference.result import Prediction
from hilum.service.page.films import Film
from hilum.service.page.regions import region_scale
from hilum.types import Finding, Radiograph

GRID_SIDE = 192
"""Longer side of the grid on which evidence is sent; the network's own map is coarser."""
_LEVELS = 65535
_REACH = 3  # takes the steps of pixels off an outline that may be zoomed into


def film_view(film: Film, manifest: Manifest, max_pixels: int) -> str:
    """All that the browser shows of one image, as JSON; the image is decoded anew."""
    view: dict[str, Any] = {
        "key": film.key,
        "name": film.name,
        "status": film.status,
        "setLevel": set_level(manifest),
        "legend": {"levels": LEVELS, "bands": BANDS, "opacity": OPACITY},
    }
    radiograph = _decoded(film, max_pixels)
    if radiograph is not None:
        view["film"] = film_pixels(radiograph)
        view["facts"] = facts(film, radiograph)
    if film.result is not None and not film.result.ok:
        view["findings"] = _findings(film.result.findings)
    prediction = film.prediction()
    if prediction is not None and radiograph is not None:
        view |= answer(prediction, manifest)
        view |= drawn(prediction, radiograph.shape, manifest.preprocess)
    return json.dumps(view)


def film_pixels(radiograph: Radiograph) -> dict[str, Any]:
    """The image at its display size, deflated: 8 bits stay 8, more become 16 little-endian.

    ``low`` and ``high`` are the range of its gray levels as shares of the declared range.
    """
    height, width = display_shape(radiograph.shape)
    shrinks = height < radiograph.shape[0]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    deep = radiograph.bits_stored > 8
    pixels: NDArray[Any] = radiograph.pixels if deep else to_uint8(radiograph)
    if (height, width) != radiograph.shape:
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation), pixels.dtype)
    most = 2**radiograph.bits_stored - 1
    return {
        "width": width,
        "height": height,
        "bits": radiograph.bits_stored,
        "low": float(pixels.min()) / most,
        "high": float(pixels.max()) / most,
        "data": _deflated(pixels.astype("<u2" if deep else np.uint8)),
    }


def facts(film: Film, radiograph: Radiograph) -> str:
    """Size, depth or kind, and view of an image in one line."""
    height, width = radiograph.shape
    depth = "DICOM" if film.is_dicom else f"{radiograph.bits_stored} bits"  # DICOM is brought to 16 bits
    view = f", {radiograph.view_position}" if radiograph.view_position else ""
    return f"{width} × {height} px, {depth}{view}"


def answer(prediction: Prediction, manifest: Manifest) -> dict[str, Any]:
    """What was predicted, in words and numbers."""
    threshold = manifest.threshold_of(manifest.class_names.index(prediction.label))
    return {
        "label": prediction.label,
        "percent": percent(prediction.probability),
        "abstained": prediction.abstained,
        "abstainBelow": percent(threshold) if threshold else "",
        "others": [name for name in prediction.prediction_set if name != prediction.label],
        "lungFraction": percent(prediction.lung_fraction),
        "findings": _findings(found for found in prediction.findings if found.check != "low_confidence"),
    }


def drawn(prediction: Prediction, shape: tuple[int, int], spec: PreprocessSpec) -> dict[str, Any]:
    """The outline and, per class, the evidence on a grid, its scale and its regions."""
    size = display_shape(shape)
    factor = GRID_SIDE / max(shape)
    grid = max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))
    lung = cv2.resize(prediction.mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA) > 0.5
    maps, classes = [], []
    for name, probability in prediction.probabilities.items():
        told: dict[str, Any] = {
            "name": name,
            "probability": float(probability),
            "percent": percent(float(probability)),
            "inSet": name in prediction.prediction_set,
        }
        evidence = class_evidence(prediction, shape, spec, class_name=name, size=grid)
        if evidence is not None:
            shares, scale = _evidence_of(prediction, evidence, lung, name)
            maps.append(shares)
            told |= scale
        classes.append(told)
    lines = [
        np.round(line / 2**FRACTION_BITS, 1).ravel().tolist()
        for line in outline(prediction.mask, size, least_reach=_REACH)
    ]
    view: dict[str, Any] = {"outline": lines, "classes": classes}
    if maps:
        view["evidence"] = {"width": grid[1], "height": grid[0], "data": _deflated(np.stack(maps).astype("<u2"))}
    return view


def _evidence_of(
    prediction: Prediction, evidence: NDArray[np.float32], lung: NDArray[np.bool_], name: str
) -> tuple[NDArray[np.uint16], dict[str, Any]]:
    """The map as shares of its peak, and what it says; nothing is drawn where the scale is None."""
    assert prediction.evidence is not None
    cells = prediction.evidence[prediction.class_names.index(name)]
    told: dict[str, Any] = {
        "favor": float(cells[cells > 0].sum()),
        "against": float(cells[cells < 0].sum()),
        "peak": 0.0,
    }
    scale = evidence_scale(prediction, evidence, name)
    if scale is None:
        return np.zeros(evidence.shape, np.uint16), told
    shares = np.rint(np.clip(evidence / scale.peak, 0, 1) * _LEVELS).astype(np.uint16)
    # Regions are measured on what the browser draws.
    regions = region_scale(shares.astype(np.float32), lung)
    finite = np.where(np.isfinite(regions.thresholds), regions.thresholds, _LEVELS + 1)
    told |= {
        "peak": scale.peak,
        "thresholds": (finite / _LEVELS).round(6).tolist(),
        "lung": regions.lung.round(4).tolist(),
        "share": regions.evidence.round(4).tolist(),
    }
    return shares, told


def set_level(manifest: Manifest) -> str:
    """The coverage of the prediction sets, as ``90%``; empty where the bundle has none."""
    return f"{float(manifest.prediction_set_level):.0%}" if manifest.prediction_set_quantiles else ""


def _decoded(film: Film, max_pixels: int) -> Radiograph | None:
    if not film.content:
        return None
    try:
        return read_radiograph(film.content, origin=film.name, max_pixels=max_pixels)
    except ReadError:  # told by the image's refusal
        return None


def _findings(findings: Any) -> list[dict[str, str]]:
    found: list[Finding] = list(findings)
    return [{"check": one.check, "severity": one.severity, "message": one.message} for one in found]


def _deflated(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode()
