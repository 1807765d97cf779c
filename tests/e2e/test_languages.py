"""The page in each language: by the browser's, by the address, by hand; from right to left; nothing left in English."""

import re
from pathlib import Path
from typing import Any

import pytest

from pneumonet.language import ENGLISH, LANGUAGES, UNREVIEWED
from pneumonet.taxonomy import DISPLAY_NAMES, Risk
from pneumonet.web import view
from pneumonet.wording import HEATMAP_NOTE
from tests.e2e.conftest import Visit, analyse, choose
from tests.e2e.test_accessibility import DESK, PHONE, _violations
from tests.web.conftest import Running

pytestmark = pytest.mark.browser

TAGS = [tag for tag in LANGUAGES if tag != "en"]
# Names of things, which are the same in every language.
_NAMES = re.compile(
    r"PneumoNet|JPEG|PNG|TIFF|WebP|BMP|DICOM|JSON|PDF|FHIR|ConvNeXt-Tiny|EfficientNetV2-S|ISBN|SHA|local-\w+"
)


# Of each number: whether its first digit is left of its last character.
_ORDER = """selector => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility()).map((e) => {
  const [text, range] = [e.firstChild, document.createRange()];
  const left = (at) => (range.setStart(text, at), range.setEnd(text, at + 1), range.getBoundingClientRect().x);
  return left(0) < left(text.length - 1);
})"""


def _spoken(page: Any) -> tuple[str, str]:
    return page.get_attribute("html", "lang"), page.get_attribute("html", "dir")


def _answered(site: Running, film: Path) -> dict[str, Any]:
    answer: dict[str, Any] = site.post(film.read_bytes(), film.name).json()
    return answer


@pytest.mark.parametrize("tag", TAGS)
def test_the_browsers_language_is_the_pages(
    visit: Visit, site: Running, films: Path, artifacts: Path, tag: str
) -> None:
    language, told = LANGUAGES[tag], _answered(site, films / "film.jpg")
    page = visit(locale=tag, reduced_motion="reduce", viewport=DESK)
    page.wait_for_function(f"document.documentElement.lang === '{tag}'")
    assert _spoken(page) == (tag, language.direction)
    assert page.inner_text("#analyse").strip() == language(view.ANALYSE)
    assert language(UNREVIEWED) in page.inner_text("#page-header")
    text = analyse(page, films / "film.jpg")
    for english in (DISPLAY_NAMES[told["prediction"].replace(" ", "_")], told["risk_level"], HEATMAP_NOTE):
        assert language(english) in text
    assert language.number(told["confidence"]) in text
    assert page.evaluate(_ORDER, "#result bdi") == [True] * 7
    name = page.locator("#film-file .filename")
    assert name.evaluate("e => [getComputedStyle(e).direction, getComputedStyle(e).unicodeBidi]") == ["ltr", "isolate"]
    parts = (".filename .stem", ".filename .ext", ".icon-button-wrapper button")
    stem, suffix, clear = (page.locator(f"#film-file {part}").bounding_box() for part in parts)
    assert stem["x"] < suffix["x"]
    # Neither lies beneath the button that takes the film away.
    assert suffix["x"] + suffix["width"] <= clear["x"] or clear["x"] + clear["width"] <= stem["x"]
    page.screenshot(path=artifacts / f"result-1280-{tag}.png", full_page=True)
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.screenshot(path=artifacts / f"result-360-{tag}.png", full_page=True)
    assert not _violations(page)


@pytest.mark.parametrize("tag", ["zh-Hans", "ja", "ko", "hi", "ar", "ru"])
def test_no_english_sentence_is_left(visit: Visit, films: Path, tag: str) -> None:
    # In these scripts a run of Latin words is English that was forgotten; WHO's two titles may stand as they are.
    page = visit(locale=tag, reduced_motion="reduce")
    page.wait_for_function(f"document.documentElement.lang === '{tag}'")
    choose(page, films / "film.jpg")
    analyse(page)
    # Gradio's would be in the browser's language, and its panel in English.
    assert page.locator("footer, .api-docs").count() == 0
    page.evaluate("document.querySelectorAll('#examples, #language, .pn-next').forEach(e => e.remove())")
    shown = page.evaluate(
        "() => [document.body.innerText, ...[...document.querySelectorAll('main [aria-label], main [alt]')]"
        ".map(e => e.getAttribute('aria-label') || e.getAttribute('alt'))]"
    )
    for text in shown:
        assert not re.findall(r"[A-Za-z]{2,}(?: [a-z]{2,}){2,}", _NAMES.sub("", text)), text


def test_a_choice_by_hand_changes_the_page_as_it_stands_and_lasts(visit: Visit, site: Running, films: Path) -> None:
    told = _answered(site, films / "film.jpg")
    page = visit(locale="en-GB")
    analyse(page, films / "film.jpg")
    key = page.get_attribute("#result [data-key]", "data-key")
    for tag in ("ar", "es"):
        language = LANGUAGES[tag]
        page.focus("#language")
        page.select_option("#language", tag)
        page.wait_for_function(f"document.documentElement.lang === '{tag}'")
        page.wait_for_function("words => document.querySelector('#result').innerText.includes(words)",
                               arg=language(told["risk_level"]))  # fmt: skip
        # The same answer to the same film, in other words.
        assert page.get_attribute("#result [data-key]", "data-key") == key
        assert language.number(told["confidence"]) in page.inner_text("#result")
        assert page.inner_text("#analyse").strip() == language(view.ANALYSE)
        assert page.get_attribute("#preview img", "alt").startswith(language("Your film"))
        assert page.evaluate("document.activeElement.id") == "language"
    with page.expect_download() as download:
        page.click("#result .pn-reports a >> nth=1")
    assert '"language": "es"' in Path(download.value.path()).read_text(encoding="utf-8")
    page.goto(site.url)
    page.wait_for_function("document.documentElement.lang === 'es'")
    page.select_option("#language", "en")
    page.wait_for_function("document.documentElement.lang === 'en'")
    page.wait_for_function(f"document.querySelector('#analyse').innerText.trim() === '{view.ANALYSE}'")
    assert _spoken(page) == ("en", "ltr")


def test_a_refusal_is_said_again_too_and_can_be_answered(visit: Visit, site: Running) -> None:
    page = visit(locale="en")
    page.click("#example-1")
    page.wait_for_selector("#answer-anyway:visible")
    page.select_option("#language", "de")
    german = LANGUAGES["de"]
    page.wait_for_function("words => document.querySelector('#result').innerText.includes(words)",
                           arg=german("Not answered"))  # fmt: skip
    assert page.inner_text("#answer-anyway").strip() == german(view.ANSWER_ANYWAY)
    page.click("#answer-anyway")
    page.wait_for_selector("#result .pn-result")
    assert german(Risk.INDETERMINATE.value) in page.inner_text("#result")


def test_the_address_outweighs_the_browser(visit: Visit, site: Running) -> None:
    page = visit(f"{site.url}/?lang=ja", locale="de")
    page.wait_for_function("document.documentElement.lang === 'ja'")
    assert page.get_attribute("link[rel=manifest]", "href") == "manifest.json?lang=ja"
    assert page.inner_text("#analyse").strip() == LANGUAGES["ja"](view.ANALYSE)
    page = visit(f"{site.url}/?lang=xx", locale="sv")
    assert page.inner_text("#analyse").strip() == ENGLISH(view.ANALYSE)


@pytest.mark.parametrize("tag", ["en", "de"])
def test_a_second_film_takes_the_firsts_place_in_any_language(visit: Visit, films: Path, tag: str) -> None:
    # Gradio names its button to clear the box in the browser's language.
    page = visit(locale=tag)
    choose(page, films / "film.jpg")
    page.evaluate(
        """async (url) => {
          const film = new File([await (await fetch(url)).blob()], "second.png", { type: "image/png" });
          const transfer = new DataTransfer();
          transfer.items.add(film);
          document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
        }""",
        "icons/icon-192.png",
    )
    page.wait_for_function("document.querySelector('#film-file .filename')?.innerText.includes('second')")
