"""The report as a DICOM Structured Report after template TID 1500, "Measurement Report" (PS3.16).

It belongs to the film's study. A film that is no DICOM file gets a study of its own, without a patient; the study's UID
follows from the film, so that its structured report and its picture lie in one study.
"""

import uuid
from typing import Final

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ComprehensiveSR,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from pneumonet import __version__
from pneumonet.reports.codes import (
    ARTIFICIAL_INTELLIGENCE,
    CHEST_FILM,
    CLASSES,
    COMMENT,
    FINDING,
    INDETERMINATE,
    LEFT_OPEN,
    LUNG,
    MOST_LIKELY,
    NO_PATTERN,
    OWN,
    PERCENT,
    PROBABILITY,
    RISK_LEVEL,
    RISKS,
    Code,
    conclusion_of,
)
from pneumonet.reports.dicom_file import MANUFACTURER, MODEL_NAME, as_file, equipment, new_uid, study_of
from pneumonet.reports.dicom_source import Instance, Source, read_source
from pneumonet.reports.document import Report

_SERIES_NUMBER: Final = 9701
_DEVICE_UID: Final = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, 'urn:pneumonet').int}"


def as_structured_report(report: Report) -> bytes:
    """Return the report as a DICOM file: Comprehensive SR, template TID 1500, not verified by anybody."""
    source = read_source(report.data)
    study = study_of(source, report)
    document = ComprehensiveSR(
        evidence=[study],
        content=_content(report, source),
        series_instance_uid=new_uid(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=new_uid(),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        **equipment(report, "PneumoNet report, research use only"),
    )
    if source.instance is None:
        # The film has no instance to point at; its digest stands in the text.
        document.pop("CurrentRequestedProcedureEvidenceSequence", None)
    document.CodingSchemeIdentificationSequence = [_own_scheme()]
    return as_file(document, source)


def _own_scheme() -> Dataset:
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = OWN, MODEL_NAME
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    return scheme


def _content(report: Report, source: Source) -> Dataset:
    observer = ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=_DEVICE_UID,
            name=MODEL_NAME,
            manufacturer_name=MANUFACTURER,
            model_name=MODEL_NAME,
            serial_number=report.model.version,
        ),
    )
    content = MeasurementReport(
        language_of_content_item_and_descendants=_language(report),
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=_concept(CHEST_FILM),
        imaging_measurements=[_answer(report, source)],
    )
    return content[0]


def _language(report: Report) -> LanguageOfContentItemAndDescendants:
    # The sentences' own; the codes' meanings are English, as their systems word them.
    tag = CodedConcept(report.language.tag, "RFC5646", report.language.name)
    return LanguageOfContentItemAndDescendants(tag)


def _answer(report: Report, source: Source) -> MeasurementsAndQualitativeEvaluations:
    instance, finding = source.instance, report.finding
    evaluations = [QualitativeEvaluation(_concept(RISK_LEVEL), _concept(RISKS[report.risk]))]
    if finding:
        evaluations.insert(0, QualitativeEvaluation(_concept(MOST_LIKELY), _concept(CLASSES[finding.label])))
        evaluations += [
            QualitativeEvaluation(_concept(LEFT_OPEN), _concept(CLASSES[name])) for name in finding.prediction_set
        ]
    conclusion = conclusion_of(report)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=new_uid(), identifier="PneumoNet answer"),
        finding_type=_concept(conclusion),
        # Only what was found lies somewhere.
        finding_sites=None if conclusion in (NO_PATTERN, INDETERMINATE) else [FindingSite(_concept(LUNG))],
        algorithm_id=_algorithm(report),
        measurements=[_probability(name, p) for name, p in report.probabilities],
        qualitative_evaluations=evaluations,
        source_images=[_source_image(instance, report)] if instance else None,
    )
    contains = RelationshipTypeValues.CONTAINS
    for sentence in _sentences(report):
        group[0].ContentSequence.append(TextContentItem(_concept(COMMENT), sentence, relationship_type=contains))
    return group


def _source_image(instance: Instance, report: Report) -> SourceImageForMeasurementGroup:
    # DICOM counts frames from 1, and wants them named where not all are meant.
    frames = [report.film.frame + 1] if report.film.frames > 1 else None
    return SourceImageForMeasurementGroup(instance.class_uid, instance.instance_uid, frames)


def _algorithm(report: Report) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=MODEL_NAME,
        version=f"{report.model.version} ({report.model.revision})",
        manufacturer=MANUFACTURER,
        family=_concept(ARTIFICIAL_INTELLIGENCE),
        parameters=[
            f"software {__version__}",
            f"weights {report.origin}",
            *([f"coverage of the prediction set {report.coverage:g}"] if report.coverage is not None else []),
            *(f"SHA-256 of {path}: {digest}" for path, digest in report.weights.items()),
        ],
    )


def _probability(name: str, probability: float) -> Measurement:
    # The digits of the JSON answer, as percent. The modifier says whose probability it is: the Finding above it is one.
    measured = Measurement(_concept(PROBABILITY), round(100 * round(probability, 6), 4), _concept(PERCENT))
    whose = CodeContentItem(
        _concept(FINDING), _concept(CLASSES[name]), relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD
    )
    measured[0].ContentSequence = ContentSequence([whose])
    return measured


def _sentences(report: Report) -> list[str]:
    said = [report.disclaimer, report.summary, report.risk_in_words]
    said += [*(reason.message for reason in report.reasons), *report.warnings]
    said += [text for text in (report.set_in_words, report.calibration_note) if text]
    if report.map_in_words:
        said += [report.map_in_words, report.heatmap_note]
    said += [*report.advice, *(f"{about}: {text}" for about, text in report.limits)]
    digest = report.language("SHA-256 of the film's file")
    return [*said, f"{digest}: {report.film_sha256}"]


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, code.meaning)
