"""Build the DICOM Segmentation of a prediction: lungs, and evidence for the predicted class."""

from __future__ import annotations

import highdicom.seg
import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from hilum.bundle.bundle import Manifest
from hilum.errors import DataError
from hilum.inference.contour import BANDS, LEVELS, Rgb, evidence_region
from hilum.inference.dicom_names import class_code, long_string, made_by, tracking_uid, version
from hilum.inference.legend import OUTLINE
from hilum.inference.render import class_evidence
from hilum.inference.result import Prediction

_SERIES_NUMBER = 901


def build_segmentation(source: Dataset, prediction: Prediction, manifest: Manifest, settings: str) -> Dataset:
    """Build the object; see hilum.inference.dicom_out.segmentation for arguments and errors."""
    shape = int(source.Rows), int(source.Columns)
    if prediction.mask.shape != shape:
        raise DataError(
            f"Expected a mask of the image's {shape[0]} rows and {shape[1]} columns, got {prediction.mask.shape}.",
            hint="Use the header of the image that was predicted.",
        )
    evidence = evidence_region(prediction, class_evidence(prediction, shape, manifest.preprocess))
    masks = [prediction.mask] if evidence is None else [prediction.mask, evidence]
    built = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=_stacked(masks),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_descriptions(source, prediction, manifest, settings)[: len(masks)],
        series_number=_SERIES_NUMBER,
        series_description="hilum: lungs and evidence",
        content_label="HILUM",
        content_description="Lungs and evidence. Research tool, not a medical device.",
        omit_empty_frames=False,  # an empty mask is a valid result, and an object needs a frame
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **made_by(source, manifest, "seg", settings),
    )
    if "FrameOfReferenceUID" not in source:  # Patient Orientation is required only in this case
        built.PatientOrientation = source.get("PatientOrientation", "")
    return built


def _stacked(masks: list[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Stack masks into (1, H0, W0, number of segments) uint8."""
    return np.stack(masks, axis=-1).astype(np.uint8)[None]


def _descriptions(
    source: Dataset, prediction: Prediction, manifest: Manifest, settings: str
) -> list[highdicom.seg.SegmentDescription]:
    lung, spatial = codes.SCT.AnatomicalStructure, codes.SCT.SpatialAndRelationalConcept
    evidence = class_code(prediction.label, "evidence")
    return [
        _segment(1, "Lung", lung, codes.SCT.Lung, OUTLINE, source, manifest, settings),
        _segment(
            2, long_string(f"Evidence for {prediction.label}"), spatial, evidence, BANDS[0], source, manifest, settings
        ),
    ]


def _segment(
    number: int, label: str, category: Code, kind: Code, color: Rgb, source: Dataset, manifest: Manifest, settings: str
) -> highdicom.seg.SegmentDescription:
    parameters = {"bundle_id": manifest.bundle_id or "unsealed"}
    if settings:
        parameters["settings"] = settings
    if number > 1:
        parameters["from_share_of_peak"] = f"{LEVELS[0]:g}"
    else:
        parameters["above_probability"] = f"{manifest.mask_threshold:g}"
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
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
        tracking_uid=tracking_uid(str(source.SOPInstanceUID), manifest.bundle_id, f"segment {number}", settings),
        tracking_id=label,
        display_color=CIELabColor.from_rgb(*color),
    )
