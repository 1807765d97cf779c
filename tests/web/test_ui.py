"""The page's events without a browser: whose film, for how long, and never another's answer."""

import asyncio
from typing import Any

import gradio as gr
import pytest

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import ui
from pneumonet.web.service import Service
from pneumonet.web.ui import HeldFilms
from tests.support.films import encoded, phantom

FILMS = {"film": encoded(phantom()), "other": encoded(phantom(seed=5))}


class _SlowService(Service):
    """A service whose answer waits until it is let go."""

    def __init__(self, settings: Settings, model: PneumoNet) -> None:
        super().__init__(settings, lambda: model)
        self.start().join()
        self.go = asyncio.Event()

    async def answer(self, *args: Any, **options: Any) -> Any:
        await self.go.wait()
        return await super().answer(*args, **options)


def test_an_answer_never_stands_beside_another_film(tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "take_file", FILMS.__getitem__)
    visitor = gr.Request(session_hash="visitor")

    async def change_while_answering(change: bool) -> list[Any]:
        service = _SlowService(Settings(device="cpu"), tiny_model)
        page = ui.Page(service, ())
        updates = page.analyse("film", visitor)
        shown = [await anext(updates)]
        answering = asyncio.ensure_future(anext(updates))
        await asyncio.sleep(0)
        if change:
            await page.take("other", visitor)
        service.go.set()
        return [update[0] for update in (*shown, await answering)]

    working, answer = asyncio.run(change_while_answering(False))
    assert "Analysing" in working
    assert "pn-result" in answer
    _, answer = asyncio.run(change_while_answering(True))
    assert answer == gr.skip()


def test_films_are_held_one_a_visitor_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "_HELD_BYTES", 25)
    monkeypatch.setattr(ui, "_HELD_MINUTES", 0.001)

    async def hold() -> None:
        held = HeldFilms()
        for visitor in "abc":
            held.put(visitor, ui.HeldFilm("path", bytes(10)))
        assert [held.get(visitor) is None for visitor in "abc"] == [True, False, False]
        held.put("c", ui.HeldFilm("other", bytes(10)))
        film = held.get("c")
        assert film is not None
        assert film.path == "other"
        held.drop("b")
        assert held.get("b") is None
        await asyncio.sleep(0.2)
        assert held.get("c") is None

    asyncio.run(hold())
