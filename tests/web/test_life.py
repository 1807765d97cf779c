"""A server that starts, is busy, stops, or cannot do its work."""

import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pneumonet.errors import SnapshotError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import service
from pneumonet.web.passes import ObservedEngine, run_by
from pneumonet.web.server import serve
from tests.web.conftest import address, file_data, serving, unforeseen, wait_until


class SlowModel:
    """A model that answers when it is let."""

    def __init__(self, model: PneumoNet) -> None:
        self.info, self.ensemble, self._model = model.info, model.ensemble, model
        self.let = threading.Event()

    def predict(self, *arguments: Any, **options: Any) -> Any:
        self.let.wait(30)
        return self._model.predict(*arguments, **options)


# Put together by name: the traceback in the log quotes the line that raises, never its values.
_SECRET = "secret"
_ERROR = '"level": "ERROR"'


class BrokenModel(SlowModel):
    def predict(self, *arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError(f"inside /{_SECRET}/place")


def test_a_starting_server_says_so(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
) -> None:
    let = threading.Event()

    def load() -> PneumoNet:
        let.wait(30)
        return tiny_model

    with serving(web_settings, load, tmp_path, wait=False) as server, server.http() as http:
        health = http.get("/health")
        assert (health.status_code, health.json()["status"], health.json()["model"]) == (503, "starting", None)
        assert int(health.headers["retry-after"]) > 0
        early = server.post(good_film)
        assert (early.status_code, early.json()["code"]) == (503, "model_unavailable")
        assert int(early.headers["retry-after"]) > 0
        event, error = server.ask_raw([server.upload(good_film)])
        assert (event, "code model_unavailable" in error["error"]) == ("error", True)
        assert http.get("/").status_code == 200
        let.set()
        wait_until(lambda: http.get("/health").status_code == 200)
        assert server.post(good_film).status_code == 200


def test_a_model_that_does_not_load_makes_it_unhealthy(web_settings: Settings, tmp_path: Path) -> None:
    def load() -> PneumoNet:
        raise SnapshotError("The snapshot is damaged.")

    with serving(web_settings, load, tmp_path, wait=False) as server, server.http() as http:
        wait_until(lambda: http.get("/health").json()["status"] == "unhealthy")
        assert http.get("/health").status_code == 503
        assert server.post(b"x").status_code == 503


def test_a_full_queue_says_busy_while_health_answers(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
) -> None:
    slow: Any = SlowModel(tiny_model)
    settings = replace(web_settings, max_waiting=1)
    with serving(settings, lambda: slow, tmp_path) as server, ThreadPoolExecutor(4) as pool:
        answered = [pool.submit(server.post, good_film) for _ in range(3)]
        wait_until(lambda: server.service.films.present == 3)
        refused = server.post(good_film)
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) > 0
        event, error = server.ask_raw([server.upload(good_film)])
        assert (event, "code busy" in error["error"]) == ("error", True)
        with server.http() as http:
            assert http.get("/health").json()["status"] == "healthy"
        slow.let.set()
        assert [answer.result().status_code for answer in answered] == [200] * 3
        assert server.post(good_film).status_code == 200


def test_a_film_that_takes_too_long_is_given_up_and_the_next_is_answered(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
) -> None:
    slow: Any = SlowModel(tiny_model)
    settings = replace(web_settings, request_seconds=1)
    passes: list[int] = []
    slow.ensemble = copy(tiny_model.ensemble)
    slow.ensemble.engine = ObservedEngine(tiny_model.ensemble.engine, passes.append)
    slow._model = run_by(tiny_model, slow.ensemble.engine)
    with serving(settings, lambda: slow, tmp_path) as server, ThreadPoolExecutor(4) as pool:
        # Two are being analysed and one waits for them: all hear of it, and the one that waits leaves the queue.
        answers = list(pool.map(server.post, [good_film] * 3))
        assert [(a.status_code, a.json()["code"]) for a in answers] == [(503, "took_too_long")] * 3
        assert int(answers[0].headers["retry-after"]) > 0
        assert server.service.films.present == 2
        event, error = server.ask_raw([server.upload(good_film)])
        assert (event, "code took_too_long" in error["error"]) == ("error", True)
        slow.let.set()
        wait_until(lambda: server.service.films.present == 0)
        assert not passes
        assert server.post(good_film).status_code == 200
        assert passes == [1]


def test_a_film_that_never_ends_makes_it_unhealthy_so_that_it_is_started_anew(
    web_settings: Settings,
    tiny_model: PneumoNet,
    tmp_path: Path,
    good_film: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_STUCK_AFTER_REQUESTS", 0.2)
    monkeypatch.setattr(service, "_STUCK_AFTER_SECONDS", 0)
    hanging: Any = SlowModel(tiny_model)
    settings = replace(web_settings, request_seconds=1)
    with serving(settings, lambda: hanging, tmp_path) as server, server.http() as http, ThreadPoolExecutor(2) as pool:
        assert http.get("/health").json()["queue"]["oldest_seconds"] == 0
        asked = [pool.submit(server.post, good_film) for _ in range(2)]
        wait_until(lambda: http.get("/health").status_code == 503)
        told = http.get("/health")
        assert int(told.headers["retry-after"]) > 0
        body = told.json()
        assert (body["status"], body["models_loaded"]) == ("unhealthy", True)
        assert body["queue"]["oldest_seconds"] >= 0.2
        assert [answer.result().json()["code"] for answer in asked] == ["took_too_long"] * 2
        # Nobody waits for them, and both places are taken all the same.
        assert http.get("/health").status_code == 503
        hanging.let.set()
        wait_until(lambda: http.get("/health").status_code == 200)


@pytest.mark.parametrize(("request_seconds", "at_least"), [(1, 60), (20, 60), (60, 180)])
def test_a_short_time_for_requests_starts_no_healthy_server_anew(
    web_settings: Settings,
    tiny_model: PneumoNet,
    monkeypatch: pytest.MonkeyPatch,
    request_seconds: int,
    at_least: int,
) -> None:
    asked = service.Service(replace(web_settings, request_seconds=request_seconds), lambda: tiny_model)
    for oldest, is_stuck in ((at_least - 1, False), (at_least + 1, True)):
        monkeypatch.setattr(service.Service, "oldest_seconds", oldest)
        assert asked.is_stuck is is_stuck


def test_who_waits_when_a_server_stops_is_told_when_to_come_back(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
) -> None:
    slow: Any = SlowModel(tiny_model)
    with ThreadPoolExecutor(1) as pool:
        with serving(web_settings, lambda: slow, tmp_path) as server:
            asked = pool.submit(server.post, good_film)
            wait_until(lambda: server.service.films.present == 1)
        answer = asked.result()
        slow.let.set()
    assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
    assert answer.json()["error"] == "The server is stopping."
    assert int(answer.headers["retry-after"]) > 0


def test_what_nobody_foresaw_is_a_generic_sentence_with_an_id(
    web_settings: Settings,
    tiny_model: PneumoNet,
    tmp_path: Path,
    good_film: bytes,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    broken: Any = BrokenModel(tiny_model)
    with serving(web_settings, lambda: broken, tmp_path) as server:
        answer = server.post(good_film)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "secret" not in answer.text
        assert "secret" not in caplog.text
        assert answer.json()["request_id"] in caplog.text
        assert "ZeroDivisionError" in caplog.text
        event, error = server.ask_raw([file_data(server.upload(good_film)["path"])])
        assert event == "error"
        assert "code internal_error, request " in error["error"]
        assert "secret" not in error["error"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_ctrl_c_stops_it_cleanly_under_an_open_page(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start()
    url = address(process)
    # A page in a browser holds such a stream for as long as it is open.
    with httpx.stream("GET", f"{url}/gradio_api/heartbeat/page", timeout=60) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "data: ALIVE"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not unforeseen(told)


def test_a_model_that_does_not_load_ends_it_with_a_sentence(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(PNEUMONET_MODEL=str(tmp_path / "nothing"))
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.count(_ERROR) == 1
    assert unforeseen(told) == [_ERROR]


def test_a_taken_port_ends_it_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serve(Settings(port=port)) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert f"127.0.0.1:{port}" in told.err


def test_a_folder_that_cannot_be_made_ends_it_with_a_sentence(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    process = start(GRADIO_TEMP_DIR=str(tmp_path / "file" / "folder"))
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "GRADIO_TEMP_DIR" in told
    assert told.count("\n") == 1


def test_a_wrong_setting_ends_it_with_a_sentence(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(PNEUMONET_PORT="many")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "PNEUMONET_PORT" in told
    assert told.count("\n") == 1
