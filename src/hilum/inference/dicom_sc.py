"""Build a DICOM Secondary Capture of a prediction: the overlay with its legend, as an image that every viewer shows."""

from __future__ import annotations

import highdicom.sc
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from hilum.bundle.bundle import Manifest
from hilum.inference.dicom_names import RESEARCH_ONLY, made_by
from hilum.inference.legend import draw_notice
from hilum.inference.render import draw_overlay
from hilum.inference.result import Prediction

_SERIES_NUMBER = 903
_LONGEST_SIDE = 2048
"""Pixels; workstations show it at their own size."""


def build_capture(source: Dataset, prediction: Prediction, manifest: Manifest, settings: str) -> Dataset:
    """Build the object; see hilum.inference.dicom_out.capture for arguments and errors."""
    drawn = draw_overlay(prediction, longest_side=_LONGEST_SIDE)
    pixels = np.concatenate([drawn, draw_notice(RESEARCH_ONLY, drawn.shape[1])])
    built = highdicom.sc.SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # replaced below
        series_number=_SERIES_NUMBER,
        series_description="hilum: overlay",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **made_by(source, manifest, "sc", settings),
    )
    built.Laterality = source.get("Laterality", "")  # type 2C, which highdicom omits
    built.PatientOrientation = source.get("PatientOrientation", "")
    built.BurnedInAnnotation = "YES"
    built.DerivationDescription = "Lung outline, evidence and legend drawn over the image. Research tool."
    built.SourceImageSequence = Sequence([_reference(source)])
    built.ImageComments = RESEARCH_ONLY
    return built


def _reference(source: Dataset) -> Dataset:
    item, purpose, code = Dataset(), Dataset(), codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code[0], code[1], code[2]
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = Sequence([purpose])
    return item
