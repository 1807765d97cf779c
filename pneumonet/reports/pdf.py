"""The report as PDF: what was said, how sure, why, what to do next, and of which model."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pneumonet import __version__
from pneumonet.errors import AdmissionError
from pneumonet.finding import DISCLAIMER
from pneumonet.next_steps import DANGER_SIGNS, DANGER_SIGNS_HEADING, SOURCE
from pneumonet.rendering import heatmap
from pneumonet.reports.document import Report
from pneumonet.reports.pdf_page import MARGIN, WIDTH, TaggedPages
from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES
from pneumonet.wording import HEATMAP_HEADING, HEATMAP_NOTE, LIMITS

_GAP: Final = 6.0
# A film wider than this would be a strip if it shared the page's width.
_WIDE: Final = 2.0
_TALLEST: Final = 92.0


def as_pdf(report: Report) -> bytes:
    """Return the report as a PDF file of A4 pages."""
    pages = TaggedPages(
        title=f"PneumoNet report: {report.heading}",
        heading="PneumoNet report",
        notice=DISCLAIMER,
        note=f"Request {report.request_id}, {report.created:%Y-%m-%d %H:%M:%S %Z}",
        created=report.created,
    )
    _answer(pages, report)
    _probabilities(pages, report)
    _pictures(pages, report)
    _next_steps(pages, report)
    _members(pages, report)
    _limits(pages)
    _provenance(pages, report)
    return bytes(pages.output())


def _answer(pages: TaggedPages, report: Report) -> None:
    confidence = f", confidence {report.finding.confidence:.2%}" if report.finding else ""
    pages.heading(f"{report.heading}{confidence}", level=1)
    pages.paragraph(f"Risk level: {report.risk.value}", 12, bold=True)
    pages.gap(1)
    pages.paragraph(DISCLAIMER)
    if report.finding is None:
        pages.gap(1)
        pages.paragraph(AdmissionError.headline)
    if report.reasons:
        pages.gap(2)
        pages.heading("Why the film was refused")
        pages.items([f"{reason.message} ({reason.code})" for reason in report.reasons])
    if report.warnings:
        pages.gap(2)
        pages.heading("Read this first")
        pages.items(report.warnings)


def _probabilities(pages: TaggedPages, report: Report) -> None:
    if report.finding is None or report.set_in_words is None:
        return
    pages.gap(2)
    pages.heading("Probability of each class", keep=26)
    for name, probability in report.probabilities:
        pages.bar(DISPLAY_NAMES[name], probability, f"{probability:.2%}")
    pages.gap(1)
    pages.paragraph(report.set_in_words, bold=True)
    if report.calibration_note:
        pages.gap(0.6)
        pages.paragraph(report.calibration_note, 9, muted=True)


def _pictures(pages: TaggedPages, report: Report) -> None:
    film = report.film
    size = f"{film.width} x {film.height} pixels"
    pictures = [(report.film_picture, f"The film as the model read it: {film.format}, {size}.")]
    pages.gap(2)
    overlaid = report.overlay_picture
    if overlaid is not None and report.finding is not None:
        words = f"Heatmap for {DISPLAY_NAMES[report.finding.label]}, laid over the film. {report.map_in_words}"
        pictures.append((overlaid, words))
    height, width = report.film_picture.shape
    stacked = width / height > _WIDE or len(pictures) == 1
    most = WIDTH if stacked else (WIDTH - _GAP) / 2
    shown_width = min(most, _TALLEST * width / height)
    shown_height = shown_width * height / width
    heading = HEATMAP_HEADING if overlaid is not None else "The film"
    pages.heading(heading, keep=(shown_height + 14) * (len(pictures) if stacked else 1))
    top = bottom = pages.y
    for i, (picture, words) in enumerate(pictures):
        if stacked and i:
            top = bottom + 2
        x = MARGIN if stacked else MARGIN + i * (most + _GAP)
        pages.picture(picture, x, top, shown_width, shown_height, words)
        bottom = max(bottom, pages.caption(words, x, top + shown_height + 1, most))
    pages.set_xy(MARGIN, bottom + 1)
    if overlaid is not None:
        _legend(pages)
        pages.paragraph(HEATMAP_NOTE)
    elif report.finding is not None:
        pages.paragraph("No heatmap was asked for.")


def _legend(pages: TaggedPages) -> None:
    pages.room(12)
    top = pages.y
    pages.label("low influence", MARGIN, top, 24)
    pages.picture(_scale(), MARGIN + 24, top + 0.6, 40, 3.2, "")
    pages.label("high influence", MARGIN + 66, top, 30)
    pages.set_xy(MARGIN, top + 5.5)


def _scale() -> NDArray[np.uint8]:
    return heatmap(np.tile(np.linspace(0, 1, 160, dtype=np.float32), (8, 1)))


def _next_steps(pages: TaggedPages, report: Report) -> None:
    pages.gap(2)
    pages.heading("What to do next")
    pages.items(report.next_steps)
    pages.gap(1)
    pages.heading(DANGER_SIGNS_HEADING, level=3)
    pages.items(DANGER_SIGNS)
    pages.gap(0.6)
    pages.paragraph(SOURCE, 8.5, muted=True)


def _members(pages: TaggedPages, report: Report) -> None:
    if report.finding is None:
        return
    pages.gap(2)
    pages.heading("Each backbone on its own")
    for member in report.config.members:
        shares = report.finding.member_probabilities.get(member.name)
        if shares is not None:
            each = ", ".join(f"{DISPLAY_NAMES[name].lower()} {shares[name]:.2%}" for name in CLASS_NAMES)
            pages.paragraph(f"{member.display_name} (weight {member.weight:g}): {each}.", 9)


def _limits(pages: TaggedPages) -> None:
    pages.gap(2)
    pages.heading("Limits", keep=20)
    for about, text in LIMITS:
        pages.heading(about, level=3)
        pages.paragraph(text, 9)
        pages.gap(1)


def _provenance(pages: TaggedPages, report: Report) -> None:
    model, film = report.model, report.film
    frame = f", frame {film.frame} of {film.frames} (from 0)" if film.frames > 1 else ""
    pages.gap(2)
    pages.heading("Where this comes from", keep=20)
    pages.facts(
        [
            ("Model", f"PneumoNet weights {model.version}"),
            ("Revision", report.origin),
            ("Config SHA-256", f"{report.config.fingerprint}... (its first digits)"),
            *(("Weights SHA-256", f"{path}: {digest}") for path, digest in report.weights.items()),
            ("Software", f"PneumoNet {__version__}"),
            ("Film", f"{film.format}, {film.width} x {film.height} pixels{frame}"),
            ("Film SHA-256", report.film_sha256),
            ("Request", report.request_id),
            ("Made", f"{report.created:%Y-%m-%d %H:%M:%S %Z}"),
        ]
    )
