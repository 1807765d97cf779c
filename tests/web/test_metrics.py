"""What the server counts and logs, scraped and parsed as Prometheus and a log collector would."""

import asyncio
import json
import logging
import socket
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import bodies, held, metrics, uploads
from pneumonet.web.login import is_of_this_machine
from pneumonet.web.logs import JsonFormatter, log_request
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, serving, wait_until

BLANK = encoded(np.full((200, 200), 90, dtype=np.uint8))


@pytest.fixture
def server(tiny_model: PneumoNet, tmp_path) -> Iterator[Running]:
    with serving(Settings(), lambda: tiny_model, tmp_path) as running:
        yield running


def _scraped(running: Running) -> dict[tuple[str, frozenset], float]:
    with running.http() as http:
        answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _value(samples: dict, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_known_traffic_is_counted(server: Running) -> None:
    film = encoded(phantom())
    labels = [server.post(film).json()["prediction"].replace(" ", "_") for _ in range(3)]
    assert server.post(BLANK).status_code == 422
    assert server.post(b"not a picture").status_code == 415
    server.ask_client(film)
    with server.http() as http:
        http.get("/wp-login.php")
        http.get("/health")
    samples = _scraped(server)
    assert _value(samples, "pneumonet_requests_total", route="/predict", code="200") == 3
    assert _value(samples, "pneumonet_requests_total", route="/predict", code="422") == 1
    assert _value(samples, "pneumonet_requests_total", route="/predict", code="415") == 1
    assert _value(samples, "pneumonet_requests_total", route="/health", code="200") == 1
    assert _value(samples, "pneumonet_requests_total", route="other", code="404") == 1
    assert _value(samples, "pneumonet_requests_total", route="/gradio_api/upload", code="200") == 1
    assert _value(samples, "pneumonet_request_seconds_count", route="/predict") == 5
    assert _value(samples, "pneumonet_answers_total", door="rest", code="ok") == 3
    assert _value(samples, "pneumonet_answers_total", door="gradio", code="ok") == 1
    assert _value(samples, "pneumonet_answers_total", door="rest", code="not_admitted") == 1
    assert _value(samples, "pneumonet_refusals_total", reason="blank") == 1
    assert _value(samples, "pneumonet_labels_total", label=labels[0]) == 4
    # What no reader reads, and what admission sees at a first look, costs no pass.
    assert _value(samples, "pneumonet_batch_size_count") == _value(samples, "pneumonet_batch_size_sum") == 4
    assert _value(samples, "pneumonet_queue_length") == 0
    engine = server.service.model.ensemble.engine
    info = {"version": "0.0.1", "engine": "openvino", "precision": engine.precision, "device": "cpu"}
    info["revision"] = server.service.model.info.revision
    assert _value(samples, "pneumonet_model_info", **info) == 1
    assert _value(samples, "process_resident_memory_bytes") > 1e7


def test_every_metric_is_scraped_by_the_name_that_dashboards_know(server: Running) -> None:
    server.post(encoded(phantom()))
    server.post(BLANK)
    names = {name for name, _ in _scraped(server)}
    for name in metrics.NAMES:
        assert name in names or f"{name}_bucket" in names, name


def test_a_stranger_s_paths_make_no_new_series(server: Running) -> None:
    with server.http() as http:
        for i in range(20):
            http.get(f"/patient-{i}.png")
            http.get(f"/gradio_api/call/nothing-{i}")
    routes = {dict(labels).get("route") for name, labels in _scraped(server) if name == "pneumonet_requests_total"}
    assert routes <= {"other", "/gradio_api/call", "/metrics"}


def test_health_says_what_runs_and_how_many_wait(server: Running) -> None:
    with server.http() as http:
        body = http.get("/health").json()
    precision = server.service.model.ensemble.engine.precision
    assert body["engine"] == {"name": "openvino", "device": "cpu", "precision": precision}
    assert body["memory_mib"] > 50
    assert body["queue"] == {"length": 0, "most": Settings().max_waiting + 2, "oldest_seconds": 0}


def test_films_present_are_in_the_gauge(tiny_model: PneumoNet) -> None:
    from pneumonet.web.service import Service

    service = Service(Settings(), lambda: tiny_model)
    service._model = tiny_model
    film, seen = encoded(phantom(900, 900)), []

    async def ask() -> None:
        waiting = [asyncio.create_task(service.answer(film, draw=str, request_id="x", door="rest")) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(service.metrics.registry.get_sample_value("pneumonet_queue_length"))
        await asyncio.gather(*waiting)

    asyncio.run(ask())
    assert seen == [5]
    assert service.metrics.registry.get_sample_value("pneumonet_queue_length") == 0


def test_what_alerts_look_at_is_there_before_it_happens(server: Running) -> None:
    # Of a series that appears at 1, Prometheus sees no increase.
    samples = _scraped(server)
    for code in ("internal_error", "busy", "took_too_long"):
        for door in ("rest", "gradio", "page"):
            assert samples["pneumonet_answers_total", frozenset({"door": door, "code": code}.items())] == 0
    for code in ("internal_error", "busy", "took_too_long", "too_many_requests"):
        assert ("pneumonet_turned_away_total", frozenset({"code": code}.items())) in samples


def test_who_is_turned_away_before_a_film_is_answered_is_counted(
    tiny_model: PneumoNet, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(running: Running, code: str) -> float:
        return _value(_scraped(running), "pneumonet_turned_away_total", code=code)

    with serving(Settings(requests_per_minute=12), lambda: tiny_model, tmp_path) as running:
        # One count a process: other servers of these tests have theirs in it.
        before = {code: counted(running, code) for code in ("busy", "too_many_requests", "bad_request")}
        film = encoded(phantom())
        with monkeypatch.context() as patch:
            patch.setattr(bodies, "_IN_FLIGHT_BYTES", 10)
            assert running.post(film).status_code == 503
        with running.http() as http:
            assert http.post("/predict", content=b"x", headers={"Content-Type": "image/png"}).status_code == 400
        assert running.post(film).status_code == 200
        assert running.post(film).status_code == 429
        rises = {code: counted(running, code) - count for code, count in before.items()}
    assert rises == {"busy": 1, "too_many_requests": 1, "bad_request": 1}


def test_the_bytes_of_films_that_are_held_are_told(server: Running) -> None:
    def told(where: str) -> float:
        return _value(_scraped(server), "pneumonet_held_bytes", where=where)

    async def hold() -> None:
        before, films = told("page"), held.HeldFilms()
        films.put("visitor", held.HeldFilm("path", bytes(1_000_000)))
        assert 1_000_000 <= told("page") - before < 1_010_000
        films.put("visitor", held.HeldFilm("other", bytes(2_000_000)))
        assert 2_000_000 <= told("page") - before < 2_010_000
        films.drop("visitor")
        assert told("page") == before

    asyncio.run(hold())
    for where, shelf in (("uploads", uploads.uploads), ("outputs", uploads.outputs)):
        before = told(where)
        path = shelf.put(bytes(1_000_000), "film")
        assert told(where) - before == 1_000_000
        shelf.take(path)
        assert told(where) == before
    assert told("bodies") == 0
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\n"
        connection.sendall(head.encode() + b" " * 50_000)
        wait_until(lambda: told("bodies") == 50_000)
    wait_until(lambda: told("bodies") == 0)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        (Settings(), 404),
        (Settings(metrics="public"), 200),
        (Settings(users={"ada": "secret"}), 200),
    ],
)
def test_a_stranger_is_not_told_what_the_films_show(
    tiny_model: PneumoNet, tmp_path, settings: Settings, status: int
) -> None:
    login = httpx.BasicAuth("ada", "secret") if settings.users else None
    # uvicorn believes a proxy on this machine, as the nginx of an operator's own is one.
    for address in ("203.0.113.5", "10.0.0.7", "2001:db8::1", "nonsense"):
        with serving(settings, lambda: tiny_model, tmp_path) as running, running.http() as http:
            assert http.get("/metrics", auth=login).status_code == 200
            answer = http.get("/metrics", headers={"X-Forwarded-For": address}, auth=login)
            assert answer.status_code == status
            if status == 404:
                assert set(answer.json()) == {"error", "code", "hint", "request_id"}
                assert "PNEUMONET_METRICS" in answer.json()["hint"]


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:203.0.113.5", False),
        ("192.168.0.1", False),
        ("localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_who_is_of_this_machine(host: str | None, is_here: bool) -> None:
    request = Request({"type": "http", "client": None if host is None else (host, 1)})
    assert is_of_this_machine(request) is is_here


def test_metrics_want_the_login_that_the_server_wants(tiny_model: PneumoNet, tmp_path) -> None:
    with serving(Settings(users={"ada": "secret"}), lambda: tiny_model, tmp_path) as running, running.http() as http:
        assert http.get("/metrics").status_code == 401
        assert http.get("/metrics", auth=httpx.BasicAuth("ada", "secret")).status_code == 200


def _lines(caplog: pytest.LogCaptureFixture, formatter: JsonFormatter) -> list[dict]:
    return [json.loads(formatter.format(record)) for record in caplog.records]


def test_a_request_is_one_json_object_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    formatter = JsonFormatter()
    formatter.context |= {"engine": "openvino", "revision": "local-0123"}
    with caplog.at_level(logging.INFO):
        log_request("8f3a", "rest", "ok", 41.234)
    (line,) = _lines(caplog, formatter)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO", "logger": "pneumonet.requests", "request_id": "8f3a", "door": "rest", "route": "/predict",
        "code": "ok", "duration_ms": 41.2, "engine": "openvino", "revision": "local-0123",
    }  # fmt: skip


def test_any_other_line_has_its_message_and_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("pneumonet.x").exception("it %s", "failed")
    formatted = JsonFormatter().format(caplog.records[0])
    assert "\n" not in formatted
    line = json.loads(formatted)
    assert line["message"] == "it failed"
    assert "ValueError: first\nsecond" in line["traceback"]
