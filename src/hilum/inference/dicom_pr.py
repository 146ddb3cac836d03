"""Build a Grayscale Softcopy Presentation State of a prediction: outlines and words as graphics over the image.

The image is displayed as its own header says (modality LUT, VOI LUT or window, polarity; PS3.3 C.11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import cv2
import highdicom as hd
import highdicom.pr
import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from hilum.bundle.bundle import Manifest
from hilum.errors import DataError
from hilum.imaging.dicom import LookUp, pixel_aspect, read_lut, rescale, window
from hilum.inference.contour import BANDS
from hilum.inference.dicom_names import RESEARCH_ONLY, made_by, tracking_uid
from hilum.inference.dicom_seg import EVIDENCE, LEFT, RIGHT, segment_label, segment_masks
from hilum.inference.dicom_source import lut_item
from hilum.inference.legend import OUTLINE, TEXT, percent
from hilum.inference.result import Prediction

_SERIES_NUMBER = 904
_MOST_POINTS = 4000
"""Maximum number of points of an outline, whose element has at most 65,534 bytes."""
_TEXT_BOX = (0.02, 0.01, 0.98, 0.12)
"""Left, top, right and bottom of the text, as fractions of the displayed area."""


def build_presentation(source: Dataset, prediction: Prediction, manifest: Manifest, settings: str) -> Dataset:
    """Build the object; see hilum.inference.dicom_out.presentation for arguments and errors."""
    if not is_gray(source):
        raise DataError("A presentation state needs a gray image, got color.", hint="Use a secondary capture instead.")
    layers, annotations = _annotations(source, prediction, manifest, settings)
    built = highdicom.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[_without_transformations(source)],
        series_number=_SERIES_NUMBER,
        series_description="hilum: outlines",
        content_label="HILUM",
        content_description="Lungs and evidence. Research tool, not a medical device.",
        graphic_layers=layers,
        graphic_annotations=annotations,
        modality_lut_transformation=_modality(source),
        voi_lut_transformations=_value_of_interest(source),
        presentation_lut_transformation=hd.PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if source.get("PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
        ),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **made_by(source, manifest, "pr", settings),
    )
    built.Laterality = source.get("Laterality", "")  # type 2C, which highdicom omits
    if (aspect := pixel_aspect(source)) != 1:
        built.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio = [round(1000 * aspect), 1000]
    return built


def is_gray(source: Dataset) -> bool:
    """Return whether an image has one sample per pixel, which a grayscale presentation state requires."""
    return int(source.get("SamplesPerPixel", 1)) == 1


def _annotations(
    source: Dataset, prediction: Prediction, manifest: Manifest, settings: str
) -> tuple[list[highdicom.pr.GraphicLayer], list[highdicom.pr.GraphicAnnotation]]:
    masks = segment_masks(source, prediction, manifest)
    facts = source, prediction, manifest, settings
    lungs = _outlines({name: masks[name] for name in (RIGHT, LEFT)}, *facts)
    region = _outlines({name: mask for name, mask in masks.items() if name == EVIDENCE}, *facts)
    words = highdicom.pr.TextObject(
        _words(prediction), units="DISPLAY", bounding_box=_TEXT_BOX, text_justification="LEFT"
    )
    layers: list[highdicom.pr.GraphicLayer] = []
    annotations: list[highdicom.pr.GraphicAnnotation] = []
    for name, color, graphics, texts in (
        ("LUNGS", OUTLINE, lungs, []), ("EVIDENCE", BANDS[0], region, []), ("TEXT", TEXT, [], [words])
    ):  # fmt: skip
        if graphics or texts:
            layer = highdicom.pr.GraphicLayer(name, len(layers) + 1, display_color=CIELabColor.from_rgb(*color))
            layers.append(layer)
            annotations.append(
                highdicom.pr.GraphicAnnotation([source], layer, graphic_objects=graphics, text_objects=texts)
            )
    return layers, annotations


def _words(prediction: Prediction) -> str:
    doubt = "Uncertain: a person should decide" if prediction.abstained else ""
    answer = f"{prediction.label} {percent(prediction.probability)}"
    lines = (answer, doubt, prediction.evidence_summary, RESEARCH_ONLY)
    return "\r\n".join(line for line in lines if line)[:1000]


def _outlines(
    masks: Mapping[str, NDArray[np.bool_]], source: Dataset, prediction: Prediction, manifest: Manifest, settings: str
) -> list[highdicom.pr.GraphicObject]:
    """Return the outlines of masks as closed lines; the middle of the first pixel is at (0.5, 0.5) (PS3.3 C.10.5)."""
    return [
        highdicom.pr.GraphicObject(
            graphic_type="POLYLINE",
            graphic_data=line,
            units="PIXEL",
            tracking_id=segment_label(name, prediction),
            tracking_uid=tracking_uid(str(source.SOPInstanceUID), manifest.bundle_id, name, settings),
        )
        for name, mask in masks.items()
        for line in closed_lines(mask)
    ]


def closed_lines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the outlines of a mask (H, W), holes too, as (n, 2) columns and rows through the middles of its pixels.

    The first point is repeated at the end. Points within a pixel of the line between others are left out.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = []
    for contour in contours:
        tolerance = 0.75
        while len(kept := cv2.approxPolyDP(contour, tolerance, True)) > _MOST_POINTS:
            tolerance *= 2
        points = kept[:, 0].astype(np.float64) + 0.5
        lines.append(np.concatenate([points, points[:1]]))
    return lines


def _without_transformations(source: Dataset) -> Dataset:
    """Return the header without what highdicom would copy from it: malformed values would end in its exceptions."""
    reference = Dataset()
    reference.update({element.tag: element for element in source if element.keyword not in _TRANSFORMATIONS})
    return reference


_TRANSFORMATIONS = (
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter",
    "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction",
)  # fmt: skip


def _modality(source: Dataset) -> hd.ModalityLUTTransformation | None:
    if source.get("ModalityLUTSequence"):
        item = source.ModalityLUTSequence[0]
        built = hd.ModalityLUT(str(item.get("ModalityLUTType") or "US"), 0, np.zeros(1, np.uint16))
        return hd.ModalityLUTTransformation(modality_lut=_filled(built, read_lut(item)))
    slope, intercept = rescale(source)
    if (slope, intercept) == (1, 0):
        return None
    kind = str(source.get("RescaleType") or "US")
    return hd.ModalityLUTTransformation(rescale_slope=slope, rescale_intercept=intercept, rescale_type=kind)


def _value_of_interest(source: Dataset) -> list[highdicom.pr.SoftcopyVOILUTTransformation] | None:
    """Return the first VOI LUT, else the first window, as the image is decoded; None if all values are displayed."""
    if luts := source.get("VOILUTSequence"):
        look_up = read_lut(luts[0])
        if look_up.bits != 8:  # a presentation state has entries of 8 or 16 bits (PS3.3 C.11.8)
            scaled = np.rint(look_up.table * (65535 / (2**look_up.bits - 1))).astype(np.int64)
            look_up = look_up._replace(table=scaled, bits=16)
        lut = _filled(hd.VOILUT(0, np.zeros(1, np.uint16)), look_up)
        return [highdicom.pr.SoftcopyVOILUTTransformation(voi_luts=[lut])]
    if (shown := window(source)) is None:
        return None
    center, width, function = shown
    return [
        highdicom.pr.SoftcopyVOILUTTransformation(window_center=center, window_width=width, voi_lut_function=function)
    ]


_Lut = TypeVar("_Lut", bound=Dataset)


def _filled(lut: _Lut, look_up: LookUp) -> _Lut:
    """Fill a LUT of highdicom, which takes neither negative input values nor entries of 12 bits."""
    item = lut_item(look_up)
    lut.add(item["LUTDescriptor"])
    lut.add(item["LUTData"])
    return lut
