"""The DICOM reports: read back by pydicom and highdicom, checked by dciodvfy where dicom3tools are installed."""

import logging
import re
import shutil
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.sr import ComprehensiveSR, srread
from PIL import features
from pydicom.sr.codedict import codes

from pneumonet.finding import DISCLAIMER
from pneumonet.language import LANGUAGES
from pneumonet.rendering import heatmap, overlay
from pneumonet.reports import FORMATS, render
from pneumonet.reports import codes as own_codes
from pneumonet.reports.dicom_picture import picture_with_words
from pneumonet.reports.dicom_source import read_source
from pneumonet.reports.document import Report
from pneumonet.taxonomy import Risk
from pneumonet.wording import HEATMAP_NOTE
from tests.reports.conftest import FILMS, PROBABILITIES, STUDY, MakeReport, dicom_film

CARELESS = {
    "PatientName": "M\xfcller^J\xf6rg",
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientSex": "female",
    "StudyDate": "2020-01-02",
    "StudyTime": "noon",
    "PatientBirthDate": "May 2016",
    "AccessionNumber": "far too long for an accession number",
    "SeriesInstanceUID": "not a UID",
}


def made(report: Report, name: str) -> Any:
    return pydicom.dcmread(BytesIO(render(report, FORMATS[name])))


def items(dataset: Any) -> list[Any]:
    return [item for child in dataset.get("ContentSequence", []) for item in (child, *items(child))]


def named(dataset: Any, meaning: str) -> list[Any]:
    return [item for item in items(dataset) if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def texts(dataset: Any) -> list[str]:
    return [item.TextValue for item in named(dataset, "Comment")]


def check(report: Report, name: str, folder: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy: Debian's dicom3tools are not installed")
    path = folder / "report.dcm"
    path.write_bytes(render(report, FORMATS[name]))
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert ("ComprehensiveSR" if name == "dicom-sr" else "SCImage") in said
    assert not re.findall(r"^(?:Error|Abort).*", said, flags=re.M)


@pytest.mark.parametrize("name", ["dicom-sr", "dicom-sc"])
@pytest.mark.parametrize("film", FILMS)
def test_an_independent_validator_finds_no_error(report_of: MakeReport, tmp_path: Path, film: str, name: str) -> None:
    check(report_of(film), name, tmp_path)


def test_a_normal_answer_is_no_all_clear_to_who_reads_codes_only(known: MakeReport, tmp_path: Path) -> None:
    report = known(label="NORMAL", prediction_set=("NORMAL",), risk=Risk.NONE_DETECTED)
    document = made(report, "dicom-sr")
    found, *of_probabilities = named(document, "Finding")
    code = found.ConceptCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("NO_PATTERN", "99PNEUMONET")
    assert code.CodeMeaning == "No pneumonia pattern found by the model"
    assert not named(document, "Finding Site")
    assert len(of_probabilities) == 3
    # Which class is the likeliest is another question, and says so.
    assert named(document, "Most likely class")[0].ConceptCodeSequence[0].CodeValue == "17621005"
    check(report, "dicom-sr", tmp_path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
@pytest.mark.parametrize("name", ["dicom-sr", "dicom-sc"])
def test_a_careless_films_reports_are_valid_all_the_same(
    report_of: MakeReport, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    report = report_of(dicom_film(**CARELESS))
    check(report, name, tmp_path)
    with caplog.at_level(logging.DEBUG):
        written = made(report, name)
    assert str(written.PatientName) == CARELESS["PatientName"]
    assert written.StudyInstanceUID == STUDY["StudyInstanceUID"]
    for keyword in ("PatientSex", "StudyDate", "StudyTime", "PatientBirthDate", "AccessionNumber"):
        assert not written[keyword].value
    assert "ller" not in caplog.text


def test_dciodvfy_would_find_an_error(report_of: MakeReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of("jpeg")
    spoiled = made(report, "dicom-sc")
    spoiled.PhotometricInterpretation = "NONSENSE"
    buffer = BytesIO()
    spoiled.save_as(buffer)
    monkeypatch.setattr("tests.reports.test_dicom.render", lambda *_: buffer.getvalue())
    with pytest.raises(AssertionError):
        check(report, "dicom-sc", tmp_path)


@pytest.mark.parametrize("name", ["dicom-sr", "dicom-sc"])
@pytest.mark.parametrize("film", ["dicom", "refused-dicom"])
def test_a_report_belongs_to_the_films_study_and_patient(report_of: MakeReport, film: str, name: str) -> None:
    written = made(report_of(film), name)
    kept = set(STUDY) - {"SeriesInstanceUID", "SOPInstanceUID"}
    assert {keyword: str(written[keyword].value) for keyword in kept} == {keyword: STUDY[keyword] for keyword in kept}
    assert written.SeriesInstanceUID != STUDY["SeriesInstanceUID"]
    assert written.SOPInstanceUID != STUDY["SOPInstanceUID"]
    assert written.SOPInstanceUID == written.file_meta.MediaStorageSOPInstanceUID
    assert written.SOPInstanceUID != made(report_of(film), name).SOPInstanceUID


def test_a_film_without_a_study_gets_one_for_both_reports_and_no_patient(report_of: MakeReport) -> None:
    document, picture = (made(report_of("jpeg"), name) for name in ("dicom-sr", "dicom-sc"))
    assert document.StudyInstanceUID == picture.StudyInstanceUID
    assert document.StudyInstanceUID != made(report_of("forced"), "dicom-sr").StudyInstanceUID
    for written in (document, picture):
        assert not written.PatientName
        assert not written.PatientID
    assert "CurrentRequestedProcedureEvidenceSequence" not in document


def test_highdicom_reads_the_structured_report(known: MakeReport) -> None:
    report = known("dicom")
    document = srread(BytesIO(render(report, FORMATS["dicom-sr"])))
    assert isinstance(document, ComprehensiveSR)
    content: Any = document.content
    (group,) = content.get_image_measurement_groups()
    # Viral pneumonia is left open too.
    assert (group.finding_type.value, group.finding_type.scheme_designator) == ("233604007", "SCT")
    assert [site.value.value for site in group.finding_sites] == ["39607008"]
    measured = {}
    for measurement in group.get_measurements():
        assert (measurement.name.value, measurement.unit) == ("122157", codes.UCUM.Percent)
        (whose,) = measurement[0].ContentSequence
        measured[whose.ConceptCodeSequence[0].CodeValue] = measurement.value
    assert measured == pytest.approx(
        {
            "53084003": 100 * PROBABILITIES["BACTERIAL_PNEUMONIA"],
            "17621005": 100 * PROBABILITIES["NORMAL"],
            "75570004": 100 * PROBABILITIES["VIRAL_PNEUMONIA"],
        }
    )
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    (evidence,) = document.get_evidence()
    assert [str(uid) for uid in evidence[:3]] == [
        STUDY["StudyInstanceUID"], STUDY["SeriesInstanceUID"], STUDY["SOPInstanceUID"],
    ]  # fmt: skip
    (source,) = group.source_images
    assert source.referenced_sop_instance_uid == STUDY["SOPInstanceUID"]
    assert (document.VerificationFlag, document.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


def test_the_structured_report_names_the_algorithm_and_says_all_sentences(known: MakeReport) -> None:
    report = known("dicom")
    document = made(report, "dicom-sr")
    assert named(document, "Algorithm Name")[0].TextValue == "PneumoNet"
    assert report.model.revision in named(document, "Algorithm Version")[0].TextValue
    parameters = " ".join(item.TextValue for item in named(document, "Algorithm Parameters"))
    assert all(digest in parameters for digest in report.weights.values())
    said = texts(document)
    assert {DISCLAIMER, HEATMAP_NOTE, "A warning of the film.", report.set_in_words} < set(said)
    assert any(report.film_sha256 in sentence for sentence in said)
    (risk,) = named(document, "Risk level")
    assert risk.ConceptCodeSequence[0].CodeMeaning == "High Risk - Bacterial Pneumonia Indicated"
    left_open = [item.ConceptCodeSequence[0].CodeValue for item in named(document, "Class left open")]
    assert left_open == ["53084003", "75570004"]
    designators = {item.CodingSchemeDesignator for item in document.CodingSchemeIdentificationSequence}
    assert risk.ConceptCodeSequence[0].CodingSchemeDesignator in designators


def test_where_no_risk_is_named_no_class_is_found(known: MakeReport) -> None:
    document = made(known(risk=Risk.INDETERMINATE), "dicom-sr")
    first = named(document, "Finding")[0]
    assert first.ConceptCodeSequence[0].CodeValue == "82334004"
    assert named(document, "Most likely class")[0].ConceptCodeSequence[0].CodeValue == "53084003"


def test_a_refused_films_structured_report_says_why_and_has_no_class(report_of: MakeReport) -> None:
    report = report_of("refused-dicom")
    document = made(report, "dicom-sr")
    (finding,) = named(document, "Finding")
    assert finding.ConceptCodeSequence[0].CodeValue == "82334004"
    assert not named(document, "Probability")
    assert not named(document, "Most likely class")
    said = texts(document)
    assert all(reason.message in said for reason in report.reasons)
    assert any(sentence.startswith("Not answered.") for sentence in said)


@pytest.mark.parametrize("tag", LANGUAGES)
def test_the_picture_says_how_to_read_its_map(known: MakeReport, tag: str) -> None:
    report = replace(known("dicom"), language=LANGUAGES[tag])
    picture = made(report, "dicom-sc")
    assert report.map_in_words in report.heatmap_in_words
    comments, derivation = picture.ImageComments.split("\r\n"), picture.DerivationDescription.split(" | ")
    assert {report.heatmap_in_words, report.heatmap_note, report.disclaimer, *report.advice} <= set(comments)
    assert report.request_id in comments[-1]
    # There the map's sentences come last: where a language takes more bytes than there are, they stand above alone.
    assert derivation[:3] == [report.summary, report.risk_in_words, report.disclaimer]
    assert tag in ("hi", "ru") or derivation[3:] == [report.heatmap_in_words, report.heatmap_note]
    assert len(picture.ImageComments.encode()) <= 10240
    assert len(picture.DerivationDescription.encode()) <= 1024


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow finds no FriBiDi here")
@pytest.mark.parametrize("tag", ["en", "ar", "ru"])
def test_the_picture_has_the_colours_scale_between_its_words(known: MakeReport, tag: str) -> None:
    report = replace(known(), language=LANGUAGES[tag])
    below = picture_with_words(report)[report.film_picture.shape[0] :]
    scale = heatmap(np.linspace(0, 1, 256, dtype=np.float32)[None])[0]
    if LANGUAGES[tag].direction == "rtl":
        # The whole line is read from the right, the scale with it.
        below = below[:, ::-1]
    starts = [(y, x) for y, x in np.argwhere((below == scale[0]).all(-1)) if (below[y, x : x + 256] == scale).all()]
    rows, columns = {y for y, _ in starts}, {x for _, x in starts}
    assert 10 <= len(rows) <= 20
    (left,) = columns
    words = below[min(rows) : max(rows)].max(axis=(0, 2))
    assert words[:left].max() > 200
    assert words[left + 256 :].max() > 200
    # They stand on the sheet whole.
    assert not words[:6].any()
    assert not words[-6:].any()


@pytest.mark.parametrize("film", FILMS)
def test_the_picture_shows_the_overlay_above_its_words(report_of: MakeReport, film: str) -> None:
    report = report_of(film)
    picture = made(report, "dicom-sc")
    pixels = picture.pixel_array
    shown = overlay(report.finding) if report.finding else np.repeat(report.film_picture[..., None], 3, axis=2)
    height, width = shown.shape[:2]
    left = (pixels.shape[1] - width) // 2
    assert np.array_equal(pixels[:height, left : left + width], shown)
    assert pixels[height + 5 :].max() == 255
    assert pixels[height + 5 :, -3:].max() == 0
    assert picture.PhotometricInterpretation == "RGB"
    assert DISCLAIMER in picture.DerivationDescription
    assert ("Not answered" in picture.DerivationDescription) == film.startswith("refused")
    sources = [item.ReferencedSOPInstanceUID for item in picture.get("SourceImageSequence", [])]
    assert sources == ([STUDY["SOPInstanceUID"]] if "dicom" in film else [])


def test_a_long_study_is_read_as_it_is_and_a_raster_has_none() -> None:
    source = read_source(dicom_film(StudyTime="101530.5"))
    assert source.study["StudyTime"] == "101530.5"
    assert "Doe" not in repr(source)
    for data in (FILMS["jpeg"](), b"", b"text"):
        empty = read_source(data)
        assert (empty.study_uid, empty.instance) == (None, None)
        assert not any((empty.patient | empty.study).values())


def test_every_code_is_short_enough_for_a_code_value() -> None:
    # DICOM PS3.3, 8.1: longer ones go into another attribute, which few readers look at.
    found = [v for value in vars(own_codes).values() for v in (value.values() if isinstance(value, dict) else [value])]
    values = [code.value for code in found if isinstance(code, own_codes.Code)]
    assert len(values) > 15
    assert [value for value in values if len(value) > 16] == []
