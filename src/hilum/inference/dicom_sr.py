"""Build the DICOM structured report of a prediction, or of a refused image with the reasons.

It follows TID 1500 "Measurement Report": one group of measurements (probabilities, lung fraction) and coded
evaluations (label, prediction set, abstention) of the source image, extended by text content items with the findings
of the input check and the disclaimer.
"""

from __future__ import annotations

import highdicom.sr as sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from hilum.bundle.bundle import Manifest
from hilum.inference.dicom_names import (
    NOT_A_DEVICE,
    class_code,
    device_uid,
    long_string,
    made_by,
    own_code,
    tracking_uid,
    version,
)
from hilum.inference.result import Prediction, Result

STATUS = own_code("status", "Status of the answer")
PREDICTED_LABEL = own_code("predicted-label", "Predicted class, the most probable one")
PREDICTION_SET = own_code("prediction-set", "Class that is not ruled out")
ABSTAINED = own_code("abstained", "Abstained: a person should decide")
LUNG_FRACTION = own_code("lung-fraction", "Lung as a share of the image area")
GATE_FINDING = own_code("gate-finding", "Finding of the input checks")

_PLAIN_CHEST = Code("399208008", "SCT", "Plain X-ray of chest")
_SHARE = Code("1", "UCUM", "no units")
_SERIES_NUMBER = 902


def build_report(source: Dataset, result: Result, manifest: Manifest, settings: str) -> Dataset:
    """Build the object; see hilum.inference.dicom_out.report for arguments and errors."""
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=tracking_uid(str(source.SOPInstanceUID), manifest.bundle_id, "report", settings), identifier="hilum"
        ),
        algorithm_id=sr.AlgorithmIdentification(
            name="hilum",
            version=version(manifest),
            parameters=_parameters(manifest, settings),
        ),
        measurements=_measurements(result) if isinstance(result, Prediction) else None,
        qualitative_evaluations=_evaluations(result),
        source_images=[
            sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=str(source.SOPClassUID),
                referenced_sop_instance_uid=str(source.SOPInstanceUID),
            )
        ],
    )
    group[0].ContentSequence.extend(_text(GATE_FINDING, finding.message) for finding in result.findings)
    content = sr.MeasurementReport(
        observation_context=_observation_context(manifest),
        procedure_reported=_PLAIN_CHEST,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    content[0].ContentSequence.append(_text(codes.DCM.Comment, NOT_A_DEVICE))
    return sr.ComprehensiveSR(
        evidence=[source],
        content=content,
        series_number=_SERIES_NUMBER,
        series_description="hilum: answer and probabilities",
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **made_by(source, manifest, "sr", settings),
    )


def _measurements(prediction: Prediction) -> list[sr.Measurement]:
    pairs = prediction.probabilities.items()
    return [
        *(_share(class_code(name, "probability"), float(value)) for name, value in pairs),
        _share(LUNG_FRACTION, prediction.lung_fraction),
    ]


def _share(name: Code, value: float) -> sr.Measurement:
    return sr.Measurement(name=name, value=round(value, 6), unit=_SHARE)


def _evaluations(result: Result) -> list[sr.QualitativeEvaluation]:
    status = sr.QualitativeEvaluation(STATUS, own_code(result.status, result.status))
    if not isinstance(result, Prediction):
        return [status]
    return [
        status,
        sr.QualitativeEvaluation(PREDICTED_LABEL, class_code(result.label)),
        *(sr.QualitativeEvaluation(PREDICTION_SET, class_code(name)) for name in result.prediction_set),
        sr.QualitativeEvaluation(ABSTAINED, codes.SCT.Yes if result.abstained else codes.SCT.No),
    ]


def _parameters(manifest: Manifest, settings: str) -> list[str]:
    of_bundle = [f"bundle_id={manifest.bundle_id}", f"prediction_set_level={manifest.prediction_set_level}"]
    return [*of_bundle, *([f"settings={settings}"] if settings else [])]


def _observation_context(manifest: Manifest) -> sr.ObservationContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(manifest.bundle_id),
        name="hilum",
        manufacturer_name="hilum",
        model_name=long_string(manifest.name) or "hilum",
        serial_number=manifest.bundle_id or "unsealed",
    )
    return sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))


def _text(name: Code, value: str) -> sr.TextContentItem:
    return sr.TextContentItem(name=name, value=value, relationship_type=sr.RelationshipTypeValues.CONTAINS)
