"""The FHIR report: parsed by fhir.resources, checked by the npm package `fhir` where it is installed."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydantic import ValidationError

from pneumonet.finding import DISCLAIMER
from pneumonet.reports import FORMATS, render
from pneumonet.reports.document import Report
from pneumonet.taxonomy import Risk
from tests.reports.conftest import FILMS, PATIENT, PROBABILITIES, REQUEST_ID, STUDY, MakeReport

# `make validators` brings it.
NODE_MODULES = Path(__file__).parent / "node_modules"
SNOMED = {"53084003": "Bacterial pneumonia", "17621005": "Normal", "75570004": "Viral pneumonia"}


def bundle_of(report: Report) -> dict[str, Any]:
    bundle: dict[str, Any] = json.loads(render(report, FORMATS["fhir"]))
    return bundle


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def references(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, list):
        return [found for item in value for found in references(item)]
    if not isinstance(value, dict):
        return []
    own = [(value["reference"], value["type"])] if "reference" in value else []
    return own + [found for item in value.values() for found in references(item)]


@pytest.mark.parametrize("film", FILMS)
def test_another_library_reads_each_films_bundle_and_loses_nothing(report_of: MakeReport, film: str) -> None:
    told = render(report_of(film), FORMATS["fhir"])
    assert json.loads(Bundle.model_validate_json(told).model_dump_json()) == json.loads(told)


@pytest.mark.parametrize("film", FILMS)
def test_references_resolve_the_disclaimer_is_everywhere_and_nobody_is_named(report_of: MakeReport, film: str) -> None:
    bundle = bundle_of(report_of(film))
    kinds = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in bundle["entry"]}
    assert len(kinds) == len(bundle["entry"])
    found = references(bundle)
    assert found
    for url, kind in found:
        assert kinds[url] == kind
    for resource in [bundle, *(entry["resource"] for entry in bundle["entry"])]:
        assert resource["meta"]["tag"][0]["display"] == DISCLAIMER
    assert not [secret for secret in PATIENT if secret in json.dumps(bundle)]
    assert "Patient" not in kinds.values()


def test_each_class_has_an_observation_of_its_probability(known: MakeReport) -> None:
    bundle = bundle_of(known("jpeg"))
    (main,) = resources(bundle, "DiagnosticReport")
    (device,) = resources(bundle, "Device")
    answer, *shares = resources(bundle, "Observation")
    assert len(main["result"]) == 4
    told = {
        share["component"][0]["valueCodeableConcept"]["coding"][0]["code"]: share["valueQuantity"] for share in shares
    }
    names = {"53084003": "BACTERIAL_PNEUMONIA", "17621005": "NORMAL", "75570004": "VIRAL_PNEUMONIA"}
    assert set(told) == set(names)
    for code, quantity in told.items():
        assert quantity["value"] == pytest.approx(100 * PROBABILITIES[names[code]], abs=1e-9)
        assert (quantity["system"], quantity["code"]) == ("http://unitsofmeasure.org", "%")
    assert answer["valueCodeableConcept"]["coding"][0]["code"] == "53084003"
    assert main["status"] == "preliminary"
    # The set leaves viral pneumonia open too, so no more than pneumonia is concluded.
    assert main["conclusionCode"][0]["coding"][0]["code"] == "233604007"
    assert "confidence 92.35%" in main["conclusion"]
    assert "High Risk - Bacterial Pneumonia Indicated" in main["conclusion"]
    assert "A warning of the film." in main["conclusion"]
    assert main["identifier"][0]["value"] == REQUEST_ID
    versions = {version["type"]["text"]: version["value"] for version in device["version"]}
    report = known("jpeg")
    assert versions["Revision"] == report.model.revision
    assert versions["Weights"] == report.model.version
    assert set(report.weights.values()) < set(versions.values())


@pytest.mark.parametrize(
    ("left_open", "code"),
    [
        (("BACTERIAL_PNEUMONIA",), "53084003"),
        (("BACTERIAL_PNEUMONIA", "VIRAL_PNEUMONIA"), "233604007"),
        (("BACTERIAL_PNEUMONIA", "NORMAL"), "82334004"),
    ],
)
def test_what_is_concluded_goes_no_further_than_the_set(
    known: MakeReport, left_open: tuple[str, ...], code: str
) -> None:
    (main,) = resources(bundle_of(known(prediction_set=left_open)), "DiagnosticReport")
    assert main["conclusionCode"][0]["coding"][0]["code"] == code


def test_a_normal_answer_is_no_all_clear_to_who_reads_codes_only(known: MakeReport) -> None:
    report = known(label="NORMAL", prediction_set=("NORMAL",), risk=Risk.NONE_DETECTED)
    bundle = bundle_of(report)
    (main,), (answer, *_) = resources(bundle, "DiagnosticReport"), resources(bundle, "Observation")
    words = "No pneumonia pattern found by the model"
    coding = {"system": "urn:pneumonet:codes", "code": "NO_PATTERN", "display": words}
    assert main["conclusionCode"] == [{"coding": [coding], "text": words}]
    # Which class is the likeliest is another question, and says so.
    assert answer["code"]["text"] == "Most likely class"
    assert answer["valueCodeableConcept"]["coding"][0]["code"] == "17621005"


def test_when_the_film_was_taken_is_left_to_its_study(report_of: MakeReport) -> None:
    bundle = bundle_of(report_of("dicom"))
    assert not [r for r in bundle["entry"] if "effectiveDateTime" in r["resource"]]
    (study,) = resources(bundle, "ImagingStudy")
    assert not {"numberOfSeries", "numberOfInstances"} & study.keys()


def test_where_no_risk_is_named_no_class_is_concluded(known: MakeReport) -> None:
    (main,) = resources(bundle_of(known(risk=Risk.INDETERMINATE)), "DiagnosticReport")
    assert main["conclusionCode"][0]["coding"][0]["code"] == "82334004"


def test_a_dicom_films_study_is_referred_to_by_its_uids(report_of: MakeReport) -> None:
    bundle = bundle_of(report_of("dicom"))
    (study,), (main,) = resources(bundle, "ImagingStudy"), resources(bundle, "DiagnosticReport")
    assert study["identifier"][0]["value"] == f"urn:oid:{STUDY['StudyInstanceUID']}"
    assert study["series"][0]["uid"] == STUDY["SeriesInstanceUID"]
    assert study["series"][0]["instance"][0]["uid"] == STUDY["SOPInstanceUID"]
    assert study["series"][0]["modality"]["code"] == "DX"
    assert main["imagingStudy"][0]["type"] == "ImagingStudy"
    assert not resources(bundle_of(report_of("jpeg")), "ImagingStudy")


def test_a_refused_film_has_no_value_and_says_why(report_of: MakeReport) -> None:
    report = report_of("refused")
    bundle = bundle_of(report)
    (main,), (answer,) = resources(bundle, "DiagnosticReport"), resources(bundle, "Observation")
    assert (main["status"], answer["status"]) == ("cancelled", "cancelled")
    assert main["conclusionCode"][0]["coding"][0]["code"] == "82334004"
    assert all(reason.message in main["conclusion"] for reason in report.reasons)
    assert not [key for key in answer if key.startswith("value")]
    assert answer["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert not [code for code in SNOMED if code in json.dumps(bundle)]


def test_the_library_would_refuse_a_bundle_that_is_wrong(known: MakeReport) -> None:
    bundle = bundle_of(known())
    del bundle["entry"][0]["resource"]["code"]
    with pytest.raises(ValidationError):
        Bundle.model_validate(bundle)


def validated(bundles: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    if shutil.which("node") is None or not (NODE_MODULES / "fhir").is_dir():
        pytest.skip("no node, or no FHIR validator: make validators")
    (folder / "bundles.json").write_text(json.dumps(bundles))
    script = (
        "const { Fhir } = require('fhir'); const fhir = new Fhir();"
        "const all = JSON.parse(require('fs').readFileSync(process.argv[1]));"
        "console.log(JSON.stringify(all.map((b) => fhir.validate(b, { errorOnUnexpected: true }))));"
    )
    command = ["node", "-e", script, str(folder / "bundles.json")]
    done = subprocess.run(command, cwd=NODE_MODULES.parent, capture_output=True, text=True, timeout=120, check=True)
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def test_an_independent_validator_of_r4_finds_no_error(
    report_of: MakeReport, known: MakeReport, tmp_path: Path
) -> None:
    normal = known(label="NORMAL", prediction_set=("NORMAL",), risk=Risk.NONE_DETECTED)
    bundles = [*(bundle_of(report_of(film)) for film in FILMS), bundle_of(normal)]
    spoiled = bundle_of(report_of("dicom"))
    spoiled["entry"][0]["resource"]["status"] = "nonsense"
    *results, last = validated([*bundles, spoiled], tmp_path)
    for result in results:
        assert [message for message in result["messages"] if message["severity"] == "error"] == []
        assert result["valid"]
    assert not last["valid"]
