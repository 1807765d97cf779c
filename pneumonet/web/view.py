"""What the page shows, as HTML: pure functions of findings and errors, every text escaped.

The words are chosen with care: a map "influenced the answer", it never "shows the disease", and no risk level is
painted as an all-clear.
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pneumonet.describing import map_in_words
from pneumonet.errors import AdmissionError, PneumoNetError
from pneumonet.finding import DISCLAIMER, ENSEMBLE, RESEARCH_USE, TRAINED_ON_CHILDREN, Finding
from pneumonet.language import ENGLISH, LANGUAGES, Language, said
from pneumonet.next_steps import DANGER_SIGNS_HEADING, HELP_AT_ONCE, SOURCE, steps_for
from pneumonet.radiograph import Radiograph
from pneumonet.rendering import data_uri, film_image, fitted, heatmap_layer
from pneumonet.reports import FORMATS
from pneumonet.snapshot import SnapshotConfig
from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES, NORMAL, Risk
from pneumonet.web.held import HELD_MINUTES
from pneumonet.wording import (
    HEATMAP_HEADING,
    HEATMAP_NOTE,
    LIMITS,
    NOT_ANSWERED,
    calibration_in_words,
    coverage_in_words,
    set_in_words,
)

# Nine layers travel with each answer: small, and the browser draws them up smoothly. The film stays sharp.
_FILM_SIDE: Final = 800
_LAYER_SIDE: Final = 160
_PREVIEW_SIDE: Final = 480

PAGE_FOLDER: Final = Path(__file__).parent / "page"

ANALYSE: Final = said("Analyse")
ANSWER_ANYWAY: Final = said("Answer anyway")
_ADMISSION_HINT: Final = said('Choose one frontal chest X-ray, or press "{answer_anyway}" if you know better.',
                              answer_anyway=ANSWER_ANYWAY)  # fmt: skip
_TEMPLATES: Final = Environment(loader=FileSystemLoader(PAGE_FOLDER), autoescape=True, undefined=StrictUndefined)
_TEMPLATES.globals.update(
    languages=list(LANGUAGES.values()),
    LIMITS=LIMITS,
    RESEARCH_USE=RESEARCH_USE,
    TRAINED_ON_CHILDREN=TRAINED_ON_CHILDREN,
)

# Each level has a shape and a word of its own, so that colour is never the only sign.
_RISK_KEYS: Final[dict[Risk, str]] = {
    Risk.HIGH: "high",
    Risk.MEDIUM: "medium",
    Risk.NONE_DETECTED: "none",
    Risk.INDETERMINATE: "indeterminate",
}
_RISK_SHAPES: Final[dict[Risk, str]] = {
    Risk.HIGH: '<path d="M12 2 23 22H1Z"/><path class="cut" d="M11 9h2v7h-2zm0 8.500h2v2h-2z"/>',
    Risk.MEDIUM: '<path d="M12 1 23 12 12 23 1 12Z"/><path class="cut" d="M11 6h2v8h-2zm0 10h2v2h-2z"/>',
    Risk.NONE_DETECTED: '<path d="M12 2a10 10 0 1 0 .01 0Zm0 3a7 7 0 1 1-.01 0Z"/>',
    Risk.INDETERMINATE: '<path d="M3 3h18v18H3Z"/><path class="cut" d="M7 11h10v2H7z"/>',
}


def words(name: str, language: Language = ENGLISH, **values: object) -> str:
    """Return one of the page's standing texts, HTML.

    Args:
        name: Its Jinja template in `page/`, without the suffix.
        language: Of the text.
        values: What the template asks for.
    """
    return _TEMPLATES.get_template(f"{name}.html").render(language=language, **values)


def example_styles(thumbnails: Sequence[tuple[int, str | None]]) -> str:
    """Return the CSS that puts each example's thumbnail on its button.

    Args:
        thumbnails: The button's index and the picture as a data URI.
    """
    return "".join(f"#example-{i}{{--thumbnail:url({uri})}}" for i, uri in thumbnails if uri is not None)


def preview(film: Radiograph, title: str = "", language: Language = ENGLISH) -> str:
    """Return a film that waits to be analysed.

    Args:
        film: The film.
        title: What it is, for an example; empty for a visitor's own.
        language: Of the words.
    """
    facts = {"format": film.format, "width": film.width, "height": film.height}
    caption = language("{format}, {width} x {height} pixels", **facts)
    alt = language("Preview of the {format} picture, {width} x {height} pixels, as the model reads it.", **facts)
    alt = f"{language(title) if title else language('Your film')}. {alt}"
    arrival = language("Film chosen. {film}", film=alt)
    return (
        f'<figure class="pn-preview"><img src="{data_uri(film_image(film, _PREVIEW_SIDE))}" alt="{escape(alt)}" '
        f'data-arrival="{escape(arrival)}">'
        f"<figcaption>{escape(f'{language(title)}. ' if title else '')}{escape(caption)}</figcaption></figure>"
    )


def failure(error: PneumoNetError, request_id: str, reports: str = "", language: Language = ENGLISH) -> str:
    """Return the result panel for an error: what was found, why, and what to do.

    Args:
        error: The error.
        request_id: The request's id.
        reports: The path beneath which a refused film's reports are; empty where there are none.
        language: Of the words.
    """
    message, reasons, heading, hint, steps = error.message, "", said("No answer"), error.hint, ""
    if isinstance(error, AdmissionError):
        message, heading, hint = error.headline, NOT_ANSWERED, _ADMISSION_HINT
        reasons = _items([reason.message for reason in error.reasons], "pn-reasons", language)
        steps = _what_to_do_next(steps_for(None), language)
    meta = language("Code {code}, request {request}", code=error.code, request=request_id)
    return (
        f'<section class="pn-panel pn-failure" data-key="{escape(request_id)}" data-arrival="" '
        'aria-labelledby="result-heading">'
        f'<div role="alert"><h2 id="result-heading" tabindex="-1">{escape(language(heading))}</h2>'
        f"<p>{escape(language(message))}</p>{reasons}<p>{escape(language(hint))}</p></div>"
        f'{steps}{_reports(reports, language)}<p class="pn-meta">{escape(meta)}</p></section>'
    )


def result(
    finding: Finding,
    config: SnapshotConfig,
    request_id: str,
    duration_ms: float,
    reports: str = "",
    language: Language = ENGLISH,
) -> str:
    """Return the result panel for a finding.

    Args:
        finding: The finding, with its saliency maps.
        config: The snapshot's config, for its members' names and the coverage of the prediction set.
        request_id: The request's id.
        duration_ms: How long the answer took.
        reports: The path beneath which the answer's reports are; empty where there are none.
        language: Of the words.
    """
    name, confidence = language(DISPLAY_NAMES[finding.label]), _percent(finding.confidence, language)
    arrival = language(
        "Result: {label}, confidence {confidence}. {risk}.", label=name, confidence=confidence, risk=finding.risk.value
    )
    if finding.label == NORMAL:
        # Heard first by who sees no page, so it may not be all that is heard.
        arrival += " " + language("A normal answer does not rule out disease.")
    return (
        f'<section class="pn-panel pn-result" data-key="{escape(request_id)}" data-arrival="{escape(arrival)}" '
        'aria-labelledby="result-heading">'
        f'<h2 id="result-heading" tabindex="-1"><span class="pn-label">{escape(name)}</span> '
        f'<span class="pn-confidence"><small>{escape(language("confidence"))}</small> {_isolated(confidence)}</span>'
        "</h2>"
        + _risk(finding.risk, language)
        + _items(finding.warnings, "pn-warnings", language)
        + _why_refused(finding, language)
        + _meters(finding.probabilities, language)
        + _could_also_be(finding, config.prediction_set.coverage, language)
        + _viewer(finding, config, language)
        + _what_to_do_next(steps_for(finding.risk, refused=not finding.admission.accepted), language)
        + _members(finding, config, language)
        + _reports(reports, language)
        + _provenance(finding, request_id, duration_ms, language)
        + "</section>"
    )


def _percent(share: float, language: Language) -> str:
    return language.number(f"{share:.2%}")


def _isolated(number: str) -> str:
    """Return a number as HTML that keeps its order where the words around it run from right to left."""
    return f"<bdi>{escape(number)}</bdi>"


def _risk(risk: Risk, language: Language) -> str:
    return (
        f'<p class="pn-risk" data-risk="{_RISK_KEYS[risk]}">'
        f'<svg viewBox="0 0 24 24" aria-hidden="true">{_RISK_SHAPES[risk]}</svg>'
        f'<span><span class="pn-hidden">{escape(language("Risk level"))}: </span>'
        f"{escape(language(risk.value))}</span></p>"
    )


def _why_refused(finding: Finding, language: Language) -> str:
    if not finding.admission.reasons:
        return ""
    reasons = _items([reason.message for reason in finding.admission.reasons], "pn-reasons", language)
    return f'<div class="pn-refused"><h3>{escape(language("Why the film was refused"))}</h3>{reasons}</div>'


def _items(sentences: Sequence[str], css_class: str, language: Language) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(language(sentence))}</li>" for sentence in sentences)
    return f'<ul class="{css_class}">{items}</ul>'


def _meters(probabilities: dict[str, float], language: Language) -> str:
    rows = "".join(
        f'<div class="pn-meter-row"><span class="pn-meter-name" id="meter-{name}">'
        f"{escape(language(DISPLAY_NAMES[name]))}</span>"
        f'<span class="pn-meter" role="meter" aria-labelledby="meter-{name}" aria-valuemin="0" aria-valuemax="1" '
        f'aria-valuenow="{p:.4f}" aria-valuetext="{_percent(p, language)}"><span style="width:{p:.2%}"></span></span>'
        f'<span class="pn-meter-value">{_isolated(_percent(p, language))}</span></div>'
        for name, p in sorted(probabilities.items(), key=lambda item: -item[1])
    )
    axis = "".join(f"<b>{_isolated(language.number(f'{share:.0%}'))}</b>" for share in (0, 0.5, 1))
    return (
        f'<div class="pn-meters" role="group" aria-label="{escape(language("Probability of each class"))}">{rows}'
        f'<div class="pn-axis" aria-hidden="true"><span>{axis}</span></div></div>'
    )


def _could_also_be(finding: Finding, coverage: float, language: Language) -> str:
    introduction, classes = set_in_words(finding.prediction_set)
    left_open = f"{escape(language(introduction))} <strong>{escape(language(classes))}</strong>"
    if not finding.admission.accepted:
        # No coverage and no calibration was ever measured on such pictures.
        return f'<p class="pn-set">{left_open}</p>'
    return (
        f'<p class="pn-set">{left_open} ({escape(language(coverage_in_words(coverage)))})</p>'
        f'<p class="pn-explanation">{escape(language(calibration_in_words(coverage)))}</p>'
    )


def _viewer(finding: Finding, config: SnapshotConfig, language: Language) -> str:
    film = finding.film
    sources = {
        ENSEMBLE: language("Ensemble of both"),
        **{member.name: member.display_name for member in config.members},
    }
    sources = {name: title for name, title in sources.items() if name in finding.saliency}
    alt = language("The film as the model read it, {width} x {height} pixels.", width=film.width, height=film.height)
    picture = f'<img class="pn-film" src="{data_uri(film_image(film, _FILM_SIDE))}" alt="{escape(alt)}">'
    aspect = f"--aspect:{film.width / film.height:.5f}"
    if not sources:
        return f'<figure class="pn-viewer" style="{aspect}"><div class="pn-stage">{picture}</div></figure>'
    layers = "".join(
        _layer(finding, source, label, title, language) for source, title in sources.items() for label in CLASS_NAMES
    )
    caption = escape(language(map_in_words(finding.saliency[ENSEMBLE][finding.label])))
    names = {name: language(DISPLAY_NAMES[name]) for name in CLASS_NAMES}
    return (
        f'<figure class="pn-viewer" data-viewer style="{aspect}"><div class="pn-stage" dir="ltr">{picture}'
        f'<div class="pn-heat">{layers}</div><span class="pn-divider" aria-hidden="true"></span></div>'
        f"<figcaption><h3>{escape(language(HEATMAP_HEADING))}</h3>"
        + _select("map-label", language("Map for"), names, finding.label)
        + _select("map-source", language("Seen by"), sources, ENSEMBLE)
        + _range("map-opacity", language("Heatmap opacity"), 60, language)
        + _range("map-compare", language("Plain film, from the left"), 0, language)
        + '<div class="pn-legend" dir="ltr"><span class="pn-scale" aria-hidden="true"></span>'
        f"<span>{escape(language('low influence'))}</span><span>{escape(language('high influence'))}</span></div>"
        f'<p data-caption aria-live="polite">{caption}</p>'
        f'<p class="pn-explanation">{escape(language(HEATMAP_NOTE))}</p>'
        "</figcaption></figure>"
    )


def _layer(finding: Finding, source: str, label: str, title: str, language: Language) -> str:
    saliency_map = finding.saliency[source][label]
    size = fitted(finding.film.height, finding.film.width, _LAYER_SIDE)
    words = language(map_in_words(saliency_map))
    alt = language("Heatmap for {label}, {source}. {words}", label=DISPLAY_NAMES[label], source=title, words=words)
    hidden = "" if (source, label) == (ENSEMBLE, finding.label) else " hidden"
    return (
        f'<img src="{data_uri(heatmap_layer(saliency_map, *size))}" data-source="{escape(source)}" '
        f'data-label="{label}" data-words="{escape(words)}" alt="{escape(alt)}"{hidden}>'
    )


def _select(element_id: str, label: str, options: dict[str, str], chosen: str) -> str:
    choices = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in options.items()
    )
    return (
        f'<label for="{element_id}">{escape(label)}</label>'
        f'<select id="{element_id}" autocomplete="off">{choices}</select>'
    )


def _range(element_id: str, label: str, value: int, language: Language) -> str:
    # Sliders run from left to right, as the film that they uncover.
    return (
        f'<label for="{element_id}">{escape(label)} <output for="{element_id}" aria-live="off" '
        f'data-suffix="{escape(language.number("0%")[1:])}">{language.number(f"{value}%")}</output></label>'
        f'<input id="{element_id}" type="range" min="0" max="100" step="5" value="{value}" autocomplete="off" '
        'dir="ltr">'
    )


def _what_to_do_next(steps: Sequence[str], language: Language) -> str:
    # Unlike the risk, it has no colour of its own: none of it says that all is well.
    return (
        f'<div class="pn-next"><h3>{escape(language("What to do next"))}</h3>'
        f"{_items(steps, 'pn-steps', language)}<h4>{escape(language(DANGER_SIGNS_HEADING))}</h4>"
        f"{_items(HELP_AT_ONCE, 'pn-signs', language)}"
        f'<p class="pn-explanation">{escape(language(SOURCE))}</p></div>'
    )


def _members(finding: Finding, config: SnapshotConfig, language: Language) -> str:
    rows = [
        (
            language("{backbone} (weight {weight:g})", backbone=m.display_name, weight=m.weight),
            finding.member_probabilities.get(m.name),
        )
        for m in config.members
    ]
    body = "".join(
        f'<tr><th scope="row">{escape(title)}</th>'
        + "".join(f"<td>{_isolated(_percent(p[name], language))}</td>" for name in CLASS_NAMES)
        + "</tr>"
        for title, p in rows
        if p is not None
    )
    head = "".join(f'<th scope="col">{escape(language(DISPLAY_NAMES[name]))}</th>' for name in CLASS_NAMES)
    return (
        f"<details><summary>{escape(language('Each backbone on its own'))}</summary>"
        f'<div class="pn-table" role="region" aria-label="{escape(language("Probabilities of each backbone"))}" '
        f'tabindex="0"><table><thead><tr><th scope="col">{escape(language("Backbone"))}</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _reports(path: str, language: Language) -> str:
    """Return links to the reports of an answer: plain links, so that keyboard and screen reader have them as such."""
    if not path:
        return ""
    links = ""
    for kind in FORMATS.values():
        title = language(kind.title)
        label = language("Download the report as {format}", format=title)
        links += (
            f'<li><a class="pn-button" href="{escape(path)}/{kind.name}?lang={language.tag}" '
            f'download="{kind.file_name}" aria-label="{escape(label)}">{escape(title)}</a></li>'
        )
    failed = language("Wait a moment, then try again.")
    note = language(
        "For {minutes} minutes, or until you take the film away. The DICOM files carry the patient and the study of a "
        "DICOM film, as DICOM wants; the others name nobody, unless a name is written in the picture itself.",
        minutes=HELD_MINUTES,
    )
    return (
        f'<nav class="pn-reports" aria-label="{escape(language("Reports of this answer"))}">'
        f"<h3>{escape(language('Report'))}</h3><ul>{links}</ul>"
        f'<p class="pn-alert" role="alert" data-failed="{escape(failed)}" hidden></p>'
        f'<p class="pn-explanation">{escape(note)}</p></nav>'
    )


def _provenance(finding: Finding, request_id: str, duration_ms: float, language: Language) -> str:
    model = finding.model
    origin = f"{model.repo_id}@{model.revision}" if model.repo_id else model.revision
    answer = json.dumps(finding.answer(request_id, duration_ms, language), indent=2, ensure_ascii=False)
    meta = language(
        "Model {version} ({origin}), request {request}, {seconds:.2f} s.",
        version=model.version,
        origin=origin,
        request=request_id,
        seconds=duration_ms / 1000,
    )
    wording = {"copied": language("Copied"), "not-copied": language("Could not copy")}
    attributes = " ".join(f'data-{name}="{escape(text)}"' for name, text in wording.items())
    return (
        f'<p class="pn-meta">{escape(meta)} {escape(language(DISCLAIMER))}</p>'
        f'<button type="button" class="pn-button" data-copy="{escape(answer)}" {attributes}>'
        f"{escape(language('Copy result as JSON'))}</button>"
    )
