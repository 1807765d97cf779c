"""How often one client may ask: the bucket by the clock, and 429 at every door of a real server."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pneumonet.errors import TooManyRequestsError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.rates import RateLimit
from tests.web.conftest import Running, file_data, serving


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


def _ask(http: httpx.Client, path: str, film: bytes) -> httpx.Response:
    if path == "/predict":
        return http.post(path, files={"file": ("a.png", film)})
    if path == "/gradio_api/upload":
        return http.post(path, files={"files": ("a.png", film)})
    return http.post(path, json={"data": [file_data("x")], "fn_index": 0, "session_hash": "s"})
