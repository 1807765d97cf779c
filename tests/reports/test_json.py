"""The JSON report keeps to its published schema, which jsonschema checks."""

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from pneumonet.finding import DISCLAIMER
from pneumonet.reports import FORMATS, render
from pneumonet.reports.json_report import FORMAT_VERSION, SCHEMA_FILE
from pneumonet.taxonomy import CLASS_NAMES, Risk
from tests.reports.conftest import FILMS, PATIENT, PROBABILITIES, MakeReport

SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def told(report: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(render(report, FORMATS["json"]))
    return document


def test_the_schema_is_one_and_speaks_the_products_words() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    properties = SCHEMA["properties"]
    assert SCHEMA["$id"].endswith(FORMAT_VERSION)
    assert set(properties["risk_level"]["enum"]) == {risk.value for risk in Risk}
    assert set(SCHEMA["$defs"]["probabilities"]["properties"]) == set(CLASS_NAMES)


@pytest.mark.parametrize("film", FILMS)
def test_each_films_report_is_as_the_schema_says_and_names_nobody(report_of: MakeReport, film: str) -> None:
    report = report_of(film)
    document = told(report)
    VALIDATOR.validate(document)
    # Base64 holds every short word by chance.
    text = json.dumps(document | {"heatmap": None})
    assert not [secret for secret in PATIENT if secret in text]
    assert document["disclaimer"] == DISCLAIMER
    assert document["film"]["sha256"] == hashlib.sha256(FILMS[film]()).hexdigest()
    assert document["model"]["revision"] == report.model.revision
    refused = film.startswith("refused")
    assert (document["status"] == "refused", document["finding"] is None) == (refused, refused)


def test_the_figures_are_the_findings(known: MakeReport) -> None:
    document = told(known())
    assert document["finding"]["probabilities"] == PROBABILITIES
    assert document["finding"]["confidence"] == "92.35%"
    assert document["finding"]["prediction_set"] == ["BACTERIAL_PNEUMONIA", "VIRAL_PNEUMONIA"]
    assert document["risk_level"] == "High Risk - Bacterial Pneumonia Indicated"
    assert document["warnings"] == ["A warning of the film."]
    assert document["created"] == "2026-02-03T04:05:06Z"
    assert "do not outline disease" in document["heatmap"]["note"]


def test_a_refused_film_says_why(report_of: MakeReport) -> None:
    report = report_of("refused")
    document = told(report)
    assert document["summary"].startswith("Not answered.")
    assert document["risk_level"] == "Indeterminate (Requires Review)"
    assert document["admission"]["reasons"] == [{"code": r.code, "message": r.message} for r in report.reasons]
    assert document["heatmap"] is None


def test_a_forced_film_says_so_and_claims_no_calibration(report_of: MakeReport) -> None:
    document = told(report_of("forced"))
    assert document["status"] == "answered_although_refused"
    assert document["admission"]["reasons"]
    assert document["finding"]["calibration"] is None


SPOILED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no disclaimer": lambda d: d.pop("disclaimer"),
    "a share over 1": lambda d: d["finding"]["probabilities"].update(NORMAL=1.5),
    "a class unknown": lambda d: d["finding"]["prediction_set"].append("COVID"),
    "refused with a finding": lambda d: d.update(status="refused"),
    "no date": lambda d: d.update(created="yesterday"),
    "version 2": lambda d: d.update(format_version="2.0"),
}


def test_readers_of_this_version_take_what_the_next_adds(known: MakeReport) -> None:
    document = told(known())
    VALIDATOR.validate(document | {"format_version": "1.9", "added": True})


def test_nothing_stands_in_the_report_that_the_schema_does_not_name(known: MakeReport) -> None:
    # So no name of a file or a patient: what is added has to be added there, where it is seen.
    named = SCHEMA["properties"]
    document = told(known())
    assert document.keys() == named.keys()
    for key in ("film", "model", "software", "admission", "danger_signs"):
        assert document[key].keys() == named[key]["properties"].keys()
    for key in ("finding", "heatmap"):
        assert document[key].keys() == named[key]["oneOf"][1]["properties"].keys()


@pytest.mark.parametrize("spoil", SPOILED)
def test_the_schema_takes_no_other_document(known: MakeReport, spoil: str) -> None:
    document = copy.deepcopy(told(known()))
    SPOILED[spoil](document)
    with pytest.raises(ValidationError):
        VALIDATOR.validate(document)
