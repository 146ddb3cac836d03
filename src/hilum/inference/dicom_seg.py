"""Build the DICOM Segmentation of a prediction: right lung, left lung, and evidence for the predicted class."""

from __future__ import annotations

from collections.abc import Mapping

import highdicom.seg
import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from hilum.bundle.bundle import Manifest
from hilum.errors import DataError
from hilum.inference.contour import BANDS, LEVELS, Rgb, evidence_region
from hilum.inference.dicom_codes import LEFT_LUNG, RIGHT_LUNG, class_code, long_string
from hilum.inference.dicom_names import dimensions_uid, made_by, tracking_uid, version
from hilum.inference.legend import OUTLINE
from hilum.inference.render import class_evidence
from hilum.inference.result import Prediction

RIGHT, LEFT, EVIDENCE = "right lung", "left lung", "evidence"
"""Names of the segments, in the order of their numbers, which begin at 1; each has one frame of the same number."""

_LEFT_COLOR: Rgb = (0, 114, 178)  # the darker blue of the same palette as OUTLINE
_SERIES_NUMBER = 901


def build_segmentation(source: Dataset, prediction: Prediction, manifest: Manifest, settings: str) -> Dataset:
    """Build the object; see hilum.inference.dicom_out.segmentation for arguments and errors."""
    masks = segment_masks(source, prediction, manifest)
    built = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(np.uint8)[None],  # (1, H0, W0, segments)
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, name, source, prediction, manifest, settings) for number, name in enumerate(masks, start=1)
        ],
        series_number=_SERIES_NUMBER,
        series_description="hilum: lungs and evidence",
        content_label="HILUM",
        content_description="Lungs and evidence. Research tool, not a medical device.",
        omit_empty_frames=False,  # an empty mask is a valid result, and an object needs a frame
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **made_by(source, manifest, "seg", settings),
    )
    for item in (*built.DimensionOrganizationSequence, *built.DimensionIndexSequence):  # highdicom draws a UID
        item.DimensionOrganizationUID = dimensions_uid(str(source.SOPInstanceUID), manifest.bundle_id, settings)
    if "FrameOfReferenceUID" not in source:  # Patient Orientation is required only in this case
        built.PatientOrientation = source.get("PatientOrientation", "")
    return built


def segment_masks(source: Dataset, prediction: Prediction, manifest: Manifest) -> Mapping[str, NDArray[np.bool_]]:
    """Return the masks of RIGHT, LEFT and, if any is drawn, EVIDENCE, (Rows, Columns) bool.

    Raises:
        DataError: The mask of the prediction has another size than the source.
    """
    shape = int(source.Rows), int(source.Columns)
    if prediction.mask.shape != shape:
        raise DataError(
            f"Expected a mask of the image's {shape[0]} rows and {shape[1]} columns, got {prediction.mask.shape}.",
            hint="Use the header of the image that was predicted.",
        )
    lungs = prediction.lungs
    evidence = evidence_region(prediction, class_evidence(prediction, shape, manifest.preprocess))
    return {RIGHT: lungs.right, LEFT: lungs.left, **({} if evidence is None else {EVIDENCE: evidence})}


def segment_label(name: str, prediction: Prediction) -> str:
    """Return the label of a segment, which is its tracking ID."""
    return long_string(f"Evidence for {prediction.label}") if name == EVIDENCE else name.capitalize()


def _segment(
    number: int, name: str, source: Dataset, prediction: Prediction, manifest: Manifest, settings: str
) -> highdicom.seg.SegmentDescription:
    categories: dict[str, tuple[Code, Code, Rgb]] = {
        RIGHT: (codes.SCT.AnatomicalStructure, RIGHT_LUNG, OUTLINE),
        LEFT: (codes.SCT.AnatomicalStructure, LEFT_LUNG, _LEFT_COLOR),
        EVIDENCE: (codes.SCT.SpatialAndRelationalConcept, codes.DCM.ClassActivation, BANDS[0]),
    }
    category, kind, color = categories[name]
    parameters = {"bundle_id": manifest.bundle_id or "unsealed"}
    if settings:
        parameters["settings"] = settings
    if name == EVIDENCE:
        parameters["from_share_of_peak"] = f"{LEVELS[0]:g}"
    else:
        parameters["above_probability"] = f"{manifest.mask_threshold:g}"
    described = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment_label(name, prediction),
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name="hilum",
            family=codes.DCM.ArtificialIntelligence,
            version=version(manifest),
            source="hilum",
            parameters=parameters,
        ),
        tracking_uid=tracking_uid(str(source.SOPInstanceUID), manifest.bundle_id, name, settings),
        tracking_id=segment_label(name, prediction),
        display_color=CIELabColor.from_rgb(*color),
    )
    if name == EVIDENCE:  # the class that is activated
        modifier = CodedConcept.from_code(class_code(prediction.label))
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return described
