"""WCAG 2.1 AA: axe-core on every screen, the whole path by keyboard, words for pictures, stillness, a large zoom."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumonet.errors import SignInError
from pneumonet.finding import ENSEMBLE
from pneumonet.language import ENGLISH
from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES
from pneumonet.web.oauth import sign_in_page
from tests.e2e.conftest import Visit, analyse, answer, choose, take_away
from tests.web.conftest import Running

pytestmark = pytest.mark.browser

PHONE, DESK = {"width": 360, "height": 780}, {"width": 1280, "height": 900}
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
    # Of all else that it looks at, axe would work out selectors, which takes it longer than to look.
    "resultTypes": ["violations"],
}


def _violations(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core in this environment").Axe()
    found = axe.run(page, options=RULES).response["violations"]
    return [f"{v['id']}: {node['html'][:200]} {node['failureSummary']}" for v in found for node in v["nodes"]]


@contextlib.contextmanager
def _held_back(site: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Keep answers back until the event is set."""
    let_go, answer_film = threading.Event(), site.service.answer

    async def slow(*arguments: Any, **options: Any) -> Any:
        while not let_go.is_set():
            await asyncio.sleep(0.02)
        return await answer_film(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(site.service, "answer", slow)
        yield let_go


_PASTE_TWO = """async () => {
  const icon = await (await fetch("icons/icon-192.png")).blob();
  const data = new DataTransfer();
  for (const name of ["first.png", "second.png"]) data.items.add(new File([icon], name, { type: "image/png" }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""


def _screens(page: Any, site: Running, films: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Go through the page's screens; each stands there while it is named."""
    yield "empty"
    page.set_input_files("#film-file input[type=file]", films / "large.png")
    page.wait_for_selector("#too-large:visible")
    yield "too large"
    page.evaluate(_PASTE_TWO)
    page.wait_for_selector("#one-film:visible")
    page.wait_for_selector("#preview img")
    yield "one film"
    take_away(page)
    page.wait_for_selector("#preview img", state="detached")
    choose(page, films / "film.jpg")
    yield "chosen"
    with _held_back(site, monkeypatch) as let_go:
        page.click("#analyse")
        page.wait_for_selector("#result .pn-working")
        yield "working"
        let_go.set()
        answer(page)
    page.click("details summary")
    yield "result"
    page.route("**/report/**", lambda route: route.abort())
    page.locator(".pn-reports a").first.click()
    page.wait_for_selector(".pn-reports [role=alert]:visible")
    yield "report"
    page.unroute("**/report/**")
    page.click("#example-1")
    page.wait_for_selector("#answer-anyway")
    yield "refusal"
    page.click("#answer-anyway")
    page.wait_for_selector("#result .pn-result")
    answer(page)
    yield "forced"
    choose(page, films / "notes.txt")
    yield "error"
    page.set_content(bytes(sign_in_page(ENGLISH, SignInError("This account may not ask here.")).body).decode())
    yield "sign-in"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_screen(
    visit: Visit, site: Running, films: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce", viewport=DESK)
    found = {}
    for screen in _screens(page, site, films, monkeypatch):
        # The dark one has other colours and no other shape.
        for size in (PHONE, DESK) if scheme == "light" else (DESK,):
            page.set_viewport_size(size)
            found[screen, size["width"]] = _violations(page)
    assert len(found) == (22 if scheme == "light" else 11)
    assert not {screen: violations for screen, violations in found.items() if violations}


def _tab_to(page: Any, selector: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is out of the keyboard's reach")


_RING = """() => {
  const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(document.activeElement);
  return [outlineStyle, parseFloat(outlineWidth) >= 2, outlineColor.startsWith("rgb(")];
}"""
_STOPS = """() => [...document.querySelectorAll("#result :is(a[href], button, input, select, summary, [tabindex='0'])")]
  .filter((e) => e.checkVisibility()).length"""


def test_the_keyboard_alone_goes_the_whole_path(visit: Visit, films: Path) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"], viewport=DESK)
    _tab_to(page, "#film-file button")
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for _ in range(5):
        # The browser opens a chooser each time; playwright misses one that comes while it begins to listen.
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        if choosers:
            break
    choosers[0].set_files(films / "film.jpg")
    page.wait_for_selector("#preview img")
    _tab_to(page, "#analyse")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'result-heading'")
    assert page.evaluate(_RING) == ["solid", True, True]

    shown = page.locator(".pn-heat img:visible")
    for chooser_id in ("map-label", "map-source"):
        _tab_to(page, f"#{chooser_id}")
        words = shown.get_attribute("alt")
        page.keyboard.press("ArrowDown")
        if shown.get_attribute("alt") == words:
            page.keyboard.press("ArrowUp")
        assert shown.get_attribute("alt") != words
    _tab_to(page, "#map-opacity")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("getComputedStyle(document.querySelector('.pn-heat')).opacity") == "0.65"
    _tab_to(page, "summary")
    page.keyboard.press("Enter")
    assert page.is_visible(".pn-table")
    _tab_to(page, "#result a[download]")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert Path(download.value.path()).stat().st_size > 0
    _tab_to(page, "[data-copy]")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-copy]:has-text('Copied')")
    assert json.loads(page.evaluate("navigator.clipboard.readText()"))["prediction"]

    page.focus("#result-heading")
    rings = []
    for _ in range(page.evaluate(_STOPS)):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('#result') !== null")
        rings.append(page.evaluate(_RING))
    assert len(rings) > 8
    assert rings == [["solid", True, True]] * len(rings)
    # And out of it again.
    _tab_to(page, "#example-1")


def test_whoever_has_gone_to_another_button_meanwhile_stays_there(
    visit: Visit, site: Running, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    choose(page, films / "film.jpg")
    with _held_back(site, monkeypatch) as let_go:
        page.click("#analyse")
        page.wait_for_selector("#result .pn-working")
        page.get_by_role("button", name="Take the film away").focus()
        let_go.set()
        page.wait_for_function("document.querySelector('#announcer').textContent.startsWith('Result: ')")
    assert page.evaluate("document.activeElement.ariaLabel") == "Take the film away"


def test_a_refusal_is_answered_anyway_by_keyboard(visit: Visit) -> None:
    page = visit()
    _tab_to(page, "#example-1")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'result-heading'")
    page.wait_for_selector("#answer-anyway")
    _tab_to(page, "#answer-anyway")
    page.keyboard.press("Enter")
    page.wait_for_selector("#result .pn-result")
    page.wait_for_function("document.activeElement.id === 'result-heading'")


def test_every_picture_has_words_and_the_maps_words_follow_the_map(visit: Visit, films: Path) -> None:
    page = visit()
    choose(page, films / "film.jpg")
    assert page.inner_text("#announcer").startswith("Film chosen. Your film. Preview of the JPEG picture, 260 x 300")
    analyse(page)
    # What a screen reader is told, not what the attributes hold.
    pictures = page.locator("#preview, #result").get_by_role("img")
    names = pictures.evaluate_all("images => images.map((image) => image.alt)")
    assert len(names) == 3
    assert all(names)
    sources = {ENSEMBLE: "Ensemble of both", "convnext_tiny": "ConvNeXt", "efficientnetv2_s": "EfficientNetV2-S"}
    for source, title in sources.items():
        for label in CLASS_NAMES:
            page.select_option("#map-source", source)
            page.select_option("#map-label", label)
            heat = page.locator(".pn-heat").get_by_role("img")
            assert heat.count() == 1
            words = str(heat.get_attribute("alt"))
            assert words.startswith(f"Heatmap for {DISPLAY_NAMES[label]}, {title}")
            assert words.endswith(page.inner_text("[data-caption]"))
            assert "picture" in words or "no region stood out" in words.lower()
    assert page.get_attribute("[data-caption]", "aria-live") == "polite"


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_for_whoever_asks_for_stillness(
    visit: Visit, site: Running, films: Path, monkeypatch: pytest.MonkeyPatch, motion: str
) -> None:
    page = visit(reduced_motion=motion)
    moving = "document.getAnimations().filter((a) => a.playState === 'running').length > 0"
    seen = {s: page.evaluate(moving) for s in _screens(page, site, films, monkeypatch) if s in ("working", "result")}
    assert seen["working"] is (motion == "no-preference")
    assert not seen["result"] or motion == "no-preference"


# 1280 pixels at 400 %.
ZOOMED = {"width": 320, "height": 256}
_CUT = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.checkVisibility() && !e.closest(".pn-hidden, .pn-table, .pn-stage, script, style"))
  .filter((e) => {
    const { left, right, width } = e.getBoundingClientRect();
    const hides = getComputedStyle(e).overflowX !== "visible" && e.scrollWidth > e.clientWidth + 1;
    return width > 0 && (left < -0.5 || right > innerWidth + 0.5 || hides);
  })
  .map((e) => e.outerHTML.slice(0, 160))"""


def test_at_400_per_cent_nothing_is_cut_and_nothing_scrolls_sideways(
    visit: Visit, site: Running, films: Path, monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    page = visit(viewport=ZOOMED)
    cut = {}
    for screen in _screens(page, site, films, monkeypatch):
        cut[screen] = page.evaluate(_CUT)
        assert page.evaluate("document.documentElement.scrollWidth") == ZOOMED["width"], screen
        if screen in ("result", "refusal"):
            page.screenshot(path=artifacts / f"{screen}-320-zoom.png", full_page=True)
    assert not {screen: elements for screen, elements in cut.items() if elements}


_EDGES = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => {
    const [low, high] = [light(parse(a)), light(parse(b))].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const style = (selector) => getComputedStyle(document.querySelector(selector));
  const ground = style(".pn-panel").backgroundColor;
  return {
    legend: ratio(style(".pn-scale").borderTopColor, ground),
    words: Math.min(...[...document.querySelectorAll(".pn-legend span:not(.pn-scale)")]
      .map((e) => ratio(getComputedStyle(e).color, ground))),
    select: ratio(style("#map-label").borderTopColor, ground),
    slider: ratio(style("#map-opacity").accentColor, ground),
    meter: ratio(style(".pn-meter > span").backgroundColor, style(".pn-meter").backgroundColor),
    ring: ratio(style("#analyse").backgroundColor, style("body").backgroundColor),
  };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_legend_and_the_controls_stand_out_from_their_ground(visit: Visit, films: Path, scheme: str) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    analyse(page, films / "film.jpg")
    ratios = page.evaluate(_EDGES)
    assert ratios.pop("words") >= 4.5
    assert {name: ratio for name, ratio in ratios.items() if ratio < 3} == {}
    assert page.evaluate("getComputedStyle(document.querySelector('.pn-scale')).borderTopWidth") == "1px"
