"""How often one client may ask, and how many of its requests may be open: by the clock, and at a real server."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from pneumonet.errors import TooManyRequestsError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.middleware import RequestGate
from pneumonet.web.rates import OpenRequests, RateLimit
from pneumonet.web.reporting import REPORT_ROUTE
from pneumonet.web.server import create_app
from pneumonet.web.service import Service
from tests.web.conftest import Running, bare_page, file_data, serving, wait_until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _taken(limit: RateLimit, client: str, most: int = 1000) -> int:
    for count in range(most):
        try:
            limit.take(client)
        except TooManyRequestsError:
            return count
    return most


def test_a_quarter_of_a_minute_s_requests_may_come_at_once_and_the_rest_by_the_second() -> None:
    clock = Clock()
    limit = RateLimit(120, clock)
    assert _taken(limit, "a") == 30
    clock.now += 3
    assert _taken(limit, "a") == 6
    clock.now += 3600
    assert _taken(limit, "a") == 30


def test_one_client_does_not_use_up_another_s() -> None:
    limit = RateLimit(8, Clock())
    assert _taken(limit, "a") == 2
    assert _taken(limit, "b") == 2


def test_who_has_none_left_is_told_when_to_come_back() -> None:
    clock = Clock()
    limit = RateLimit(4, clock)
    limit.take("a")
    with pytest.raises(TooManyRequestsError) as refused:
        limit.take("a")
    assert refused.value.retry_after_seconds == 15
    clock.now += 15
    limit.take("a")


def test_looking_counts_nothing() -> None:
    clock = Clock()
    limit = RateLimit(4, clock)
    for _ in range(10):
        limit.check("a")
    limit.take("a")
    with pytest.raises(TooManyRequestsError) as refused:
        limit.check("a")
    assert refused.value.retry_after_seconds == 15
    limit.check("b")
    clock.now += 15
    limit.check("a")


def test_nought_is_no_limit() -> None:
    assert _taken(RateLimit(0, Clock()), "a") == 1000


def test_many_addresses_cost_little_memory() -> None:
    limit = RateLimit(60, Clock())
    for number in range(25_000):
        limit.take(str(number))
    assert len(limit._buckets) == 10_000
    assert next(reversed(limit._buckets)) == "24999"


@pytest.fixture
def stingy(web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path) -> Iterator[Running]:
    """A server that takes one request of a client in a long while."""
    with serving(replace(web_settings, requests_per_minute=1), lambda: tiny_model, tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    "path",
    ["/predict", "/gradio_api/upload", "/gradio_api/call/predict", "/gradio_api/queue/join", "/gradio_api/run/predict"],
)
def test_every_door_answers_429_and_reading_goes_on(stingy: Running, path: str, good_film: bytes) -> None:
    with stingy.http() as http:
        assert http.post("/predict", files={"file": ("a.png", good_film)}).status_code == 200
        refused = _ask(http, path, good_film)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 1
        if path == "/gradio_api/upload":
            assert refused.text.startswith("Too many requests")
        else:
            assert refused.json()["code"] == "too_many_requests"
        assert http.get("/health").status_code == 200
        assert http.get("/").status_code == 200


def test_clients_behind_this_machine_s_proxy_are_told_apart(stingy: Running, good_film: bytes) -> None:
    with stingy.http() as http:
        answers = [
            http.post("/predict", files={"file": ("a.png", good_film)}, headers={"X-Forwarded-For": address})
            for address in ("203.0.113.5", "203.0.113.6", "203.0.113.5")
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_a_report_of_the_page_s_counts_as_a_film_does_and_asking_whether_it_is_there_does_not(stingy: Running) -> None:
    path = f"{REPORT_ROUTE}/{'0' * 40}/pdf"
    with stingy.http() as http:
        assert [http.head(path).status_code for _ in range(3)] == [404] * 3
        assert [http.get(path).status_code for _ in range(3)] == [404, 429, 429]


def test_a_browser_s_pace_is_allowed_by_default_and_no_more_than_the_server_answers() -> None:
    limit = RateLimit(Settings().requests_per_minute, Clock())
    # Three requests a film: twenty films at once, and then four films in three seconds.
    assert _taken(limit, "a") == 60


class TestOpenRequests:
    def test_one_client_s_are_counted_for_as_long_as_they_are_open(self) -> None:
        requests = OpenRequests(2)
        with requests.another("a"):
            with requests.another("a"):
                with requests.another("b"), pytest.raises(TooManyRequestsError) as refused, requests.another("a"):
                    pass
                assert refused.value.retry_after_seconds
            with requests.another("a"):
                pass
        assert not requests._open

    def test_nought_is_no_limit(self) -> None:
        requests = OpenRequests(0)
        with ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(requests.another("a"))

    def test_who_holds_too_many_open_is_refused_and_others_are_not(
        self, web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
    ) -> None:
        settings = replace(web_settings, open_requests=2)
        with serving(settings, lambda: tiny_model, tmp_path) as server, server.http() as http, ExitStack() as stack:
            streams = [stack.enter_context(http.stream("GET", f"/gradio_api/heartbeat/{name}")) for name in "ab"]
            open_lines = [stream.iter_lines() for stream in streams]
            assert [next(lines) for lines in open_lines] == ["data: ALIVE"] * 2
            refused = http.get("/api")
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
            assert int(refused.headers["retry-after"]) > 0
            assert server.post(good_film).status_code == 429
            # Who looks after the server is answered, and so is anybody else.
            assert http.get("/health").status_code == 200
            assert http.get("/api", headers={"X-Forwarded-For": "203.0.113.5"}).status_code == 200
            # The page's own files come in dozens at once, and are counted apart.
            assert http.get("/assets/nothing.js").status_code == 404
            stack.close()
            wait_until(lambda: http.get("/api").status_code == 200)

    def test_files_are_counted_too_in_a_wider_bound(self, web_settings: Settings, tiny_model: PneumoNet) -> None:
        service = Service(replace(web_settings, open_requests=1), lambda: tiny_model)
        page = bare_page(service)
        create_app(service, page)
        statuses: list[int] = []

        async def ask() -> None:
            let = asyncio.Event()

            async def slow(scope: Any, receive: Any, send: Any) -> None:
                await let.wait()
                await Response()(scope, receive, send)

            async def send(message: Any) -> None:
                statuses.extend([message["status"]] if "status" in message else [])

            gate: Any = RequestGate(slow, service.settings, page, service.metrics)
            scope = {"type": "http", "method": "GET", "path": "/assets/x.js", "query_string": b"", "headers": []}
            scope |= {"client": ("a", 1), "server": None}
            asked = [asyncio.create_task(gate(dict(scope), None, send)) for _ in range(11)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert statuses == [429]
            let.set()
            await asyncio.gather(*asked)

        asyncio.run(ask())
        assert statuses == [429] + [200] * 10


def _ask(http: httpx.Client, path: str, film: bytes) -> httpx.Response:
    if path == "/predict":
        return http.post(path, files={"file": ("a.png", film)})
    if path == "/gradio_api/upload":
        return http.post(path, files={"files": ("a.png", film)})
    return http.post(path, json={"data": [file_data("x")], "fn_index": 0, "session_hash": "s"})
