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
from pneumonet.reports.codes import CLASSES, IMAGING_STUDY, PERCENT, PROBABILITY, Code, conclusion_of
from pneumonet.reports.dicom_source import Instance, read_source
from pneumonet.reports.document import Report
from pneumonet.taxonomy import DISPLAY_NAMES
from pneumonet.wording import HEATMAP_NOTE, LIMITS, NOT_ANSWERED

Resource = dict[str, Any]

_SYSTEMS: Final = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
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
    instance = read_source(report.data).instance
    device = _entry(_device(report))
    study = _entry(_imaging_study(instance)) if instance else None
    shared: Resource = {
        "subject": _MASKED,
        "effectiveDateTime": report.instant,
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
    sentences = [DISCLAIMER, *(reason.message for reason in report.reasons), *report.warnings]
    if report.map_in_words:
        sentences += [report.map_in_words, HEATMAP_NOTE]
    return [{"text": sentence} for sentence in sentences]


def _diagnostic_report(report: Report, observations: list[Resource], study: Resource | None) -> Resource:
    sentences = [report.summary, f"Risk level: {report.risk.value}."]
    sentences += [text for text in (report.set_in_words, report.calibration_note) if text]
    sentences += [reason.message for reason in report.reasons]
    conclusion = " ".join([*sentences, *report.warnings, DISCLAIMER])
    resource: Resource = {
        "resourceType": "DiagnosticReport",
        "text": {"status": "generated", "div": _narrative(report, sentences)},
        "identifier": [{"system": "urn:pneumonet:request", "value": report.request_id}],
        # No clinician has looked at it; a refused film was never analysed.
        "status": "preliminary" if report.finding else "cancelled",
        "category": [{"coding": [{"system": f"{_TERMS}v2-0074", "code": "RAD", "display": "Radiology"}]}],
        "code": _concept(IMAGING_STUDY, "PneumoNet report of a chest film"),
        "subject": _MASKED,
        "effectiveDateTime": report.instant,
        "issued": report.instant,
        "result": [_reference(entry) for entry in observations],
        "conclusion": conclusion,
        "conclusionCode": [_concept(conclusion_of(report))],
    }
    if study:
        resource["imagingStudy"] = [_reference(study)]
    return resource


def _narrative(report: Report, sentences: list[str]) -> str:
    paragraphs = [DISCLAIMER, *sentences, *report.warnings, *(text for _, text in LIMITS)]
    return '<div xmlns="http://www.w3.org/1999/xhtml">' + "".join(f"<p>{escape(p)}</p>" for p in paragraphs) + "</div>"


def _answer(report: Report, shared: Resource) -> Resource:
    components = [
        {"code": {"text": "Risk level"}, "valueCodeableConcept": {"text": report.risk.value}},
        {"code": {"text": "SHA-256 of the film's file"}, "valueString": report.film_sha256},
    ]
    for name in report.finding.prediction_set if report.finding else ():
        left_open = f"Class left open at {report.config.prediction_set.coverage:.0%} coverage"
        value = _concept(CLASSES[name], DISPLAY_NAMES[name])
        components.append({"code": {"text": left_open}, "valueCodeableConcept": value})
    answer: Resource = {
        "resourceType": "Observation",
        "status": "preliminary" if report.finding else "cancelled",
        "category": [_imaging()],
        "code": {"text": "Most likely class"},
        **shared,
        "note": _notes(report),
        "component": components,
    }
    if report.finding:
        return answer | {"valueCodeableConcept": _concept(CLASSES[report.finding.label], report.heading)}
    absent = {"system": f"{_TERMS}data-absent-reason", "code": "not-performed", "display": "Not Performed"}
    return answer | {"dataAbsentReason": {"coding": [absent], "text": NOT_ANSWERED}}


def _probability(report: Report, name: str, probability: float, shared: Resource) -> Resource:
    percent = {"unit": "%", "system": _SYSTEMS[PERCENT.scheme], "code": PERCENT.value}
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [_imaging()],
        "code": _concept(PROBABILITY, f"Probability of {DISPLAY_NAMES[name].lower()}"),
        **shared,
        # The digits of the JSON answer, as percent.
        "valueQuantity": {"value": round(100 * round(probability, 6), 4), **percent},
        "component": [
            {"code": {"text": "Class"}, "valueCodeableConcept": _concept(CLASSES[name], DISPLAY_NAMES[name])}
        ],
        "note": [{"text": text} for text in (DISCLAIMER, report.calibration_note) if text],
    }


def _imaging() -> Resource:
    return {"coding": [{"system": f"{_TERMS}observation-category", "code": "imaging", "display": "Imaging"}]}


def _device(report: Report) -> Resource:
    versions = [("Weights", report.model.version), ("Revision", report.origin), ("Software", __version__)]
    versions += [(f"SHA-256 of {path}", digest) for path, digest in report.weights.items()]
    return {
        "resourceType": "Device",
        "identifier": [{"system": "urn:pneumonet:config", "value": report.config.fingerprint}],
        "status": "active",
        "deviceName": [{"name": "PneumoNet", "type": "model-name"}],
        "type": {"text": "Image classification software, for research use only"},
        "version": [{"type": {"text": what}, "value": value} for what, value in versions],
        "note": [{"text": DISCLAIMER}, *({"text": f"{about}: {text}"} for about, text in LIMITS)],
    }


def _imaging_study(instance: Instance) -> Resource:
    series: Resource = {
        "uid": instance.series_uid,
        "modality": {"system": _SYSTEMS["DCM"], "code": instance.modality or "OT"},
        "numberOfInstances": 1,
        "instance": [
            {
                "uid": instance.instance_uid,
                "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{instance.class_uid}"},
            }
        ],
    }
    return {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{instance.study_uid}"}],
        "status": "available",
        "subject": _MASKED,
        "numberOfSeries": 1,
        "numberOfInstances": 1,
        "series": [series],
    }
