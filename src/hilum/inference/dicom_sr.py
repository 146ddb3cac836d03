"""Build the DICOM structured report of a prediction, or of a refused image with the reasons.

It follows TID 1500 "Measurement Report". A group for the source image (TID 1501) has the probabilities, the lung
fraction and coded evaluations (predicted class, prediction set, abstention), extended by text: findings of the input
check, evidence in words. A group for each segment of the segmentation (TID 1410) has finding sites and measurements.
"""

from __future__ import annotations

from typing import TypeAlias

import highdicom.sr as sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from hilum.bundle.bundle import Manifest
from hilum.inference.dicom_codes import LEVEL_CODES, SIDE_CODES, class_code, long_string, own_code, probability_code
from hilum.inference.dicom_names import (
    NOT_A_DEVICE,
    device_uid,
    instance_uid,
    made_by,
    series_uid,
    tracking_uid,
    version,
)
from hilum.inference.dicom_seg import EVIDENCE, RIGHT, segment_label, segment_masks
from hilum.inference.result import Prediction, Result
from hilum.inference.zones import NAMED, OUTSIDE, ZONES

STATUS = own_code("status", "Status of the answer")
PREDICTED_LABEL = own_code("predicted-label", "Predicted class, the most probable one")
PREDICTION_SET = own_code("prediction-set", "Class that is not ruled out")
ABSTAINED = own_code("abstained", "Abstained: a person should decide")
LUNG_FRACTION = own_code("lung-fraction", "Lung as a share of the image area")
EVIDENCE_SHARE = own_code("evidence-share", "Share of the evidence in a zone of the lung")
EVIDENCE_OUTSIDE = own_code("evidence-outside", "Share of the evidence outside the lungs")
EVIDENCE_SUMMARY = own_code("evidence-summary", "Evidence in words")
GATE_FINDING = own_code("gate-finding", "Finding of the input checks")

_Group: TypeAlias = sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations
_PLAIN_CHEST = Code("399208008", "SCT", "Plain X-ray of chest")
_SHARE = Code("1", "UCUM", "no units")
_SERIES_NUMBER = 902


def build_report(source: Dataset, result: Result, manifest: Manifest, settings: str) -> Dataset:
    """Build the object; see hilum.inference.dicom_out.report for arguments and errors."""
    evidence = [source]
    groups: list[_Group] = [_image_group(source, result, manifest, settings)]
    if isinstance(result, Prediction):
        groups.extend(_segment_groups(source, result, manifest, settings))
        evidence.append(_segmentation(source, manifest, settings))
    content = sr.MeasurementReport(
        observation_context=_observation_context(manifest),
        procedure_reported=_PLAIN_CHEST,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    content[0].ContentSequence.append(_text(codes.DCM.Comment, NOT_A_DEVICE))
    return sr.ComprehensiveSR(
        evidence=evidence,
        content=content,
        series_number=_SERIES_NUMBER,
        series_description="hilum: answer and probabilities",
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **made_by(source, manifest, "sr", settings),
    )


def _image_group(
    source: Dataset, result: Result, manifest: Manifest, settings: str
) -> sr.MeasurementsAndQualitativeEvaluations:
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=tracking_uid(str(source.SOPInstanceUID), manifest.bundle_id, "report", settings), identifier="hilum"
        ),
        algorithm_id=_algorithm(manifest, settings),
        measurements=_measurements(result) if isinstance(result, Prediction) else None,
        qualitative_evaluations=_evaluations(result),
        source_images=[
            sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=str(source.SOPClassUID),
                referenced_sop_instance_uid=str(source.SOPInstanceUID),
            )
        ],
    )
    texts = [_text(GATE_FINDING, finding.message) for finding in result.findings]
    if result.evidence_summary is not None:
        texts.append(_text(EVIDENCE_SUMMARY, result.evidence_summary))
    group[0].ContentSequence.extend(texts)
    return group


def _segment_groups(
    source: Dataset, prediction: Prediction, manifest: Manifest, settings: str
) -> list[sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
    """Return a group for each segment, with the tracking identifiers of the segmentation."""
    image, bundle_id = str(source.SOPInstanceUID), manifest.bundle_id
    groups = []
    for number, (name, mask) in enumerate(segment_masks(source, prediction, manifest).items(), start=1):
        if name == EVIDENCE:
            kind, sites, measurements = class_code(prediction.label), _evidence_sites(prediction), _zones(prediction)
        else:
            side = SIDE_CODES["right" if name == RIGHT else "left"]
            kind, sites = codes.SCT.Lung, [sr.FindingSite(codes.SCT.Lung, laterality=side)]
            measurements = [_share(LUNG_FRACTION, float(mask.mean()))]
        groups.append(
            sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(
                    uid=tracking_uid(image, bundle_id, name, settings), identifier=segment_label(name, prediction)
                ),
                referenced_segment=_segment(source, instance_uid(image, bundle_id, "seg", settings), number),
                finding_type=kind,
                finding_sites=sites,
                algorithm_id=_algorithm(manifest, settings),
                measurements=measurements,
            )
        )
    return groups


def _segment(source: Dataset, segmentation_uid: str, number: int) -> sr.ReferencedSegmentationFrame:
    """Return the reference to a segment: by its number alone, since the standard allows no frame number beside it."""
    reference = sr.ReferencedSegmentationFrame(
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=segmentation_uid,
        frame_number=number,
        segment_number=number,
        source_image=sr.SourceImageForSegmentation(str(source.SOPClassUID), str(source.SOPInstanceUID)),
    )
    del reference[0].ReferencedSOPSequence[0].ReferencedFrameNumber  # PS3.3 table 10-3
    return reference


def _evidence_sites(prediction: Prediction) -> list[sr.FindingSite]:
    """Return the zones that the summary names, largest share first."""
    shares = prediction.evidence_zones or {}
    named = [zone for zone in ZONES if shares.get(zone, 0) >= NAMED]
    return [_site(zone) for zone in sorted(named, key=lambda zone: -shares[zone])]


def _zones(prediction: Prediction) -> list[sr.Measurement]:
    if prediction.evidence_zones is None:
        return []
    shares = dict(prediction.evidence_zones)
    outside = _share(EVIDENCE_OUTSIDE, shares.pop(OUTSIDE))
    return [*(_share(EVIDENCE_SHARE, share, [_site(zone)]) for zone, share in shares.items()), outside]


def _site(zone: str) -> sr.FindingSite:
    side, level = zone.split("_")
    return sr.FindingSite(LEVEL_CODES[level], laterality=SIDE_CODES[side])


def _segmentation(source: Dataset, manifest: Manifest, settings: str) -> Dataset:
    """Return the identifiers of the segmentation that the report refers to."""
    image, reference = str(source.SOPInstanceUID), Dataset()
    reference.SOPClassUID, reference.StudyInstanceUID = SegmentationStorage, source.StudyInstanceUID
    reference.SOPInstanceUID = instance_uid(image, manifest.bundle_id, "seg", settings)
    reference.SeriesInstanceUID = series_uid(image, manifest.bundle_id, "seg", settings)
    return reference


def _measurements(prediction: Prediction) -> list[sr.Measurement]:
    pairs = prediction.probabilities.items()
    return [
        *(_share(probability_code(name), float(value)) for name, value in pairs),
        _share(LUNG_FRACTION, prediction.lung_fraction),
    ]


def _share(name: Code, value: float, sites: list[sr.FindingSite] | None = None) -> sr.Measurement:
    return sr.Measurement(name=name, value=round(value, 6), unit=_SHARE, finding_sites=sites)


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


def _algorithm(manifest: Manifest, settings: str) -> sr.AlgorithmIdentification:
    of_bundle = [f"bundle_id={manifest.bundle_id}", f"prediction_set_level={manifest.prediction_set_level}"]
    parameters = [*of_bundle, *([f"settings={settings}"] if settings else [])]
    return sr.AlgorithmIdentification(name="hilum", version=version(manifest), parameters=parameters)


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
