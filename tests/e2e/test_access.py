"""The page for everyone: the viewer, by keyboard, on a phone, in the dark, and to copy from."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Visit, analyse
from tests.web.conftest import Running

pytestmark = pytest.mark.browser


def test_the_viewer_shows_the_map_that_is_chosen(visit: Visit, films: Path) -> None:
    page = visit()
    analyse(page, films / "film.jpg")
    layer = page.locator(".pn-heat img:visible")
    before = layer.get_attribute("src"), layer.get_attribute("alt")
    page.select_option("#map-label", "NORMAL")
    page.select_option("#map-source", "efficientnetv2_s")
    assert layer.count() == 1
    assert layer.get_attribute("src") != before[0]
    assert "Normal, EfficientNetV2-S" in str(layer.get_attribute("alt"))
    assert page.inner_text("[data-caption]") == layer.get_attribute("data-words")
    film, heat = page.locator(".pn-film").bounding_box(), layer.bounding_box()
    assert film == heat
    assert film["width"] / film["height"] == pytest.approx(260 / 300, abs=0.01)


def test_a_new_answer_starts_with_its_own_map_even_in_place_of_the_last(visit: Visit, films: Path) -> None:
    page = visit()
    analyse(page, films / "film.jpg")
    chosen = page.input_value("#map-label")
    page.select_option("#map-source", "convnext_tiny")
    page.fill("#map-opacity", "5")
    page.evaluate("document.querySelector('#result [data-key]').dataset.key = 'another'")
    page.wait_for_selector(".pn-heat img[data-source=ensemble]:visible")
    assert page.input_value("#map-opacity") == "60"
    page.select_option("#map-source", "convnext_tiny")
    analyse(page)
    assert page.input_value("#map-label") == chosen
    assert page.input_value("#map-source") == "ensemble"
    assert page.input_value("#map-opacity") == "60"
    assert page.get_attribute(".pn-heat img:visible", "data-source") == "ensemble"


def test_opacity_and_comparison_move_by_keyboard(visit: Visit, films: Path) -> None:
    page = visit()
    analyse(page, films / "film.jpg")
    page.focus("#map-opacity")
    page.keyboard.press("Home")
    assert page.evaluate("getComputedStyle(document.querySelector('.pn-heat')).opacity") == "0"
    assert page.inner_text("output[for=map-opacity]") == "0%"
    page.focus("#map-compare")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert "20%" in page.evaluate("getComputedStyle(document.querySelector('.pn-heat')).clipPath")
    assert page.is_visible(".pn-divider")


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "by hand"])
def test_the_copied_json_is_what_post_answers(visit: Visit, site: Running, films: Path, clipboard: bool) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    analyse(page, films / "film.jpg")
    if not clipboard:
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.click("[data-copy]")
    page.wait_for_selector("[data-copy]:has-text('Copied')")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    posted = site.post((films / "film.jpg").read_bytes()).json()
    own = {"timings", "request_id", "duration_ms"}
    assert set(copied) == set(posted) - {"gradcam_image"}
    for name in set(copied) - own:
        assert copied[name] == posted[name]


def test_a_phone_scrolls_down_only_and_to_the_answer(visit: Visit, films: Path) -> None:
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    analyse(page, films / "film.jpg")
    page.wait_for_function("Math.abs(document.querySelector('#result .pn-panel').getBoundingClientRect().top) < 60")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for target in ("#analyse", "#map-label", "#map-source", "[data-copy]", "#film-file button"):
        assert page.locator(target).first.bounding_box()["height"] >= 44


def test_the_keyboard_alone_reaches_an_answer(visit: Visit, films: Path) -> None:
    page = visit()
    with page.expect_file_chooser() as chooser:
        _tab_to(page, "#film-file button")
        page.keyboard.press("Enter")
    chooser.value.set_files(films / "film.jpg")
    page.wait_for_selector("#preview img")
    _tab_to(page, "#analyse")
    page.keyboard.press("Enter")
    page.wait_for_selector("#result .pn-result")
    page.wait_for_function("document.activeElement.id === 'result-heading'")
    assert page.inner_text("#announcer").startswith("Result: ")
    _tab_to(page, "#map-label")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = page.get_attribute(".pn-heat img:visible", "alt")
    page.keyboard.press("ArrowUp" if page.input_value("#map-label") == "VIRAL_PNEUMONIA" else "ArrowDown")
    assert page.get_attribute(".pn-heat img:visible", "alt") != before


def _tab_to(page: Any, selector: str) -> None:
    for _ in range(25):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is out of the keyboard's reach")


_CONTRASTS = """() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.checkVisibility()
      && !e.closest(".pn-hidden, script, style, option"))
    .map((e) => {
      const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 120)];
    })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out_from_its_ground(visit: Visit, films: Path, scheme: str) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    assert page.evaluate(_CONTRASTS) == []
    analyse(page, films / "film.jpg")
    page.click("details summary")
    assert page.evaluate(_CONTRASTS) == []
    for risk in ("high", "medium", "none"):
        page.evaluate("risk => { document.querySelector('.pn-risk').dataset.risk = risk; }", risk)
        assert page.evaluate(_CONTRASTS) == []
    page.click("#example-1")
    page.wait_for_selector("#answer-anyway")
    assert page.evaluate(_CONTRASTS) == []
    grounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (grounds == "rgb(15, 21, 27)") == (scheme == "dark")
