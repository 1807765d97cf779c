"""The app's times against those of who stands before it: the proxy's patience, and the cluster's when it stops."""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import server
from pneumonet.web.held import offers
from pneumonet.web.service import Service
from pneumonet.web.turns import Turns
from tests.deploy.nginx import rendered
from tests.web.conftest import bare_page, serving, wait_until
from tests.web.test_life import SlowModel
from tests.web.test_reports import answered_of


@contextlib.contextmanager
def _stopping(slow: Any, film: bytes, **settings: Any) -> Iterator[tuple[threading.Thread, Any, httpx.Client]]:
    """Have a film asked about, then the server told to stop; yields its thread, the film's answer, and who is there."""
    service = Service(Settings(**settings), lambda: slow)
    config = server.configured(server.create_app(service, bare_page(service)), service.settings)
    config.port, config.timeout_graceful_shutdown = 0, 1
    running = server._Server(config, service, "here")
    thread = threading.Thread(target=lambda: asyncio.run(running.serve()), daemon=True)
    thread.start()
    wait_until(lambda: service.status == "healthy")
    place = running.servers[0].sockets[0].getsockname()[:2]
    url = "http://{}:{}".format(*place)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=url, timeout=60) as there:
        form: dict[str, Any] = {"files": {"file": ("film", film)}, "data": {"force": "true"}}
        answer = pool.submit(httpx.post, f"{url}/predict", **form, timeout=60)
        wait_until(lambda: service.films.present == 1)
        assert there.get("/health").status_code == 200
        running.should_exit = True
        wait_until(lambda: not _is_open(place))
        try:
            yield thread, answer, there
        finally:
            slow.let.set()
    thread.join(20)
    assert not thread.is_alive()


def _is_open(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, 1).close()
    except OSError:
        return False
    return True


def test_a_film_in_progress_is_answered_first_and_no_new_one_is_taken(tiny_model: PneumoNet, film: bytes) -> None:
    slow = SlowModel(tiny_model)
    token = offers.add(answered_of(tiny_model, "Doe_Jane.jpg"))
    with _stopping(slow, film) as (thread, answer, there):
        # On a connection that it had before.
        refusals = [
            there.post("/predict", files={"file": ("film", film)}),
            there.get(f"/report/{token}/json"),
        ]
        for refused in refusals:
            assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
            assert refused.json()["error"] == "The server is stopping."
            assert int(refused.headers["retry-after"]) > 0
        # Longer than uvicorn waits here before it cancels.
        thread.join(1.5)
        assert thread.is_alive()
        slow.let.set()
        assert answer.result().status_code == 200
    offers.take_back(token)


def test_a_film_that_never_ends_is_not_waited_for_longer_than_its_caller_would(
    tiny_model: PneumoNet, film: bytes
) -> None:
    with _stopping(SlowModel(tiny_model), film, request_seconds=1) as (thread, answer, _):
        thread.join(20)
        assert not thread.is_alive()
        assert answer.result().json()["code"] == "took_too_long"


def test_a_film_and_its_report_take_no_longer_together_than_nginx_waits(
    tiny_model: PneumoNet, film: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float] = []
    run = Turns.run

    async def spied(turns: Turns, work: Any, *, deadline: float | None = None) -> Any:
        own = time.monotonic() + turns._seconds
        deadlines.append(own if deadline is None else min(own, deadline))
        return await run(turns, work, deadline=deadline)

    monkeypatch.setattr(Turns, "run", spied)
    patience = re.search(r"proxy_read_timeout (\d+)s;", rendered())
    assert patience is not None
    with serving(Settings(), lambda: tiny_model, tmp_path) as running, running.http() as http:
        begun = time.monotonic()
        answer = http.post("/predict?format=json", files={"file": ("film", film)}, data={"force": "true"})
    assert answer.status_code == 200
    assert len(deadlines) == 2, "the film's turn and the report's"
    assert deadlines[1] <= deadlines[0], "the report's time ends with the film's"
    assert deadlines[0] - begun < int(patience[1])
