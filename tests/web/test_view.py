"""The page's HTML: every number is there, everything is escaped, and nothing promises too much."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pneumonet.admission import Admission
from pneumonet.errors import AdmissionError, InternalError, PneumoNetError, Reason, UnsupportedFormatError
from pneumonet.finding import DISCLAIMER, ENSEMBLE, Finding
from pneumonet.language import LANGUAGES, said
from pneumonet.model import PneumoNet
from pneumonet.next_steps import HELP_AT_ONCE, SOURCE, steps_for
from pneumonet.radiograph import Radiograph
from pneumonet.reports.document import Report
from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES, Risk
from pneumonet.web import view
from pneumonet.web.examples import Example, load_examples
from tests.support.films import encoded, phantom

HOSTILE = """<script>alert("x")</script> & 'it'"""
VOID = {"img", "input", "path", "br"}


class Parsed(HTMLParser):
    """Elements with their attributes, and the text; fails where tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def having(self, attribute: str, value: str | None = None) -> list[dict[str, str]]:
        return [a for _, a in self.elements if attribute in a and value in (None, a[attribute])]

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def finding(tiny_model: PneumoNet) -> Finding:
    return tiny_model.predict(encoded(phantom()))


def _result(finding: Finding, model: PneumoNet) -> Parsed:
    return Parsed(view.result(finding, model.snapshot.config, "0123456789abcdef", 41.23))


def test_every_probability_stands_in_a_meter_and_as_text(finding: Finding, tiny_model: PneumoNet) -> None:
    page = _result(finding, tiny_model)
    meters = page.having("role", "meter")
    assert len(meters) == 3
    shown = {meter["aria-labelledby"].removeprefix("meter-"): meter for meter in meters}
    for name, p in finding.probabilities.items():
        assert float(shown[name]["aria-valuenow"]) == pytest.approx(p, abs=1e-4)
        assert (shown[name]["aria-valuemin"], shown[name]["aria-valuemax"]) == ("0", "1")
        assert f"{p:.2%}" in page.text
        assert DISPLAY_NAMES[name] in page.text


def test_the_label_its_confidence_the_risk_and_the_disclaimer_are_read(finding: Finding, tiny_model: PneumoNet) -> None:
    page = _result(finding, tiny_model)
    for words in (DISPLAY_NAMES[finding.label], f"{finding.confidence:.2%}", finding.risk.value, DISCLAIMER):
        assert words in page.text
    for words in ("0123456789abcdef", "0.04 s", finding.model.revision, finding.model.version):
        assert words in page.text


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (("NORMAL", "VIRAL_PNEUMONIA"), "Normal or viral pneumonia: cannot tell which (at 90% coverage)"),
        (("NORMAL",), "Of the three classes, only one is left open: normal (at 90% coverage)"),
    ],
)
def test_what_it_could_also_be_is_said(
    finding: Finding, tiny_model: PneumoNet, chosen: tuple[str, ...], words: str
) -> None:
    assert words in _result(replace(finding, label="NORMAL", prediction_set=chosen), tiny_model).text


def test_what_the_percentages_mean_is_said_of_films_that_the_model_knows_only(
    finding: Finding, tiny_model: PneumoNet
) -> None:
    words = "The percentages are calibrated", "the classes left open held the right one"
    forced = _result(replace(finding, admission=replace(finding.admission, accepted=False)), tiny_model).text
    for sentence in words:
        assert sentence in _result(finding, tiny_model).text
        assert sentence not in forced
    assert "coverage" not in forced


@pytest.mark.parametrize("label", ["NORMAL", "VIRAL_PNEUMONIA"])
def test_a_normal_answer_is_never_announced_alone(finding: Finding, tiny_model: PneumoNet, label: str) -> None:
    (section,) = _result(replace(finding, label=label), tiny_model).all("section")
    assert ("does not rule out disease" in section["data-arrival"]) is (label == "NORMAL")


def test_a_slider_is_not_spoken_twice(finding: Finding, tiny_model: PneumoNet) -> None:
    outputs = _result(finding, tiny_model).all("output")
    assert [output["aria-live"] for output in outputs] == ["off", "off"]


def test_each_risk_has_a_shape_of_its_own_and_none_is_green(finding: Finding, tiny_model: PneumoNet) -> None:
    panels = {risk: view.result(replace(finding, risk=risk), tiny_model.snapshot.config, "0", 1.0) for risk in Risk}
    shapes = {re.findall(r'data-risk="\w+"><svg.*?</svg>', panel)[0].split("<svg")[1] for panel in panels.values()}
    assert len(shapes) == len(Risk)
    css = (view.PAGE_FOLDER / "page.css").read_text()
    colours = re.findall(r"--pn-(?:none|indeterminate)(?:-ground)?: #(\w{6})", css)
    assert len(colours) == 8
    for colour in colours:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (0, 2, 4))
        assert green <= max(red, blue)


def test_nine_layers_lie_on_the_film_and_one_shows(finding: Finding, tiny_model: PneumoNet) -> None:
    page = _result(finding, tiny_model)
    layers = page.having("data-source")
    assert {(layer["data-source"], layer["data-label"]) for layer in layers} == {
        (source, label) for source in finding.saliency for label in CLASS_NAMES
    }
    (shown,) = [layer for layer in layers if "hidden" not in layer]
    assert (shown["data-source"], shown["data-label"]) == (ENSEMBLE, finding.label)
    assert all(image["alt"] for image in page.all("img"))
    assert "aspect:0.86667" in page.having("data-viewer")[0]["style"]


def test_an_empty_map_is_said_to_be_empty(finding: Finding, tiny_model: PneumoNet) -> None:
    zeros = {s: {name: np.zeros_like(m) for name, m in maps.items()} for s, maps in finding.saliency.items()}
    page = _result(replace(finding, saliency=zeros), tiny_model)
    assert "the heatmap is empty" in page.text
    assert all("the heatmap is empty" in layer["alt"] for layer in page.having("data-source"))


def test_without_maps_the_film_is_shown_alone(finding: Finding, tiny_model: PneumoNet) -> None:
    page = _result(replace(finding, saliency={}), tiny_model)
    assert len(page.all("img")) == 1
    assert page.all("select") == []


def test_warnings_and_hostile_words_are_shown_as_words(finding: Finding, tiny_model: PneumoNet) -> None:
    model = replace(finding.model, repo_id=HOSTILE, version=HOSTILE)
    page = _result(replace(finding, warnings=(HOSTILE, "Second warning."), model=model), tiny_model)
    assert page.all("script") == []
    assert page.text.count(HOSTILE) == 3
    assert "Second warning." in page.text


def test_the_copied_json_is_the_answer(finding: Finding, tiny_model: PneumoNet) -> None:
    (button,) = _result(finding, tiny_model).having("data-copy")
    copied = json.loads(button["data-copy"])
    # What every web door says, less /explain's picture.
    assert set(copied) == set(finding.answer("0123456789abcdef", 0.0))
    assert copied == {
        **finding.to_dict(),
        "timings": finding.timings,
        "request_id": "0123456789abcdef",
        "duration_ms": 41.2,
    }


def test_the_copied_json_is_in_the_page_s_language(finding: Finding, tiny_model: PneumoNet) -> None:
    german = LANGUAGES["de"]
    html = view.result(finding, tiny_model.snapshot.config, "0", 1.0, language=german)
    (button,) = Parsed(html).having("data-copy")
    assert json.loads(button["data-copy"]) == finding.answer("0", 1.0, german)


def test_a_large_film_of_noise_stays_within_what_a_page_can_carry(finding: Finding, tiny_model: PneumoNet) -> None:
    pixels = np.random.default_rng(0).random((2500, 2000), dtype=np.float32)
    film = replace(finding.film, pixels=pixels)
    assert len(view.result(replace(finding, film=film), tiny_model.snapshot.config, "0", 1.0)) < 1_500_000


def test_a_refusal_lists_each_reason_once() -> None:
    error = AdmissionError([Reason("colourful", "It is in colour."), Reason("too_small", f"It is small {HOSTILE}.")])
    page = Parsed(view.failure(error, "abc"))
    assert page.text.count("It is small") == 1
    assert page.text.count("It is in colour.") == 1
    assert HOSTILE in page.text
    assert page.all("script") == []
    assert "does not look like a chest X-ray" in page.text
    assert 'press "Answer anyway"' in page.text
    assert "force" not in page.text


@pytest.mark.parametrize("error", [UnsupportedFormatError(HOSTILE), InternalError("Something went wrong.")])
def test_an_error_is_a_sentence_a_hint_a_code_and_an_id(error: PneumoNetError) -> None:
    page = Parsed(view.failure(error, "abc"))
    assert page.having("role", "alert")
    for words in (error.message, error.hint, error.code, "abc"):
        assert words in page.text


def test_a_preview_is_described_and_its_title_escaped() -> None:
    page = Parsed(view.preview(Radiograph(np.zeros((30, 20), dtype=np.float32), "DICOM"), HOSTILE))
    (image,) = page.all("img")
    assert "20 x 30 pixels" in image["alt"]
    assert image["src"].startswith("data:image/png;base64,")
    assert HOSTILE in page.text


@pytest.mark.parametrize("name", ["header", "upload", "upload_notice", "examples", "placeholder", "working", "notes"])
def test_the_standing_texts_are_whole(name: str) -> None:
    page = Parsed(view.words(name, held_minutes=10, megabytes="12.5", max_bytes=12_500_000))
    assert "$" not in page.text


def test_a_visitor_reads_the_limits_before_sending_a_film() -> None:
    words = Parsed(view.words("header") + view.words("notes", held_minutes=10)).text
    for needed in ("Research use only. Not a medical device.", "children of one to five", "cannot rule", "10 minutes"):
        assert needed in " ".join(words.split())


@pytest.mark.parametrize("risk", Risk)
def test_what_to_do_next_stands_below_each_answer(finding: Finding, tiny_model: PneumoNet, risk: Risk) -> None:
    html = view.result(replace(finding, risk=risk), tiny_model.snapshot.config, "0", 1.0)
    text = Parsed(html).text
    for sentence in (*steps_for(risk), *HELP_AT_ONCE, SOURCE):
        assert text.count(sentence) == 1
    assert text.index(risk.value) < text.index("What to do next")
    # It has no colour of its own, whatever the risk.
    assert "data-risk" not in html[html.index('"pn-next"') :]
    css = (view.PAGE_FOLDER / "page.css").read_text()
    rules = [line for line in css.splitlines() if ".pn-next" in line or ".pn-signs" in line]
    colours = {value for line in rules for value in re.findall(r"(?:color|background|border[\w-]*):([^;]+)", line)}
    assert colours <= {" var(--pn-text)", " 1px solid var(--pn-line)"}


def test_a_refusal_says_how_to_send_a_better_picture_and_an_error_does_not() -> None:
    refusal = AdmissionError([Reason("colourful", "It is in colour.")])
    text = Parsed(view.failure(refusal, "abc")).text
    for sentence in (*steps_for(None), *HELP_AT_ONCE, SOURCE):
        assert text.count(sentence) == 1
    assert "What to do next" not in Parsed(view.failure(UnsupportedFormatError("Words."), "abc")).text


def test_a_forced_answer_says_it_too(finding: Finding, tiny_model: PneumoNet) -> None:
    forced = replace(finding, risk=Risk.INDETERMINATE, admission=replace(finding.admission, accepted=False))
    assert steps_for(None)[0] in _result(forced, tiny_model).text
    assert steps_for(None)[0] not in _result(replace(finding, risk=Risk.INDETERMINATE), tiny_model).text


def test_an_answer_given_anyway_says_why_the_film_was_refused(finding: Finding, tiny_model: PneumoNet) -> None:
    reasons = (Reason("colourful", said("It is in colour, {share:.0%}.", share=0.5)), Reason("too_small", HOSTILE))
    forced = replace(finding, admission=Admission(False, reasons), warnings=("A warning.",))
    page = _result(forced, tiny_model)
    assert page.text.index("A warning.") < page.text.index("Why the film was refused")
    for words in ("It is in colour, 50%.", HOSTILE):
        assert page.text.count(words) == 1
        assert page.text.index("Why the film was refused") < page.text.index(words)
    assert page.all("script") == []
    assert "refused" not in _result(finding, tiny_model).text


def test_page_and_report_have_the_same_signs(finding: Finding, tiny_model: PneumoNet) -> None:
    film, config = encoded(phantom()), tiny_model.snapshot.config
    report = Report(finding, finding.film, film, tiny_model.info, config, "0")
    heading, signs = report.danger_signs
    html = view.result(finding, config, "0", 1.0)
    (shown,) = re.findall(r'<h4>([^<]*)</h4><ul class="pn-signs">(.*?)</ul>', html)
    assert (unescape(shown[0]), [unescape(sign) for sign in re.findall("<li>(.*?)</li>", shown[1])]) == (
        heading, [*signs],
    )  # fmt: skip
    assert any("under two months" in sign for sign in signs)


def test_every_percentage_on_the_page_keeps_its_order(finding: Finding, tiny_model: PneumoNet) -> None:
    arabic = LANGUAGES["ar"]
    html = view.result(finding, tiny_model.snapshot.config, "0", 1.0, language=arabic)
    shown = re.sub(r"<(figure|p|li)\b.*?</\1>", "", html, flags=re.S)
    isolated = re.findall(r"<bdi>([\d.]+%)</bdi>", shown)
    # The headline, three meters, the axis of three, and three of each backbone.
    assert len(isolated) == 1 + 3 + 3 + 6
    assert isolated[0] == arabic.number(f"{finding.confidence:.2%}")
    assert not re.findall(r">[^<]*\d%[^<]*<(?!/bdi)", shown)


def test_examples_are_read_from_their_folder(tmp_path: Path) -> None:
    assert load_examples(tmp_path / "absent") == ()
    (tmp_path / "a.png").write_bytes(encoded(phantom()))
    entries = [{"file": name, "title": "A", "note": "B"} for name in ("a.png", "gone.png")]
    (tmp_path / "examples.json").write_text(json.dumps(entries))
    (example,) = load_examples(tmp_path)
    assert example == Example(tmp_path / "a.png", "A", "B")
    assert (example.thumbnail() or "").startswith("data:image/png;base64,")


def test_an_example_that_is_no_picture_has_no_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("words")
    assert Example(path, "A", "B").thumbnail() is None
    assert view.example_styles([(0, None), (1, "data:x")]) == "#example-1{--thumbnail:url(data:x)}"


def test_every_shipped_example_is_there_and_named_for_what_it_is() -> None:
    for example in load_examples():
        assert example.thumbnail() is not None
        assert "synthetic" in example.title.lower() or "refused" in example.title.lower()
