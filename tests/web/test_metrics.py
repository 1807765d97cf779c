"""What the server counts and logs, scraped and parsed as Prometheus and a log collector would."""

import asyncio
import json
import logging
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import metrics
from pneumonet.web.logs import JsonFormatter, log_request
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, serving

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
    assert _value(samples, "pneumonet_batch_size_count") == 6
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
    assert body["queue"] == {"length": 0, "most": Settings().max_waiting + 2}


def test_films_present_are_in_the_gauge(tiny_model: PneumoNet) -> None:
    from pneumonet.web.service import Service

    service = Service(Settings(), lambda: tiny_model)
    service._model = tiny_model
    film, seen = encoded(phantom(900, 900)), []

    async def ask() -> None:
        waiting = [asyncio.create_task(service.answer(film, request_id="x", door="rest")) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(service.metrics.registry.get_sample_value("pneumonet_queue_length"))
        await asyncio.gather(*waiting)

    asyncio.run(ask())
    assert seen == [5]
    assert service.metrics.registry.get_sample_value("pneumonet_queue_length") == 0


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
