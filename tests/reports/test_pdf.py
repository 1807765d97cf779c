"""The PDF report, read back by pypdf: its text, its pictures, its structure."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pytest
from fpdf import FPDF
from PIL import Image
from pypdf import PdfReader

from pneumonet import __version__
from pneumonet.finding import DISCLAIMER
from pneumonet.language import LANGUAGES
from pneumonet.next_steps import DANGER_SIGNS
from pneumonet.reports import FORMATS, render
from pneumonet.reports.document import Report
from pneumonet.wording import HEATMAP_NOTE, LIMITS
from tests.reports.conftest import FILMS, PATIENT, REQUEST_ID, SHOWN, MakeReport
from tests.support.films import phantom

_PLACED = re.compile(r"([\d.]+) 0 0 ([\d.]+) ([\d.]+) ([\d.]+) cm\s*/\w+ Do")
_A4 = (595.28, 841.89)


def read(report: Report) -> PdfReader:
    return PdfReader(BytesIO(render(report, FORMATS["pdf"])))


def text_of(pdf: PdfReader) -> str:
    return " ".join(" ".join(page.extract_text() for page in pdf.pages).split())


def content_of(page: Any) -> str:
    return str(page.get_contents().get_data().decode("latin-1"))


def pictures(pdf: PdfReader) -> list[tuple[float, float]]:
    """The pictures' sizes on paper, in points; the colour scale is no picture."""
    found = [match for page in pdf.pages for match in _PLACED.findall(content_of(page))]
    sizes = [(float(width), float(height)) for width, height, _, _ in found]
    return [size for size in sizes if size[1] > 20]


def tags(pdf: PdfReader) -> list[Any]:
    root: Any = pdf.trailer["/Root"]
    (document,) = root["/StructTreeRoot"]["/K"]
    return [kid.get_object() for kid in document.get_object()["/K"]]


def test_the_text_says_what_the_answer_says(known: MakeReport) -> None:
    report = known()
    text = text_of(read(report))
    for name, share in SHOWN.items():
        assert f"{name} {share}" in text or f"{name}, confidence {share}" in text
    for words in (
        "Bacterial pneumonia, confidence 92.35%",
        "Risk level: High Risk - Bacterial Pneumonia Indicated",
        "A warning of the film.",
        "Bacterial pneumonia or viral pneumonia: cannot tell which (at 90% coverage)",
        "The percentages are calibrated",
        HEATMAP_NOTE,
        *DANGER_SIGNS,
        *(sentence for _, sentence in LIMITS),
        report.model.revision,
        report.config.fingerprint,
        *report.weights.values(),
        report.film_sha256,
        REQUEST_ID,
        "2026-02-03 04:05:06 UTC",
        f"PneumoNet {__version__}",
    ):
        assert " ".join(words.split()) in text, words


@pytest.mark.parametrize("film", FILMS)
def test_every_page_has_the_disclaimer_and_its_number_and_nobodys_name(report_of: MakeReport, film: str) -> None:
    pdf = read(report_of(film))
    for number, page in enumerate(pdf.pages, 1):
        text = page.extract_text()
        assert DISCLAIMER in text
        assert f"Page {number} of {len(pdf.pages)}" in text
        assert REQUEST_ID in text
    assert not [secret for secret in PATIENT if secret in text_of(pdf)]
    assert not [secret for secret in PATIENT if secret in str(pdf.metadata)]


@pytest.mark.parametrize(
    ("height", "width"), [(360, 260), (260, 360), (120, 900), (900, 120)], ids=["portrait", "landscape", "wide", "tall"]
)
def test_film_and_heatmap_keep_the_films_aspect_and_stay_on_the_page(
    known: MakeReport, height: int, width: int
) -> None:
    pdf = read(_with_film_of(known, height, width))
    shown = pictures(pdf)
    assert len(shown) == 2
    for shown_width, shown_height in shown:
        assert shown_width / shown_height == pytest.approx(width / height, rel=0.01)
        assert shown_width <= 180 / 25.4 * 72 + 0.1
    placed = [tuple(map(float, match)) for page in pdf.pages for match in _PLACED.findall(content_of(page))]
    for w, h, x, y in placed:
        assert 42 <= x <= x + w <= _A4[0] - 42
        assert 50 <= y <= y + h <= _A4[1] - 67


def _with_film_of(known: MakeReport, height: int, width: int) -> Report:
    # Admission would refuse the longest of them.
    report = known("forced")
    film = replace(report.film, pixels=phantom(height, width).astype(np.float32) / 255)
    return replace(report, film=film, outcome=replace(report.outcome, film=film))  # type: ignore[type-var]


def test_long_warnings_run_over_pages_whole(known: MakeReport) -> None:
    warnings = tuple(f"Warning {i} begins, " + "goes on and on, " * 25 + f"and ends {i}." for i in range(30))
    pdf = read(known(warnings=warnings))
    assert len(pdf.pages) > 3
    bodies = []
    for page in pdf.pages:
        lines = page.extract_text().splitlines()
        bodies += [line for line in lines if DISCLAIMER not in line and not line.startswith(("Page ", "Request 0123"))]
    text = " ".join(" ".join(bodies).split()).replace("PneumoNet report ", "")
    for warning in warnings:
        assert warning in text

    heights: list[float] = []
    for page in pdf.pages:
        page.extract_text(visitor_text=lambda words, _cm, tm, *_: heights.append(tm[5]) if words.strip() else None)
    assert min(heights) > 20


def test_a_refused_film_says_so_and_shows_no_probability(report_of: MakeReport) -> None:
    report = report_of("refused")
    pdf = read(report)
    text = text_of(pdf)
    assert text.count("Not answered") == 1
    assert "Indeterminate (Requires Review)" in text
    for reason in report.reasons:
        assert f"{reason.message} ({reason.code})" in text
    assert "Probability" not in text
    assert "confidence" not in text
    assert len(pictures(pdf)) == 1


def test_a_forced_film_says_why_it_was_refused(report_of: MakeReport) -> None:
    report = report_of("forced")
    text = text_of(read(report))
    assert "answered only because that was asked for" in text
    assert all(reason.message in text for reason in report.reasons)
    assert "The percentages are calibrated" not in text


def test_no_heatmap_is_told(report_of: MakeReport) -> None:
    pdf = read(report_of("jpeg", saliency=False))
    assert "No heatmap was asked for." in text_of(pdf)
    assert len(pictures(pdf)) == 1


def test_what_the_fonts_cannot_write_does_not_fail(known: MakeReport) -> None:
    assert "caf\xe9 ?" in text_of(read(known(warnings=("caf\xe9 \u80ba",))))


class Cell(NamedTuple):
    text: str
    x: float
    width: float
    drawn: float
    align: str


class Drawn(NamedTuple):
    """What is written, and each scale of colours: its left, its right, and whether the right is the bright end."""

    cells: list[Cell]
    scales: list[tuple[float, float, bool]]


@pytest.fixture(scope="module")
def drawn(known: MakeReport) -> Callable[[str], Drawn]:
    """Draw the report in a language; millimetres."""

    @cache
    def draw(tag: str) -> Drawn:
        found, write, show = Drawn([], []), FPDF.cell, FPDF.image

        def cell(pages: Any, w: float, h: float, text: str, align: str, **options: Any) -> Any:
            found.cells.append(Cell(text, pages.x, w, pages.get_string_width(text), align))
            return write(pages, w, h, text, align=align, **options)

        def image(pages: Any, file: BytesIO, *, x: float, w: float, h: float, **options: Any) -> Any:
            if h < 5:
                columns = np.asarray(Image.open(BytesIO(file.getvalue())).convert("L")).mean(axis=0)
                found.scales.append((x, x + w, columns[-1] > columns[0]))
            return show(pages, file, x=x, w=w, h=h, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FPDF, "cell", cell)
            patch.setattr(FPDF, "image", image)
            render(replace(known(), language=LANGUAGES[tag]), FORMATS["pdf"])
        return found

    return draw


@pytest.mark.parametrize("tag", LANGUAGES)
def test_no_line_is_wider_than_its_place_in_any_language(drawn: Callable[[str], Drawn], tag: str) -> None:
    cells = drawn(tag).cells
    # The notice in the first page's head is whole.
    notice = re.sub("[\u0020\u064b-\u0652]", "", LANGUAGES[tag](DISCLAIMER))
    assert notice in "".join(cell.text for cell in cells[:3]).replace(" ", "")
    assert not [cell for cell in cells if cell.drawn > cell.width + 0.01]
    # And no place leaves the paper's printed part.
    assert not [cell for cell in cells if cell.x < 15 - 0.01 or cell.x + cell.width > 210 - 15 + 0.01]


@pytest.mark.parametrize("tag", ["en", "ar"])
def test_high_influence_stands_at_the_bright_end(drawn: Callable[[str], Drawn], tag: str) -> None:
    cells, ((left, right, brightest_is_right),) = drawn(tag)
    low, high = (LANGUAGES[tag](words) for words in ("low influence", "high influence"))
    (at_low,), (at_high,) = ([cell for cell in cells if cell.text == words] for words in (low, high))
    first, last = (at_low, at_high) if brightest_is_right else (at_high, at_low)
    assert first.x + first.width <= left
    assert right <= last.x
    # Each word stands at its end of the scale, not at the far side of its place.
    assert (first.align, last.align) == ("R", "L")


def test_viewers_show_the_title_and_not_the_files_name(known: MakeReport) -> None:
    root: Any = read(known()).trailer["/Root"]
    assert root["/ViewerPreferences"]["/DisplayDocTitle"].value is True


def test_the_text_is_tagged_in_reading_order(known: MakeReport) -> None:
    pdf = read(known())
    root: Any = pdf.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"].value is True
    assert root["/Lang"] == "en"
    assert pdf.metadata is not None
    assert pdf.metadata.title == "PneumoNet report: Bacterial pneumonia"
    found = tags(pdf)
    kinds = [tag["/S"] for tag in found]
    assert kinds[0] == "/H1"
    assert {"/H2", "/H3", "/P", "/Figure", "/Caption"} < set(kinds)
    alternatives = [tag["/Alt"] for tag in found if tag["/S"] == "/Figure"]
    assert len(alternatives) == 2
    assert "Influence was" in alternatives[1]
    for page in pdf.pages:
        content = content_of(page)
        marked = [int(number) for number in re.findall(r"<</MCID (\d+)>> BDC", content)]
        assert page.indirect_reference is not None
        of_page = [
            int(kid) for tag in found if tag.raw_get("/Pg").idnum == page.indirect_reference.idnum for kid in tag["/K"]
        ]
        assert marked == of_page == list(range(len(marked)))
        assert content.count("BDC") + content.count("BMC") == content.count("EMC")
        # Nothing is written outside of a tag or an artifact.
        outside = re.sub(r"(BDC|BMC)\n.*?EMC", "", content, flags=re.S)
        assert "Tj" not in outside
        assert " Do" not in outside
