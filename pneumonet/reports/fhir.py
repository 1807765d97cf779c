"""The report as HL7 FHIR R4 (4.0.1): a Bundle of a DiagnosticReport, its Observations, a Device and an ImagingStudy.

Nobody's patient is named: where FHIR wants a subject it is said to be masked. Whoever files the report knows whose film
it was, by the study's UID.
"""

import json
import uuid
from html import escape
from typing import Any, Final

from pneumonet import __version__
from pneumonet.finding import DISCLAIMER
from pneumonet.reports.codes import (
    CLASSES,
    IMAGING_STUDY,
    LEFT_OPEN,
    MOST_LIKELY,
    OWN,
    PERCENT,
    PROBABILITY,
    RISK_LEVEL,
    RISKS,
    Code,
    conclusion_of,
)
from pneumonet.reports.dicom_source import Instance, read_source
from pneumonet.reports.document import Report
from pneumonet.taxonomy import NAMES_WITHIN
from pneumonet.wording import coverage_in_words

Resource = dict[str, Any]

_SYSTEMS: Final = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    OWN: "urn:pneumonet:codes",
}
_TERMS: Final = "http://terminology.hl7.org/CodeSystem/"
_MASKED: Final[Resource] = {
    "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}],
    "display": "Left out of this report",
}
_META: Final[Resource] = {"tag": [{"system": "urn:pneumonet:use", "code": "research-use-only", "display": DISCLAIMER}]}


def as_fhir(report: Report) -> bytes:
    """Return the report as a Bundle, JSON in UTF-8."""
    return json.dumps(as_bundle(report), indent=2, ensure_ascii=False).encode()


def as_bundle(report: Report) -> Resource:
    """Return the report as the object of a Bundle of type `collection`; its first entry is the DiagnosticReport."""
    source = read_source(report.data)
    device = _entry(_device(report))
    study = _entry(_imaging_study(source.study_uid, source.instance)) if source.study_uid else None
    shared: Resource = {
        "language": report.language.tag,
        "subject": _MASKED,
        # When the film was taken, which `effective` asks for, is the study's to say.
        "issued": report.instant,
        "device": _reference(device),
    }
    if study:
        shared["derivedFrom"] = [_reference(study)]
    observations = [_entry(_answer(report, shared))]
    observations += [_entry(_probability(report, name, p, shared)) for name, p in report.probabilities]
    main = _entry(_diagnostic_report(report, observations, study))
    entries = [main, *observations, device, *([study] if study else [])]
    return {
        "resourceType": "Bundle",
        "meta": _META,
        "identifier": {"system": "urn:pneumonet:request", "value": report.request_id},
        "type": "collection",
        "timestamp": report.instant,
        "entry": entries,
    }


def _entry(resource: Resource) -> Resource:
    return {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": resource | {"meta": _META}}


def _reference(entry: Resource) -> Resource:
    return {"reference": entry["fullUrl"], "type": entry["resource"]["resourceType"]}


def _concept(code: Code, text: str | None = None) -> Resource:
    coding = {"system": _SYSTEMS[code.scheme], "code": code.value, "display": code.meaning}
    return {"coding": [coding], "text": text or code.meaning}


def _notes(report: Report) -> list[Resource]:
    sentences = [report.disclaimer, *(reason.message for reason in report.reasons), *report.warnings]
    if report.map_in_words:
        sentences += [report.map_in_words, report.heatmap_note]
    sentences += report.advice
    return [{"text": sentence} for sentence in sentences]


def _diagnostic_report(report: Report, observations: list[Resource], study: Resource | None) -> Resource:
    sentences = [report.summary, report.risk_in_words]
    sentences += [text for text in (report.set_in_words, report.calibration_note) if text]
    sentences += [reason.message for reason in report.reasons]
    conclusion = "\n".join([*sentences, *report.warnings, report.disclaimer])
    resource: Resource = {
        "resourceType": "DiagnosticReport",
        "language": report.language.tag,
        "text": {"status": "generated", "div": _narrative(report, sentences)},
        "identifier": [{"system": "urn:pneumonet:request", "value": report.request_id}],
        # No clinician has looked at it; a refused film was never analysed.
        "status": "preliminary" if report.finding else "cancelled",
        "category": [{"coding": [{"system": f"{_TERMS}v2-0074", "code": "RAD", "display": "Radiology"}]}],
        "code": _concept(IMAGING_STUDY, report.language("PneumoNet report of a chest film")),
        "subject": _MASKED,
        "issued": report.instant,
        "result": [_reference(entry) for entry in observations],
        "conclusion": conclusion,
        "conclusionCode": [_concept(conclusion_of(report))],
    }
    if study:
        resource["imagingStudy"] = [_reference(study)]
    return resource


def _narrative(report: Report, sentences: list[str]) -> str:
    paragraphs = [report.disclaimer, *sentences, *report.warnings, *report.advice, *(text for _, text in report.limits)]
    opening = (
        f'<div xmlns="http://www.w3.org/1999/xhtml" lang="{report.language.tag}" dir="{report.language.direction}">'
    )
    return opening + "".join(f"<p>{escape(p)}</p>" for p in paragraphs) + "</div>"


def _answer(report: Report, shared: Resource) -> Resource:
    components = [
        {
            "code": _concept(RISK_LEVEL, report.language("Risk level")),
            "valueCodeableConcept": _concept(RISKS[report.risk], report.language(report.risk.value)),
        },
        {"code": {"text": report.language("SHA-256 of the film's file")}, "valueString": report.film_sha256},
    ]
    for name in report.finding.prediction_set if report.finding else ():
        left_open = report.language("Class left open")
        if report.coverage is not None:
            left_open += f" ({report.language(coverage_in_words(report.coverage))})"
        value = _concept(CLASSES[name], report.name(name))
        components.append({"code": _concept(LEFT_OPEN, left_open), "valueCodeableConcept": value})
    answer: Resource = {
        "resourceType": "Observation",
        "status": "preliminary" if report.finding else "cancelled",
        "category": [_imaging()],
        "code": _concept(MOST_LIKELY, report.language("Most likely class")),
        **shared,
        "note": _notes(report),
        "component": components,
    }
    if report.finding:
        return answer | {"valueCodeableConcept": _concept(CLASSES[report.finding.label], report.heading)}
    absent = {"system": f"{_TERMS}data-absent-reason", "code": "not-performed", "display": "Not Performed"}
    return answer | {"dataAbsentReason": {"coding": [absent], "text": report.heading}}


def _probability(report: Report, name: str, probability: float, shared: Resource) -> Resource:
    percent = {"unit": "%", "system": _SYSTEMS[PERCENT.scheme], "code": PERCENT.value}
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [_imaging()],
        "code": _concept(PROBABILITY, report.language("Probability of {label}", label=NAMES_WITHIN[name])),
        **shared,
        # The digits of the JSON answer, as percent.
        "valueQuantity": {"value": round(100 * round(probability, 6), 4), **percent},
        "component": [
            {
                "code": {"text": report.language("Class")},
                "valueCodeableConcept": _concept(CLASSES[name], report.name(name)),
            }
        ],
        "note": [{"text": text} for text in (report.disclaimer, report.calibration_note) if text],
    }


def _imaging() -> Resource:
    return {"coding": [{"system": f"{_TERMS}observation-category", "code": "imaging", "display": "Imaging"}]}


def _device(report: Report) -> Resource:
    language = report.language
    versions = [
        (language("Weights"), report.model.version),
        (language("Revision"), report.origin),
        (language("Software"), __version__),
        *((f"SHA-256: {path}", digest) for path, digest in report.weights.items()),
    ]
    return {
        "resourceType": "Device",
        "identifier": [{"system": "urn:pneumonet:config", "value": report.config.fingerprint}],
        "status": "active",
        "deviceName": [{"name": "PneumoNet", "type": "model-name"}],
        "type": {"text": language("Image classification software, for research use only")},
        "version": [{"type": {"text": what}, "value": value} for what, value in versions],
        "note": [{"text": report.disclaimer}, *({"text": f"{about}: {text}"} for about, text in report.limits)],
    }


def _imaging_study(study_uid: str, instance: Instance | None) -> Resource:
    # How many series and instances the study has nobody here knows: it is named, not counted.
    study: Resource = {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{study_uid}"}],
        "status": "available",
        "subject": _MASKED,
    }
    if instance is None:
        return study
    series: Resource = {
        "uid": instance.series_uid,
        "modality": {"system": _SYSTEMS["DCM"], "code": instance.modality or "OT"},
        "instance": [
            {
                "uid": instance.instance_uid,
                "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{instance.class_uid}"},
            }
        ],
    }
    return study | {"series": [series]}
