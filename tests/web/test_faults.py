"""What nobody foresaw, where no film is being answered: an id for its caller, a count for the alert, a line logged."""

import asyncio
from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import reporting, ui
from pneumonet.web.gradio_routes import GradioRoutes
from pneumonet.web.held import offers
from pneumonet.web.metrics import TURNED_AWAY
from pneumonet.web.service import Service
from tests.support.films import encoded, phantom
from tests.web.conftest import Running
from tests.web.test_reports import answered_of

FILM = encoded(phantom())
SECRET = "Doe_Jane"


def faults_counted() -> float:
    """Return what the alert FaultsOfOurs looks at, beside films' own answers."""
    return float(TURNED_AWAY.labels("internal_error")._value.get())


def lines_of_requests(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """Return the door, route and code of each request in the log."""
    lines: list[Any] = [record for record in caplog.records if hasattr(record, "request_id")]
    return [(line.door, line.route, line.code) for line in lines]


def fails(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError(f"about {SECRET}")


def _report(server: Running) -> tuple[int, str]:
    with server.http() as http:
        answer = http.post("/predict?format=json", files={"file": ("film.png", FILM)})
    return answer.status_code, answer.json()["code"]


def _link(server: Running) -> tuple[int, str]:
    token = offers.add(answered_of(server.service.model, "Doe_Jane.jpg"))
    with server.http() as http:
        answer = http.get(f"/report/{token}/json")
    offers.take_back(token)
    return answer.status_code, answer.json()["code"]


def _gate(server: Running) -> tuple[int, str]:
    with server.http() as http:
        answer = http.get("/gradio_api/info")
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    ("place", "name", "ask", "lines"),
    [
        (reporting, "render", _report, [("rest", "/predict", "ok"), ("rest", "/predict", "internal_error")]),
        (reporting, "render", _link, [("rest", "/report", "internal_error")]),
        (GradioRoutes, "missing", _gate, [("gradio", "/gradio_api", "internal_error")]),
    ],
    ids=["report", "link", "gate"],
)
def test_it_is_counted_and_logged_under_its_id(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: Any,
    name: str,
    ask: Callable[[Running], tuple[int, str]],
    lines: list[tuple[str, str, str]],
) -> None:
    monkeypatch.setattr(place, name, fails)
    caplog.set_level("INFO", "pneumonet")
    before = faults_counted()
    assert ask(running) == (500, "internal_error")
    assert faults_counted() == before + 1
    assert lines_of_requests(caplog) == lines
    assert SECRET not in caplog.text


def test_a_preview_that_fails_is_counted_and_logged(
    tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ui, "take_file", lambda path: FILM)
    monkeypatch.setattr(ui.view, "preview", fails)

    async def choose() -> str:
        service = Service(Settings(device="cpu"), lambda: tiny_model)
        visitor = gr.Request(session_hash="visitor", headers={}, query_params={})
        return str((await ui.Page(service, ()).take("film", visitor))[1])

    caplog.set_level("INFO", "pneumonet")
    before = faults_counted()
    assert "internal_error" in asyncio.run(choose())
    assert faults_counted() == before + 1
    assert lines_of_requests(caplog) == [("page", "/", "internal_error")]
    assert SECRET not in caplog.text
