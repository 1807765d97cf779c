"""Previews and reports wait in turns of their own: bounded, timed, given up with their caller, and without pixels."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest

from pneumonet.finding import NO_FILM, Finding
from pneumonet.model import PneumoNet
from pneumonet.radiograph import Radiograph
from pneumonet.settings import Settings
from pneumonet.web import answering, endpoints, reporting, service, ui
from pneumonet.web.held import offers
from pneumonet.web.reporting import REPORT_ROUTE
from pneumonet.web.turns import Turns
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, dicom, logged, serving, wait_until
from tests.web.test_life import SlowModel
from tests.web.test_reports import answered_of

SIDES = (331, 287)
FILM = encoded(phantom(*SIDES))
REFUSED = encoded(phantom(*SIDES) * 0 + 90)
JSON_REPORT = "/predict?format=json"


@pytest.fixture
def let(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What every report waits for, once its turn has come."""
    event, render = threading.Event(), reporting.render

    def waiting(*arguments: Any) -> bytes:
        event.wait(30)
        return render(*arguments)

    monkeypatch.setattr(reporting, "render", waiting)
    yield event
    event.set()


@pytest.fixture
def server(web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server at which two reports are made and one may wait."""
    monkeypatch.setattr(service, "_REPORTS_WAITING", 1)
    with serving(web_settings, lambda: tiny_model, tmp_path) as running:
        yield running


@pytest.fixture
def link(tiny_model: PneumoNet) -> Iterator[str]:
    """The link to a report that the page shows."""
    token = offers.add(answered_of(tiny_model, "Doe_Jane.jpg"))
    yield f"{REPORT_ROUTE}/{token}/json"
    offers.take_back(token)


def _ask(running: Running, film: bytes = FILM) -> httpx.Response:
    with running.http() as http:
        return http.post(JSON_REPORT, files={"file": ("film.png", film)})


def _get(running: Running, path: str) -> httpx.Response:
    with running.http() as http:
        return http.get(path)


def test_a_full_queue_of_reports_says_busy_and_keeps_no_film_waiting(
    server: Running, let: threading.Event, link: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(_ask, server) for _ in range(3)]
        wait_until(lambda: server.service.reports.present == 3)
        caplog.clear()
        caplog.set_level("INFO", "pneumonet")
        for refused in (_ask(server), _get(server, link)):
            assert (refused.status_code, refused.json()["code"]) == (503, "busy")
            assert int(refused.headers["retry-after"]) > 0
        assert logged(caplog) == [("rest", "ok"), ("rest", "busy"), ("rest", "busy")]
        assert server.post(FILM).status_code == 200
        let.set()
        assert [answer.result().status_code for answer in asked] == [200] * 3


@pytest.mark.parametrize("film", [FILM, REFUSED], ids=["answered", "refused"])
def test_a_report_that_waits_holds_no_pixels(server: Running, let: threading.Event, film: bytes) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(_ask, server, film) for _ in range(3)]
        wait_until(lambda: server.service.reports.present == 3)
        wait_until(lambda: _films_in_memory() == 2)
        let.set()
        assert {answer.result().status_code for answer in asked} == {200 if film is FILM else 422}


def _films_in_memory() -> int:
    return sum(type(thing) is Radiograph and thing.pixels.shape == SIDES for thing in gc.get_objects())


def test_a_report_that_takes_too_long_is_given_up(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, let: threading.Event, link: str
) -> None:
    with serving(replace(web_settings, request_seconds=1), lambda: tiny_model, tmp_path) as running:
        for answer in (_ask(running), _get(running, link)):
            assert (answer.status_code, answer.json()["code"]) == (503, "took_too_long")
        let.set()
        wait_until(lambda: running.service.reports.present == 0)
        assert _get(running, link).status_code == 200


def test_a_film_and_its_report_have_one_time_together(
    server: Running, let: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the film had been at work for all but a tenth of a second of the minute; the report alone has all of one.
    late = SimpleNamespace(perf_counter=time.perf_counter, monotonic=lambda: time.monotonic() - 59.9)
    monkeypatch.setattr(answering, "time", late)
    with server.http() as http:
        answer = http.post(JSON_REPORT, files={"file": ("film.png", FILM)}, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (503, "took_too_long")


def test_what_is_drawn_of_an_answer_counts_as_part_of_it(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    present = []

    def watched(draw: Callable[[Finding], Any]) -> Callable[[Finding], Any]:
        def drawn(finding: Finding) -> Any:
            present.append(server.service.films.present)
            return draw(finding)

        return drawn

    for door, name in ((answering, "overlay"), (endpoints, "overlay"), (endpoints, "overlays")):
        monkeypatch.setattr(door, name, watched(getattr(door, name)))
    assert server.post(FILM).json()["gradcam_image"]
    for name in ("predict", "explain"):
        assert server.ask_raw([server.upload(FILM)], name)[0] == "complete"
    assert set(present) == {1}
    assert len(present) == 3
    monkeypatch.setattr(answering, "overlay", lambda finding: 1 // 0)
    caplog.set_level("INFO", "pneumonet.requests")
    caplog.clear()
    assert server.post(FILM).status_code == 500
    assert [record.code for record in caplog.records if hasattr(record, "code")] == ["internal_error"]


def test_no_pixel_outlives_the_turn_of_its_film(tiny_model: PneumoNet) -> None:
    own = service.Service(Settings(device="cpu"), lambda: tiny_model)
    own.start().join()
    answer = own.answer(FILM, draw=lambda finding: finding.film.pixels.shape, request_id="x", door="rest")
    finding, drawn = asyncio.run(answer)
    assert (finding.film is NO_FILM, drawn) == (True, SIDES)


@contextmanager
def _sent(running: Running, head: str, body: bytes = b"") -> Iterator[socket.socket]:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(f"{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode())
        connection.sendall(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body)
        yield connection


def test_a_report_is_given_up_with_its_caller(server: Running, let: threading.Event, link: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + FILM + b"\r\n--b--\r\n"
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(_ask, server) for _ in range(2)]
        wait_until(lambda: server.service.reports.present == 2)
        for head, sent in ((f"POST {JSON_REPORT}", body), (f"GET {link}", b"")):
            with _sent(server, head, sent):
                wait_until(lambda: server.service.reports.present == 3)
            wait_until(lambda: server.service.reports.present == 2)
        let.set()
        assert [answer.result().status_code for answer in asked] == [200, 200]


def _visitor(name: str) -> gr.Request:
    return gr.Request(session_hash=name, headers={}, query_params={})


@pytest.fixture
def visit(tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch) -> Callable[[Turns], ui.Page]:
    """Return a page whose previews wait in some turns, and whose uploads are all one film."""
    monkeypatch.setattr(ui, "take_file", lambda path: FILM)

    def visit(previews: Turns) -> ui.Page:
        own = service.Service(Settings(device="cpu"), lambda: tiny_model)
        own.start().join()
        own.previews = previews
        return ui.Page(own, ())

    return visit


def test_a_full_queue_of_previews_says_so(
    visit: Callable[[Turns], ui.Page], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let, read = threading.Event(), ui.read_radiograph

    def slow(*arguments: Any, **options: Any) -> Radiograph:
        let.wait(30)
        return read(*arguments, **options)

    monkeypatch.setattr(ui, "read_radiograph", slow)
    page = visit(Turns(1, 1, 60))
    caplog.set_level("INFO", "pneumonet")
    caplog.clear()

    async def ask() -> None:
        first = asyncio.create_task(page.take("film", _visitor("first")))
        while page.service.previews.present < 1:
            await asyncio.sleep(0.01)
        shown, html, *_ = await page.take("film", _visitor("second"))
        assert (shown, "queue is full" in html) == ("", True)
        # It is held all the same, and can be analysed.
        assert page.films.get("second") is not None
        let.set()
        assert "pn-preview" in (await first)[0]

    asyncio.run(ask())
    assert logged(caplog) == [("page", "busy")]


def test_a_preview_that_takes_too_long_says_so(visit: Callable[[Turns], ui.Page]) -> None:
    shown, html, *_ = asyncio.run(visit(Turns(1, 1, 0)).take("film", _visitor("first")))
    assert (shown, "was not answered within 0 s" in html) == ("", True)


def test_an_answer_that_is_said_again_waits_among_the_previews(visit: Callable[[Turns], ui.Page]) -> None:
    class Counting(Turns):
        runs = 0

        async def run(self, work: Callable[[], Any]) -> Any:
            self.runs += 1
            return await super().run(work)

    async def ask() -> None:
        previews = Counting(1, 1, 60)
        page = visit(previews)
        async for _ in page.analyse("film", _visitor("first")):
            pass
        assert previews.runs == 0
        assert "pn-result" in (await page.said_again(_visitor("first")))[1]
        # The film and its answer: both are drawn anew.
        assert previews.runs == 2

    asyncio.run(ask())


def test_a_refusal_that_the_page_holds_keeps_no_film_alive(
    tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui, "take_file", lambda path: dicom(phantom(*SIDES), ViewPosition="LATERAL"))

    async def ask() -> None:
        own = service.Service(Settings(device="cpu"), lambda: tiny_model)
        own.start().join()
        page = ui.Page(own, ())
        async for _ in page.analyse("film", _visitor("first")):
            pass
        assert page.films.last_answer("first") is not None
        assert _films_in_memory() == 0

    gc.collect()
    asyncio.run(ask())


def test_more_films_than_gradio_has_places_by_itself_wait_in_our_queue(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path
) -> None:
    # There the time that one may take counts, and /health and the gauge tell how many there are.
    slow: Any = SlowModel(tiny_model)
    settings = replace(web_settings, max_waiting=60)
    with serving(settings, lambda: slow, tmp_path) as running, running.http() as http:
        for _ in range(50):
            http.post("/gradio_api/call/predict", json={"data": [running.upload(FILM)]}).raise_for_status()
        wait_until(lambda: running.service.films.present == 50)
        slow.let.set()
        wait_until(lambda: running.service.films.present == 0)


def test_no_event_of_the_page_waits_elsewhere(web_settings: Settings, tiny_model: PneumoNet) -> None:
    page = ui.build_page(service.Service(web_settings, lambda: tiny_model))
    assert {event.concurrency_limit for event in page.fns.values()} <= {None, "default"}
