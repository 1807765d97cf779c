"""Traces reach the collector that is named, and tell times and codes, nothing of the film."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pneumonet.errors import ConfigError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from tests.support.films import encoded, phantom
from tests.support.net import free_port
from tests.web.conftest import Running, serving, wait_until
from tests.web.silent import Silent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
UNRECORDED = f"00-{TRACE}-{SPAN}-00"
BLANK = encoded(np.full((200, 200), 90, dtype=np.uint8))


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps what it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def spans(self) -> list[dict]:
        spans = []
        for body in self.bodies:
            request = ExportTraceServiceRequest.FromString(body)
            for of_resource in request.resource_spans:
                for scope in of_resource.scope_spans:
                    spans += [
                        {a.key: a.value.string_value or a.value.double_value for a in span.attributes}
                        | {"name": span.name, "ms": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6}
                        | {"trace": span.trace_id.hex(), "parent": span.parent_span_id.hex()}
                        for span in scope.spans
                    ]
        return spans


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join(5)


def test_each_answer_is_a_span(
    collector: Collector, tiny_model: PneumoNet, tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(otlp_endpoint=f"http://127.0.0.1:{collector.server_port}")
    with serving(settings, lambda: tiny_model, tmp_path) as running:
        answer = running.post(encoded(phantom()), "Doe_Jane.png").json()
        refused = running.post(BLANK).json()
        of_theirs = [
            _part_of_a_trace(running, {"traceparent": PARENT, "tracestate": "doe=jane1999"}),
            _part_of_a_trace(running, {"traceparent": "00-nonsense-01"}),
            _part_of_a_trace(running, {"traceparent": PARENT, "tracestate": "Doe Jane 1999"}),
            _part_of_a_trace(running, {"traceparent": f"{PARENT}-" + "x" * 512}),
        ]
        unrecorded = _part_of_a_trace(running, {"traceparent": UNRECORDED})
        running.service.close()
    by_id = {span["pneumonet.request_id"]: span for span in collector.spans}
    for request_id in (*of_theirs[0], *of_theirs[2]):
        assert (by_id[request_id]["trace"], by_id[request_id]["parent"]) == (TRACE, SPAN)
    for request_id in (*of_theirs[1], *of_theirs[3], answer["request_id"]):
        assert (by_id[request_id]["trace"] == TRACE, by_id[request_id]["parent"]) == (False, "")
    span = by_id[answer["request_id"]]
    assert (span["name"], span["pneumonet.door"], span["pneumonet.code"]) == ("answer", "rest", "ok")
    assert span["pneumonet.forward_ms"] == answer["timings"]["forward"]
    assert 0 < span["ms"] <= answer["duration_ms"] + 1
    assert by_id[refused["request_id"]]["pneumonet.code"] == "not_admitted"
    assert not by_id.keys() & set(unrecorded)
    for body in collector.bodies:
        assert not re.search(b"doe|jane", body, re.IGNORECASE)
        assert b"127.0.0.1" not in body
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")]


def _part_of_a_trace(running: Running, headers: dict[str, str]) -> tuple[str, str]:
    """Ask by POST and by Gradio as part of a caller's trace; returns the ids of both requests."""
    film = encoded(phantom())
    with running.http() as http:
        http.headers.update(headers)
        rest = http.post("/predict", files={"file": ("film.png", film)}).json()
        joined = http.post("/gradio_api/call/predict", json={"data": [running.upload(film)]}).json()
        told = http.get(f"/gradio_api/call/predict/{joined['event_id']}").text
    return rest["request_id"], json.loads(told.split("event: complete\ndata: ")[1])[0]["request_id"]


def test_a_collector_that_is_away_holds_nobody_up(tiny_model: PneumoNet, tmp_path) -> None:
    settings = Settings(otlp_endpoint=f"http://127.0.0.1:{free_port()}")
    with serving(settings, lambda: tiny_model, tmp_path) as running:
        assert running.post(encoded(phantom())).status_code == 200


def test_a_collector_that_never_answers_holds_nobody_up(tiny_model: PneumoNet, tmp_path) -> None:
    with Silent() as collector:
        settings = Settings(otlp_endpoint=f"http://127.0.0.1:{collector.port}")
        with serving(settings, lambda: tiny_model, tmp_path) as running, running.http() as http:
            http.timeout = httpx.Timeout(20)
            for _ in range(3):
                # It has been asked by now, and still holds what it was asked first.
                assert http.post("/predict", files={"file": ("film.png", encoded(phantom()))}).status_code == 200
                wait_until(lambda: collector.asked > 0)


@pytest.mark.parametrize("address", ["collector:4318", "grpc://host", "http://", "http://a b"])
def test_an_address_that_is_none_stops_the_start(address: str) -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        Settings.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": address})
