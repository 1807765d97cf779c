"""The page's events without a browser: whose film, for how long, and never another's answer."""

import asyncio
import re
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from pneumonet.errors import BusyError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import held, ui
from pneumonet.web.examples import Example
from pneumonet.web.held import HeldFilm, HeldFilms
from pneumonet.web.service import Service
from tests.support.films import encoded, phantom
from tests.web.conftest import logged

FILMS = {"film": encoded(phantom()), "other": encoded(phantom(seed=5)), "words": b"These are words."}


class _SlowService(Service):
    """A service whose answer waits until it is let go."""

    def __init__(self, settings: Settings, model: PneumoNet) -> None:
        super().__init__(settings, lambda: model)
        self.start().join()
        self.go = asyncio.Event()

    async def answer(self, *args: Any, **options: Any) -> Any:
        await self.go.wait()
        return await super().answer(*args, **options)


@pytest.fixture(autouse=True)
def _uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "take_file", FILMS.__getitem__)


@pytest.fixture
def refused_example(tmp_path: Path) -> Example:
    path = tmp_path / "blank.png"
    path.write_bytes(encoded(np.full((300, 260), 90, dtype=np.uint8)))
    return Example(path, "Blank", "Will be refused.")


VISITOR = gr.Request(session_hash="visitor", headers={}, query_params={})
SKIP = gr.skip()


def _page(model: PneumoNet, *examples: Example) -> tuple[ui.Page, _SlowService]:
    service = _SlowService(Settings(device="cpu"), model)
    return ui.Page(service, examples), service


async def _started(updates: Any) -> tuple[tuple[Any, ...], asyncio.Future[tuple[Any, ...]]]:
    """Return an event's first update, and the next one to come."""
    first = await anext(updates)
    following = asyncio.ensure_future(anext(updates))
    await asyncio.sleep(0)
    return first, following


def test_an_answer_follows_its_film(tiny_model: PneumoNet) -> None:
    async def ask() -> None:
        page, service = _page(tiny_model)
        first, answering = await _started(page.analyse("film", VISITOR))
        service.go.set()
        answer, analyse, _ = await answering
        assert "Analysing" in first[0]
        assert "pn-result" in answer
        assert analyse["interactive"]

    asyncio.run(ask())


@pytest.mark.parametrize("change", ["take", "forget", "example"])
def test_a_stale_run_shows_nothing_and_lets_no_button_go(
    tiny_model: PneumoNet, refused_example: Example, change: str
) -> None:
    async def ask() -> None:
        page, service = _page(tiny_model, refused_example)
        _, answering = await _started(page.analyse("film", VISITOR))
        if change == "take":
            await page.take("other", VISITOR)
        elif change == "forget":
            await page.forget(VISITOR)
        else:
            await anext(page.try_example(0, VISITOR))
        service.go.set()
        assert await answering == (SKIP,) * 3

    asyncio.run(ask())


def test_an_upload_that_is_shown_late_wipes_no_answer(tiny_model: PneumoNet) -> None:
    async def ask() -> None:
        page, service = _page(tiny_model)
        taking = asyncio.ensure_future(page.take("film", VISITOR))
        await asyncio.sleep(0)
        _, answering = await _started(page.analyse("film", VISITOR))
        preview, *others = await taking
        assert "pn-preview" in preview
        assert others == [SKIP] * 3
        service.go.set()
        assert "pn-result" in (await answering)[0]
        taking = asyncio.ensure_future(page.take("other", VISITOR))
        await asyncio.sleep(0)
        await page.forget(VISITOR)
        assert await taking == (SKIP,) * 4

    asyncio.run(ask())


def test_an_example_empties_the_box_once(tiny_model: PneumoNet, refused_example: Example) -> None:
    async def ask() -> None:
        page, service = _page(tiny_model, refused_example)
        service.go.set()
        files = [update[0] async for update in page.try_example(0, VISITOR)]
        assert files == [None, SKIP, SKIP]

    asyncio.run(ask())


def test_a_film_whose_time_runs_out_is_answered_and_then_forgotten(
    tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "HELD_MINUTES", 0.001)

    async def ask() -> None:
        page, service = _page(tiny_model)
        _, answering = await _started(page.analyse("film", VISITOR))
        await asyncio.sleep(0.2)
        assert len(page.films) == 1
        service.go.set()
        assert "pn-result" in (await answering)[0]
        while len(page.films):
            await asyncio.sleep(0.02)

    asyncio.run(ask())


def test_a_film_s_time_begins_anew_with_its_answer(tiny_model: PneumoNet) -> None:
    # Else the links to its reports may be dead when they are first seen.
    async def ask() -> None:
        page, service = _page(tiny_model)
        service.go.set()
        await page.take("film", VISITOR)
        chosen = page.films._held["visitor"].timer
        async for _ in page.analyse("film", VISITOR):
            pass
        answered = page.films._held["visitor"].timer
        assert chosen.cancelled()
        assert not answered.cancelled()
        assert answered.when() >= chosen.when()

    asyncio.run(ask())


def test_a_film_that_is_answered_late_is_held_for_its_reports(
    tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        page, service = _page(tiny_model)
        _, answering = await _started(page.analyse("film", VISITOR))
        # Its ten minutes are over before the answer comes.
        page.films._expire("visitor")
        service.go.set()
        assert "pn-result" in (await answering)[0]
        assert page.films.last_answer("visitor") is not None

    asyncio.run(ask())


def test_a_full_page_refuses_newcomers_in_words(
    tiny_model: PneumoNet, refused_example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_HELD_BYTES", 10)

    async def ask() -> None:
        page, service = _page(tiny_model, refused_example)
        await page.take("film", VISITOR)
        stranger = gr.Request(session_hash="stranger", headers={}, query_params={})
        assert "Too many films" in (await page.take("other", stranger))[1]
        assert "Too many films" in (await anext(page.analyse("other", stranger)))[0]
        assert "Too many films" in (await anext(page.try_example(0, stranger)))[2]
        service.go.set()
        assert "pn-result" in [update async for update in page.analyse("film", VISITOR)][-1][0]

    asyncio.run(ask())


def test_a_full_queue_of_films_is_told_in_words(tiny_model: PneumoNet, caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        page, service = _page(tiny_model)
        service.go.set()
        service.films.present = service.films.most
        caplog.set_level("INFO", "pneumonet")
        caplog.clear()
        *_, (html, analyse, anyway) = [update async for update in page.analyse("film", VISITOR)]
        assert ("queue is full" in html, "code busy" in html.lower()) == (True, True)
        # It can be asked about again.
        assert (analyse["interactive"], anyway["visible"]) == (True, False)
        assert page.films.get("visitor") is not None

    asyncio.run(ask())
    assert logged(caplog) == [("page", "busy")]


def test_a_result_is_drawn_in_the_turn_of_its_film(tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    async def ask() -> None:
        page, service = _page(tiny_model)
        service.go.set()
        result = ui.view.result

        def watched(*arguments: Any) -> str:
            drawn.append((service.films.present, arguments[0].film.height))
            return result(*arguments)

        monkeypatch.setattr(ui.view, "result", watched)
        html = [update async for update in page.analyse("film", VISITOR)][-1][0]
        token, answered = page.films.last_answer("visitor") or ("", None)
        assert f"/report/{token}/" in html
        assert answered is not None
        assert answered.duration_ms > 0

    asyncio.run(ask())
    assert drawn == [(1, 300)]


def test_each_film_has_one_line_in_the_log(tiny_model: PneumoNet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pneumonet")

    async def ask(path: str) -> list[str]:
        page, service = _page(tiny_model)
        service.go.set()
        caplog.clear()
        async for _ in page.analyse(path, VISITOR):
            pass
        return [line for line in caplog.messages if line.startswith("request=")]

    for path, code in (("film", "ok"), ("words", "unsupported_format")):
        (line,) = asyncio.run(ask(path))
        assert re.fullmatch(rf"request=\w+ door=page code={code} duration_ms=[\d.]+", line)
    page, _ = _page(tiny_model)
    caplog.clear()
    asyncio.run(page.take("words", VISITOR))
    (line,) = [line for line in caplog.messages if line.startswith("request=")]
    assert re.fullmatch(r"request=\w+ door=page code=unsupported_format duration_ms=[\d.]+", line)


def test_films_are_held_one_a_visitor_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_HELD_BYTES", 2_025)
    monkeypatch.setattr(held, "HELD_MINUTES", 0.001)

    async def hold() -> None:
        held = HeldFilms()
        for visitor in "ab":
            held.put(visitor, HeldFilm("path", bytes(10)))
        with pytest.raises(BusyError):
            held.put("c", HeldFilm("path", b""))
        assert [held.get(visitor) is None for visitor in "abc"] == [False, False, True]
        held.put("b", HeldFilm("other", bytes(10)))
        film = held.get("b")
        assert film is not None
        assert film.path == "other"
        held.drop("a")
        assert held.get("a") is None
        await asyncio.sleep(0.2)
        assert held.get("b") is None

    asyncio.run(hold())
