"""Nothing of a film is written to disk or to the log, whatever became of it; a process of its own is watched."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gradio.server_messages import ProcessCompletedMessage, ProcessStartsMessage
from gradio_client.exceptions import AppError

from pneumonet.web import tidying, uploads
from pneumonet.web.tidying import drop_unread, sweep
from tests.support.films import encoded, phantom
from tests.web.conftest import LOG_FIELDS, Running, address, dicom, unforeseen, wait_until
from tests.web.test_rest import as_json

NAME = "Doe_Jane_1999"


def traces(folders: list[Path], films: list[bytes]) -> list[str]:
    """Return the files in some folders that hold anything, or the name of the film."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if NAME in str(path):
                found.append(f"{path}: named")
            elif path.is_file() and path.stat().st_size:
                data = path.read_bytes()
                film = any(film[100:300] in data for film in films)
                found.append(f"{path}: {'the film' if film else data[:20]!r}")
    return found


def visit_each_door(server: Running, film: bytes, suffix: str) -> None:
    name = NAME + suffix
    server.post(film, name)
    with server.http() as http:
        http.post("/predict", json=as_json(film))
    server.ask_raw([server.upload(film, name)])
    server.ask_raw([server.upload(film, name)], "explain")
    with contextlib.suppress(AppError):
        server.ask_client(film, name)
    server.upload(film, name)  # never analysed


def test_nothing_of_a_film_remains(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = start(GRADIO_TEMP_DIR=str(tmp_path / "gradio"))
    server = Running(address(process), None, tmp_path / "client")  # type: ignore[arg-type]
    with server.http() as http:
        wait_until(lambda: http.get("/health").status_code == 200)
    folder = next((tmp_path / "gradio").glob("pneumonet-*"))
    assert folder.stat().st_mode & 0o777 == 0o700
    watched = [tmp_path / name for name in ("tmp", "cwd", "gradio")]
    before = set(traces(watched, []))
    films = {
        ".png": encoded(phantom(1500, 1300)),  # more than Starlette keeps in memory by itself
        ".jpg": encoded(phantom(), "JPEG")[:4000],
        ".dcm": dicom(np.full((300, 260), 9, dtype=np.uint16)),
    }
    assert len(films[".png"]) > 1_000_000
    for suffix, film in films.items():
        visit_each_door(server, film, suffix)
        assert not set(traces(watched, list(films.values()))) - before
    wait_until(lambda: not [path for path in folder.rglob("*") if path.is_file() and str(path) not in str(before)], 10)
    with server.http() as http:
        for path in ("/nothing", "/predict", "/gradio_api/runs", "/gradio_api/queue/data?session_hash=x"):
            http.get(path)
    _, error = server.ask_raw([server.upload(films[".jpg"])])
    process.send_signal(signal.SIGTERM)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not folder.exists()
    assert not list((tmp_path / "cwd").iterdir())
    log = said + told
    for word in (NAME, "Doe", "data:image"):
        assert word not in log
    assert not unforeseen(log)
    lines = [json.loads(line) for line in told.splitlines()]
    requests = [line for line in lines if "request_id" in line]
    assert len(requests) > 15
    for request in requests:
        assert set(request) == LOG_FIELDS | {"engine", "revision"}
        assert re.fullmatch("[0-9a-f]{16}", request["request_id"])
    seen = Counter((request["door"], request["code"]) for request in requests)
    assert seen.keys() >= {("rest", "not_found"), ("rest", "bad_request"), ("gradio", "not_found")}
    request_id = error["error"].rsplit("request ", 1)[1].rstrip(")")
    assert log.count(request_id) == 1
    assert seen["rest", "ok"] == 2
    assert seen["gradio", "not_admitted"] == 3


def test_an_answers_picture_is_kept_for_seconds(
    running: Running, good_film: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uploads.OUTPUT_SECONDS < 10
    monkeypatch.setattr(uploads.outputs, "_seconds", 1.0)
    _, data = running.ask_raw([running.upload(good_film)])
    with running.http() as http:
        path = data[1]["path"]
        assert http.get(f"/gradio_api/file={path}").status_code == 200
        assert http.get(f"/gradio_api/file={Path(path).parent / 'other.png'}").status_code == 403
        wait_until(lambda: http.get(f"/gradio_api/file={path}").status_code == 403, 10)


def test_an_upload_cannot_be_fetched(running: Running, good_film: bytes) -> None:
    upload = running.upload(good_film)
    with running.http() as http:
        assert http.get(f"/gradio_api/file={upload['path']}").status_code == 403


def test_sweep_takes_old_files_and_empty_folders_but_for_some(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "old").write_bytes(b"x")
    (tmp_path / "kept").write_bytes(b"x")
    sweep(tmp_path, frozenset({tmp_path / "kept"}), max_age=60)
    assert (tmp_path / "a" / "b" / "old").exists()
    sweep(tmp_path, frozenset({tmp_path / "kept"}), max_age=-1)
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def waiting(*messages: object) -> "asyncio.Queue[object]":
    """What Gradio keeps for a session."""
    queue: asyncio.Queue[object] = asyncio.Queue()
    for message in messages:
        queue.put_nowait(message)
    return queue


def test_an_answer_nobody_fetches_is_forgotten() -> None:
    queue = SimpleNamespace(
        event_ids_to_events={"e": SimpleNamespace(session_hash="running")},
        pending_messages_per_session={"read": waiting(), "unread": waiting("answer"), "running": waiting("begun")},
        # Gradio keeps who has read all answers, and who hung up before there was one.
        pending_event_ids_session={"unread": {"f"}, "read": set(), "gone": {"g"}, "running": {"e"}},
    )
    unread = drop_unread(queue, {}, seconds=60)
    assert set(unread) == {"unread", "gone"}
    assert set(queue.pending_event_ids_session) == {"unread", "gone", "running"}
    assert drop_unread(queue, unread, seconds=-1) == {}
    assert set(queue.pending_messages_per_session) == {"read", "running"}
    assert set(queue.pending_event_ids_session) == {"running"}


def test_of_answers_nobody_fetches_the_oldest_go_beyond_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(size: int) -> SimpleNamespace:
        return SimpleNamespace(output={"data": [{"maps": {"ensemble": {"NORMAL": "x" * size}}}]})

    monkeypatch.setattr(tidying, "_UNREAD_BYTES", 25_000)
    queue = SimpleNamespace(
        event_ids_to_events={"e": SimpleNamespace(session_hash="hoards")},
        pending_messages_per_session={
            "old": waiting(answer(9_000)),
            "new": waiting(answer(9_000)),
            "huge": waiting(answer(50_000)),
            # One that always has an event on its way, and reads nothing.
            "hoards": waiting(*[answer(9_000)] * 3),
            "reads": waiting(),
        },
        pending_event_ids_session={name: {name} for name in ("old", "new", "huge", "hoards")},
    )
    now = time.monotonic()
    unread = drop_unread(queue, {"old": now - 30, "new": now - 10, "huge": now - 20})
    kept = {name: messages.qsize() for name, messages in queue.pending_messages_per_session.items()}
    assert kept == {"old": 1, "new": 1, "hoards": 0, "reads": 0}
    assert set(queue.pending_event_ids_session) == {"old", "new", "hoards"}
    assert set(unread) == {"old", "new"}
    queue.pending_messages_per_session["newest"] = waiting(answer(9_000))
    drop_unread(queue, unread)
    assert set(queue.pending_messages_per_session) == {"new", "newest", "hoards", "reads"}
    assert tidying._GAUGE._value.get() == 2 * 10_000


def test_who_always_has_a_film_on_its_way_grows_old_like_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(of: str, size: int = 9_000) -> ProcessCompletedMessage:
        return ProcessCompletedMessage(output={"data": ["x" * size]}, success=True, event_id=of)

    monkeypatch.setattr(tidying, "_UNREAD_BYTES", 25_000)
    messages = {
        "hoards": waiting(answer("h1"), answer("h2")),
        "begun": waiting(ProcessStartsMessage(event_id="b")),
        # Answered to the last, and Gradio has not struck it off yet.
        "ends": waiting(answer("e", 100)),
    }
    queue = SimpleNamespace(
        event_ids_to_events={id: SimpleNamespace(session_hash=of) for id, of in (("h3", "hoards"), ("b", "begun"))},
        pending_messages_per_session=messages,
        pending_event_ids_session={"hoards": {"h1", "h2", "h3"}, "begun": {"b"}, "ends": {"e"}},
    )
    queue.event_ids_to_events["e"] = SimpleNamespace(session_hash="ends")
    unread = drop_unread(queue, {})
    assert set(unread) == {"hoards", "ends"}
    # A client in two steps, whose answer came later, keeps it.
    messages["new"], queue.pending_event_ids_session["new"] = waiting(answer("n")), {"n"}
    unread = drop_unread(queue, unread)
    assert {name: kept.qsize() for name, kept in messages.items()} == {"hoards": 0, "begun": 1, "ends": 1, "new": 1}
    # Its stream, if one is open, ends with the film that is still to come.
    assert queue.pending_event_ids_session == {"hoards": {"h3"}, "begun": {"b"}, "ends": {"e"}, "new": {"n"}}
    assert drop_unread(queue, unread, seconds=-1) == {}
    # Where none is to come nothing would end it but that Gradio no longer knows the session.
    assert set(messages) == set(queue.pending_event_ids_session) == {"hoards", "begun"}


def test_an_unread_answer_with_every_map_is_counted_in_full(running: Running, good_film: bytes) -> None:
    with running.http() as http:
        joined = http.post("/gradio_api/call/explain", json={"data": [running.upload(good_film)]})
        wait_until(lambda: tidying._GAUGE._value.get() > 100_000)
        assert http.get(f"/gradio_api/call/explain/{joined.json()['event_id']}").status_code == 200
        wait_until(lambda: tidying._GAUGE._value.get() < 100_000)


def test_a_round_of_sweeping_that_fails_is_told_and_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def sweep_for_a_while() -> None:
        rounds, over = 0, asyncio.Event()

        def drop(*_: object) -> dict[str, float]:
            nonlocal rounds
            rounds += 1
            if rounds in (1, 2, 4):
                raise KeyError(NAME)
            if rounds == 5:
                over.set()
            return {}

        monkeypatch.setattr(tidying, "_TIDY_EVERY_SECONDS", 0)
        monkeypatch.setattr(tidying, "drop_unread", drop)
        task = asyncio.create_task(tidying._tidy(tmp_path, frozenset(), SimpleNamespace(_queue=None)))
        await asyncio.wait_for(over.wait(), 30)
        task.cancel()

    asyncio.run(sweep_for_a_while())
    # Once a row of failures, by the kind and the place.
    assert [record.getMessage().split(" at\n")[0] for record in caplog.records if "sweep" in record.getMessage()] == [
        "sweeping failed with KeyError"
    ] * 2
    assert NAME not in caplog.text


@pytest.mark.parametrize("path", ["/", "/gradio_api/info", "/config"])
def test_the_page_keeps_no_history(running: Running, path: str) -> None:
    with running.http() as http:
        text = http.get(path).text
    assert '"run_history":true' not in text.replace(" ", "")
