"""WCAG 2.1 AA: axe-core on every screen, the whole path by keyboard, words for pictures, stillness, and a large zoom."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Visit, analyse, answer, choose
from tests.web.conftest import Running

pytestmark = pytest.mark.browser

PHONE, DESK = {"width": 360, "height": 780}, {"width": 1280, "height": 900}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


def _violations(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core in this environment").Axe()
    found = axe.run(page, options=RULES).response["violations"]
    return [f"{v['id']}: {node['html'][:200]} {node['failureSummary']}" for v in found for node in v["nodes"]]


def _screens(page: Any, site: Running, films: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Go through the page's screens; each stands there while it is named."""
    yield "empty"
    page.set_input_files("#film-file input[type=file]", films / "large.png")
    page.wait_for_selector("#too-large:visible")
    yield "too large"
    choose(page, films / "film.jpg")
    yield "chosen"
    let_go, answer_film = threading.Event(), site.service.answer

    async def slow(*arguments: Any, **options: Any) -> Any:
        while not let_go.is_set():
            await asyncio.sleep(0.02)
        return await answer_film(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(site.service, "answer", slow)
        page.click("#analyse")
        page.wait_for_selector("#result .pn-working")
        yield "working"
        let_go.set()
        answer(page)
    page.click("details summary")
    yield "result"
    page.click("#example-1")
    page.wait_for_selector("#answer-anyway")
    yield "refusal"
    page.click("#answer-anyway")
    page.wait_for_selector("#result .pn-result")
    answer(page)
    yield "forced"
    choose(page, films / "notes.txt")
    yield "error"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_screen(
    visit: Visit, site: Running, films: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce", viewport=DESK)
    found = {}
    for screen in _screens(page, site, films, monkeypatch):
        for size in (PHONE, DESK):
            page.set_viewport_size(size)
            found[screen, size["width"]] = _violations(page)
    assert len(found) == 16
    assert not {screen: violations for screen, violations in found.items() if violations}
