"""Reports in every language: the words are its own, each letter has a shape, and what programs read stays as it is."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from highdicom.sr import srread
from PIL import features
from pydicom import dcmread
from pypdf import PdfReader

from pneumonet.language import LANGUAGES, Language
from pneumonet.reports import FORMATS, render
from pneumonet.reports.dicom_picture import picture_with_words
from pneumonet.reports.fonts import FOLDER, font_of
from pneumonet.taxonomy import Risk
from pneumonet.wording import HEATMAP_NOTE
from scripts.make_fonts import characters
from tests.reports.conftest import FILMS, MakeReport

TAGS = [tag for tag in LANGUAGES if tag != "en"]
BACTERIAL = "Bacterial pneumonia"


@pytest.fixture(params=TAGS)
def language(request: pytest.FixtureRequest) -> Language:
    return LANGUAGES[request.param]


def _squeezed(text: str) -> str:
    # Lines break where the paper ends, and a no-break space is read back as a space.
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_character_has_a_shape_in_both_weights(tag: str) -> None:
    font = font_of(LANGUAGES[tag])
    for path in (font.regular, font.bold):
        known = TTFont(path).getBestCmap()
        assert not [c for c in characters(tag) if c.isprintable() and ord(c) not in known]


def test_the_fonts_are_small_and_free() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ttf")) < 4_000_000
    assert "SIL OPEN FONT LICENSE" in (FOLDER / "OFL.txt").read_text(encoding="utf-8")


def test_the_pdf_is_in_the_language(known: MakeReport, language: Language) -> None:
    report = replace(known(), language=language)
    pdf = PdfReader(BytesIO(render(report, FORMATS["pdf"])))
    root: Any = pdf.trailer["/Root"]
    assert root["/Lang"] == language.tag
    text = _squeezed(" ".join(page.extract_text() for page in pdf.pages))
    # pypdf reads shaped letters in the order in which they are drawn: those languages are looked at below.
    if not font_of(language).needs_shaping:
        for words in (language(BACTERIAL), report.risk_in_words, *report.next_steps, language.review_notice):
            assert _squeezed(words) in text
    assert _squeezed(language.number("92.35%")) in text or "92.35" in text


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext: apt-get install poppler-utils")
@pytest.mark.parametrize("tag", ["ar", "hi"])
def test_shaped_letters_are_read_back_as_words(known: MakeReport, tag: str, tmp_path: Path) -> None:
    report = replace(known(), language=LANGUAGES[tag])
    (tmp_path / "report.pdf").write_bytes(render(report, FORMATS["pdf"]))
    text = subprocess.run(
        ["pdftotext", tmp_path / "report.pdf", "-"], capture_output=True, check=True, text=True, timeout=60
    ).stdout
    marks = re.compile(r"[\s\u064b-\u0652\u200e\u200f\u202a-\u202e\u2066-\u2069]")
    text = marks.sub("", text)
    for word in LANGUAGES[tag](BACTERIAL).split():
        assert marks.sub("", word) in text


@pytest.mark.parametrize("film", FILMS)
def test_a_report_of_each_kind_of_film_can_be_written_in_arabic(report_of: MakeReport, film: str) -> None:
    report = replace(report_of(film), language=LANGUAGES["ar"])
    for kind in FORMATS.values():
        assert render(report, kind)


def test_json_has_the_words_and_keeps_what_programs_read(known: MakeReport, language: Language) -> None:
    english, report = (json.loads(render(replace(known(), language=spoken), FORMATS["json"]))
                       for spoken in (LANGUAGES["en"], language))  # fmt: skip
    assert report["language"] == language.tag
    for key in ("status", "risk_level", "created", "film", "model", "format_version"):
        assert report[key] == english[key]
    for key in ("prediction", "confidence", "probabilities", "prediction_set"):
        assert report["finding"][key] == english["finding"][key]
    for key in ("summary", "risk_in_words", "disclaimer", "next_steps", "danger_signs", "limits", "advice_source"):
        assert report[key] != english[key]
    assert report["risk_in_words"].endswith(language(Risk.HIGH.value)) or language.tag == "hi"
    assert len(report["next_steps"]) == len(english["next_steps"])
    assert language.review_notice in report["disclaimer"]


def test_fhir_says_which_language_it_is_in(known: MakeReport, language: Language) -> None:
    bundle = json.loads(render(replace(known(), language=language), FORMATS["fhir"]))
    main = bundle["entry"][0]["resource"]
    assert main["language"] == language.tag
    assert f'lang="{language.tag}" dir="{language.direction}"' in main["text"]["div"]
    assert language(BACTERIAL) in main["conclusion"]
    # Codes and their displays are the code system's.
    assert main["conclusionCode"][0]["coding"][0]["display"] == "Pneumonia"


def test_the_structured_report_says_which_language_its_sentences_are_in(known: MakeReport, language: Language) -> None:
    data = render(replace(known("dicom"), language=language), FORMATS["dicom-sr"])
    document = srread(BytesIO(data))
    spoken = [
        item.ConceptCodeSequence[0].CodeValue
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "121049"
    ]
    assert spoken == [language.tag]
    texts = [str(element.value) for element in dcmread(BytesIO(data)).iterall() if element.keyword == "TextValue"]
    assert language("Risk level: {risk}", risk=Risk.HIGH.value) in texts
    assert language(HEATMAP_NOTE) in texts


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow finds no FriBiDi here")
def test_the_picture_s_words_are_drawn_in_the_language(known: MakeReport, language: Language) -> None:
    report = known()
    own, english = picture_with_words(replace(report, language=language)), picture_with_words(report)
    height = report.film_picture.shape[0]
    assert not np.array_equal(own[height : height + 60], english[height : height + 60])
    # A letter without a shape is a box; nothing of the sheet's edge is drawn over.
    assert not own[height:, :6].any()
    assert not own[height:, -6:].any()
