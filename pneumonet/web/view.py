"""What the page shows, as HTML: pure functions of findings and errors, every text escaped.

The words are chosen with care: a map "influenced the answer", it never "shows the disease", and no risk level is
painted as an all-clear.
"""

import json
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from pneumonet.describing import map_in_words
from pneumonet.errors import AdmissionError, PneumoNetError
from pneumonet.finding import DISCLAIMER, ENSEMBLE, Finding
from pneumonet.next_steps import DANGER_SIGNS, DANGER_SIGNS_HEADING, SOURCE, steps_for
from pneumonet.radiograph import Radiograph
from pneumonet.rendering import data_uri, film_image, fitted, heatmap_layer
from pneumonet.reports import FORMATS
from pneumonet.snapshot import SnapshotConfig
from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES, NORMAL, Risk
from pneumonet.wording import (
    CANNOT,
    FOR_WHOM,
    HEATMAP_HEADING,
    HEATMAP_NOTE,
    NOT_ANSWERED,
    TRAINED_ON,
    calibration_in_words,
    set_in_words,
)

# Nine layers travel with each answer: small, and the browser draws them up smoothly. The film stays sharp.
_FILM_SIDE: Final = 800
_LAYER_SIDE: Final = 160
_PREVIEW_SIDE: Final = 480

PAGE_FOLDER: Final = Path(__file__).parent / "page"

# What a report says too.
_SHARED: Final = {"for_whom": escape(FOR_WHOM, quote=False), "trained_on": escape(TRAINED_ON, quote=False),
                  "cannot": escape(CANNOT, quote=False)}  # fmt: skip
_ADMISSION_HINT: Final = 'Choose one frontal chest X-ray, or press "Answer anyway" if you know better.'

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


def words(name: str, **values: object) -> str:
    """Return one of the page's standing texts.

    Args:
        name: Its file in `page/`, without the suffix.
        values: What its `$` placeholders stand for.
    """
    return _template(name).substitute(_SHARED, **values)


@cache
def _template(name: str) -> Template:
    return Template((PAGE_FOLDER / f"{name}.html").read_text(encoding="utf-8"))


def example_styles(thumbnails: Sequence[tuple[int, str | None]]) -> str:
    """Return the CSS that puts each example's thumbnail on its button.

    Args:
        thumbnails: The button's index and the picture as a data URI.
    """
    return "".join(f"#example-{i}{{--thumbnail:url({uri})}}" for i, uri in thumbnails if uri is not None)


def preview(film: Radiograph, title: str = "") -> str:
    """Return a film that waits to be analysed.

    Args:
        film: The film.
        title: What it is, for an example; empty for a visitor's own.
    """
    size = f"{film.width} x {film.height} pixels"
    what = f"{title}. " if title else ""
    alt = f"{what or 'Your film. '}Preview of the {film.format} picture, {size}, as the model reads it."
    return (
        f'<figure class="pn-preview"><img src="{data_uri(film_image(film, _PREVIEW_SIDE))}" alt="{escape(alt)}">'
        f"<figcaption>{escape(what)}{escape(film.format)}, {size}</figcaption></figure>"
    )


def failure(error: PneumoNetError, request_id: str, reports: str = "") -> str:
    """Return the result panel for an error: what was found, why, and what to do.

    Args:
        error: The error.
        request_id: The request's id.
        reports: The path beneath which a refused film's reports are; empty where there are none.
    """
    message, reasons, heading, hint, steps = error.message, "", "No answer", error.hint, ""
    if isinstance(error, AdmissionError):
        heading, hint = NOT_ANSWERED, _ADMISSION_HINT
        sentences = [reason.message for reason in error.reasons]
        message = message.removesuffix(" ".join(sentences)).rstrip()
        reasons = _items(sentences, "pn-reasons")
        steps = _what_to_do_next(steps_for(None))
    return (
        f'<section class="pn-panel pn-failure" data-key="{escape(request_id)}" data-arrival="" '
        'aria-labelledby="result-heading">'
        f'<div role="alert"><h2 id="result-heading" tabindex="-1">{heading}</h2><p>{escape(message)}</p>{reasons}'
        f"<p>{escape(hint)}</p></div>{steps}{_reports(reports)}"
        f'<p class="pn-meta">Code <code>{escape(error.code)}</code>, request <code>{escape(request_id)}</code></p>'
        "</section>"
    )


def result(finding: Finding, config: SnapshotConfig, request_id: str, duration_ms: float, reports: str = "") -> str:
    """Return the result panel for a finding.

    Args:
        finding: The finding, with its saliency maps.
        config: The snapshot's config, for its members' names and the coverage of the prediction set.
        request_id: The request's id.
        duration_ms: How long the answer took.
        reports: The path beneath which the answer's reports are; empty where there are none.
    """
    name, confidence = DISPLAY_NAMES[finding.label], f"{finding.confidence:.2%}"
    arrival = f"Result: {name}, confidence {confidence}. {finding.risk.value}."
    if finding.label == NORMAL:
        # Heard first by who sees no page, so it may not be all that is heard.
        arrival += " A normal answer does not rule out disease."
    return (
        f'<section class="pn-panel pn-result" data-key="{escape(request_id)}" data-arrival="{escape(arrival)}" '
        'aria-labelledby="result-heading">'
        f'<h2 id="result-heading" tabindex="-1"><span class="pn-label">{escape(name)}</span> '
        f'<span class="pn-confidence"><small>confidence</small> {confidence}</span></h2>'
        + _risk(finding.risk)
        + _items(list(finding.warnings), "pn-warnings")
        + _meters(finding.probabilities)
        + _could_also_be(finding, config.prediction_set.coverage)
        + _viewer(finding, config)
        + _what_to_do_next(steps_for(finding.risk, refused=not finding.admission.accepted))
        + _members(finding, config)
        + _reports(reports)
        + _provenance(finding, request_id, duration_ms)
        + "</section>"
    )


def _risk(risk: Risk) -> str:
    return (
        f'<p class="pn-risk" data-risk="{_RISK_KEYS[risk]}">'
        f'<svg viewBox="0 0 24 24" aria-hidden="true">{_RISK_SHAPES[risk]}</svg>'
        f'<span><span class="pn-hidden">Risk level: </span>{escape(risk.value)}</span></p>'
    )


def _items(sentences: list[str], css_class: str) -> str:
    if not sentences:
        return ""
    return f'<ul class="{css_class}">' + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _meters(probabilities: dict[str, float]) -> str:
    rows = "".join(
        f'<div class="pn-meter-row"><span class="pn-meter-name" id="meter-{name}">{DISPLAY_NAMES[name]}</span>'
        f'<span class="pn-meter" role="meter" aria-labelledby="meter-{name}" aria-valuemin="0" aria-valuemax="1" '
        f'aria-valuenow="{p:.4f}" aria-valuetext="{p:.2%}"><span style="width:{p:.2%}"></span></span>'
        f'<span class="pn-meter-value">{p:.2%}</span></div>'
        for name, p in sorted(probabilities.items(), key=lambda item: -item[1])
    )
    return (
        f'<div class="pn-meters" role="group" aria-label="Probability of each class">{rows}'
        '<div class="pn-axis" aria-hidden="true"><span><b>0%</b><b>50%</b><b>100%</b></span></div></div>'
    )


def _could_also_be(finding: Finding, coverage: float) -> str:
    introduction, classes = set_in_words(finding.prediction_set)
    could_be = f'<p class="pn-set">{introduction}<strong>{escape(classes)}</strong>, at {coverage:.0%} coverage.</p>'
    if not finding.admission.accepted:
        # No calibration was ever measured on such pictures.
        return could_be
    return f'{could_be}<p class="pn-explanation">{escape(calibration_in_words(coverage))}</p>'


def _viewer(finding: Finding, config: SnapshotConfig) -> str:
    film = finding.film
    sources = {ENSEMBLE: "Ensemble of both", **{member.name: member.display_name for member in config.members}}
    sources = {name: title for name, title in sources.items() if name in finding.saliency}
    alt = f"The film as the model read it, {film.width} x {film.height} pixels."
    picture = f'<img class="pn-film" src="{data_uri(film_image(film, _FILM_SIDE))}" alt="{alt}">'
    aspect = f"--aspect:{film.width / film.height:.5f}"
    if not sources:
        return f'<figure class="pn-viewer" style="{aspect}"><div class="pn-stage">{picture}</div></figure>'
    layers = "".join(
        _layer(finding, source, label, f"{DISPLAY_NAMES[label]}, {title}")
        for source, title in sources.items()
        for label in CLASS_NAMES
    )
    caption = escape(map_in_words(finding.saliency[ENSEMBLE][finding.label]))
    return (
        f'<figure class="pn-viewer" data-viewer style="{aspect}"><div class="pn-stage">{picture}'
        f'<div class="pn-heat">{layers}</div><span class="pn-divider" aria-hidden="true"></span></div>'
        f"<figcaption><h3>{HEATMAP_HEADING}</h3>"
        + _select("map-label", "Map for", {name: DISPLAY_NAMES[name] for name in CLASS_NAMES}, finding.label)
        + _select("map-source", "Seen by", sources, ENSEMBLE)
        + _range("map-opacity", "Heatmap opacity", 60)
        + _range("map-compare", "Plain film, from the left", 0)
        + '<div class="pn-legend"><span class="pn-scale" aria-hidden="true"></span>'
        "<span>low influence</span><span>high influence</span></div>"
        f'<p data-caption aria-live="polite">{caption}</p>'
        f'<p class="pn-explanation">{HEATMAP_NOTE}</p>'
        "</figcaption></figure>"
    )


def _layer(finding: Finding, source: str, label: str, title: str) -> str:
    saliency_map = finding.saliency[source][label]
    size = fitted(finding.film.height, finding.film.width, _LAYER_SIDE)
    words = map_in_words(saliency_map)
    hidden = "" if (source, label) == (ENSEMBLE, finding.label) else " hidden"
    return (
        f'<img src="{data_uri(heatmap_layer(saliency_map, *size))}" data-source="{escape(source)}" '
        f'data-label="{label}" data-words="{escape(words)}" alt="{escape(f"Heatmap for {title}. {words}")}"{hidden}>'
    )


def _select(element_id: str, label: str, options: dict[str, str], chosen: str) -> str:
    choices = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in options.items()
    )
    return f'<label for="{element_id}">{label}</label><select id="{element_id}" autocomplete="off">{choices}</select>'


def _range(element_id: str, label: str, value: int) -> str:
    return (
        f'<label for="{element_id}">{label} <output for="{element_id}" aria-live="off">{value}%</output></label>'
        f'<input id="{element_id}" type="range" min="0" max="100" step="5" value="{value}" autocomplete="off">'
    )


def _what_to_do_next(steps: Sequence[str]) -> str:
    # Unlike the risk, it has no colour of its own: none of it says that all is well.
    return (
        '<div class="pn-next"><h3>What to do next</h3>'
        f"{_items(list(steps), 'pn-steps')}<h4>{escape(DANGER_SIGNS_HEADING)}</h4>"
        f"{_items(list(DANGER_SIGNS), 'pn-signs')}"
        f'<p class="pn-explanation">{escape(SOURCE)}</p></div>'
    )


def _members(finding: Finding, config: SnapshotConfig) -> str:
    rows = [
        (f"{m.display_name} (weight {m.weight:g})", finding.member_probabilities.get(m.name)) for m in config.members
    ]
    body = "".join(
        f'<tr><th scope="row">{escape(title)}</th>'
        + "".join(f"<td>{p[name]:.2%}</td>" for name in CLASS_NAMES)
        + "</tr>"
        for title, p in rows
        if p is not None
    )
    head = "".join(f'<th scope="col">{DISPLAY_NAMES[name]}</th>' for name in CLASS_NAMES)
    return (
        '<details><summary>Each backbone on its own</summary><div class="pn-table" role="region" '
        'aria-label="Probabilities of each backbone" tabindex="0"><table><thead><tr>'
        f'<th scope="col">Backbone</th>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _reports(path: str) -> str:
    """Return links to the reports of an answer: plain links, so that keyboard and screen reader have them as such."""
    if not path:
        return ""
    links = "".join(
        f'<li><a class="pn-button" href="{escape(path)}/{kind.name}" download="{kind.file_name}" '
        f'aria-label="Download the report as {kind.title}">{kind.title}</a></li>'
        for kind in FORMATS.values()
    )
    return (
        '<nav class="pn-reports" aria-label="Reports of this answer"><h3>Report</h3>'
        f"<ul>{links}</ul>"
        '<p class="pn-explanation">For as long as the page holds the film. The DICOM files carry the patient and the '
        "study of a DICOM film, as DICOM wants; the others name nobody.</p></nav>"
    )


def _provenance(finding: Finding, request_id: str, duration_ms: float) -> str:
    model = finding.model
    origin = f"{model.repo_id} at {model.revision}" if model.repo_id else model.revision
    answer = json.dumps(finding.answer(request_id, duration_ms), indent=2)
    return (
        f'<p class="pn-meta">Model {escape(model.version)} (<code>{escape(origin)}</code>), '
        f"request <code>{escape(request_id)}</code>, {duration_ms / 1000:.2f} s. {escape(DISCLAIMER)}</p>"
        f'<button type="button" class="pn-button" data-copy="{escape(answer)}">Copy result as JSON</button>'
    )
