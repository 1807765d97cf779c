"""The report as PDF: what was said, how sure, why, what to do next, and of which model."""

from typing import Final

import numpy as np

from pneumonet import __version__
from pneumonet.errors import AdmissionError
from pneumonet.finding import DISCLAIMER
from pneumonet.rendering import heatmap
from pneumonet.reports.document import Report
from pneumonet.reports.pdf_page import MARGIN, WIDTH, TaggedPages
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.wording import HEATMAP_HEADING

_GAP: Final = 6.0
# A film wider than this would be a strip if it shared the page's width.
_WIDE: Final = 2.0
_TALLEST: Final = 92.0


def as_pdf(report: Report) -> bytes:
    """Return the report as a PDF file of A4 pages."""
    say = report.language
    pages = TaggedPages(
        title=say("PneumoNet report: {answer}", answer=report.heading),
        heading=say("PneumoNet report"),
        notice=say(DISCLAIMER),
        note=say("Request {request}, {time}", request=report.request_id, time=_time(report)),
        created=report.created,
        language=say,
    )
    _answer(pages, report)
    _probabilities(pages, report)
    _pictures(pages, report)
    _next_steps(pages, report)
    _members(pages, report)
    _limits(pages, report)
    _provenance(pages, report)
    return bytes(pages.output())


def _time(report: Report) -> str:
    return f"{report.created:%Y-%m-%d %H:%M:%S %Z}"


def _answer(pages: TaggedPages, report: Report) -> None:
    say = report.language
    answer = say("{label}, confidence {confidence}", label=report.heading, confidence=report.confidence)
    pages.heading(answer if report.finding else report.heading, level=1)
    pages.paragraph(report.risk_in_words, 12, bold=True)
    pages.gap(1)
    pages.paragraph(report.disclaimer)
    if report.finding is None:
        pages.gap(1)
        pages.paragraph(say(AdmissionError.headline))
    if report.reasons:
        pages.gap(2)
        pages.heading(say("Why the film was refused"))
        pages.items([f"{reason.message} ({reason.code})" for reason in report.reasons])
    if report.warnings:
        pages.gap(2)
        pages.heading(say("Read this first"))
        pages.items(report.warnings)


def _probabilities(pages: TaggedPages, report: Report) -> None:
    if report.finding is None or report.set_in_words is None:
        return
    pages.gap(2)
    pages.heading(report.language("Probability of each class"), keep=26)
    for name, probability in report.probabilities:
        pages.bar(report.name(name), probability, report.percent(probability))
    pages.gap(1)
    pages.paragraph(report.set_in_words, bold=True)
    if report.calibration_note:
        pages.gap(0.6)
        pages.paragraph(report.calibration_note, 9, muted=True)


def _pictures(pages: TaggedPages, report: Report) -> None:
    film, say = report.film, report.language
    caption = say(
        "The film as the model read it: {format}, {width} x {height} pixels.",
        format=film.format,
        width=film.width,
        height=film.height,
    )
    pictures = [(report.film_picture, caption)]
    pages.gap(2)
    overlaid = report.overlay_picture
    if overlaid is not None:
        pictures.append((overlaid, report.heatmap_in_words or ""))
    height, width = report.film_picture.shape
    stacked = width / height > _WIDE or len(pictures) == 1
    most = WIDTH if stacked else (WIDTH - _GAP) / 2
    shown_width = min(most, _TALLEST * width / height)
    shown_height = shown_width * height / width
    heading = say(HEATMAP_HEADING) if overlaid is not None else say("The film")
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
        _legend(pages, report)
        pages.paragraph(report.heatmap_note)
    elif report.finding is not None:
        pages.paragraph(say("No heatmap was asked for."))


def _legend(pages: TaggedPages, report: Report) -> None:
    pages.room(12)
    top = pages.y
    pages.label(report.language("low influence"), MARGIN, top, 44, align="R")
    scale = heatmap(np.tile(np.linspace(0, 1, 160, dtype=np.float32), (8, 1)))
    # The words change sides with the page, and the scale with them.
    mirrored = report.language.direction == "rtl"
    pages.picture(scale[:, ::-1] if mirrored else scale, MARGIN + 46, top + 0.6, 40, 3.2, "")
    pages.label(report.language("high influence"), MARGIN + 88, top, 60)
    pages.set_xy(MARGIN, top + 5.5)


def _next_steps(pages: TaggedPages, report: Report) -> None:
    pages.gap(2)
    pages.heading(report.language("What to do next"))
    pages.items(report.next_steps)
    pages.gap(1)
    heading, signs = report.danger_signs
    pages.heading(heading, level=3)
    pages.items(signs)
    pages.gap(0.6)
    pages.paragraph(report.advice_source, 8.5, muted=True)


def _members(pages: TaggedPages, report: Report) -> None:
    if report.finding is None:
        return
    say = report.language
    pages.gap(2)
    pages.heading(say("Each backbone on its own"))
    for member in report.config.members:
        shares = report.finding.member_probabilities.get(member.name)
        if shares is not None:
            title = say("{backbone} (weight {weight:g})", backbone=member.display_name, weight=member.weight)
            each = "; ".join(f"{report.name(name)}: {report.percent(shares[name])}" for name in CLASS_NAMES)
            pages.paragraph(f"{title}: {each}", 9)


def _limits(pages: TaggedPages, report: Report) -> None:
    pages.gap(2)
    pages.heading(report.language("Limits"), keep=20)
    for about, text in report.limits:
        pages.heading(about, level=3)
        pages.paragraph(text, 9)
        pages.gap(1)


def _provenance(pages: TaggedPages, report: Report) -> None:
    model, film, say = report.model, report.film, report.language
    read = say("{format}, {width} x {height} pixels", format=film.format, width=film.width, height=film.height)
    if film.frames > 1:
        read += "; " + say("frame {number} of {frames}", number=film.frame + 1, frames=film.frames)
    pages.gap(2)
    pages.heading(say("Where this comes from"), keep=20)
    pages.facts(
        [
            (say("Weights"), f"PneumoNet {model.version}"),
            (say("Revision"), report.origin),
            ("Config SHA-256", f"{report.config.fingerprint}..."),
            *(("SHA-256", f"{path}: {digest}") for path, digest in report.weights.items()),
            (say("Software"), f"PneumoNet {__version__}"),
            (say("Film"), read),
            (say("SHA-256 of the film's file"), report.film_sha256),
            (say("Request"), report.request_id),
            (say("Made"), _time(report)),
        ]
    )
