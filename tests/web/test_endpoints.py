import asyncio
import gc
import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import httpx
import pytest
from gradio.state_holder import SessionState
from gradio_client.exceptions import AppError

from pneumonet.errors import BadRequestError, BusyError, EmptyFileError, FileTooLargeError, NoFileError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import uploads
from pneumonet.web.endpoints import guard
from pneumonet.web.service import Service
from pneumonet.web.uploads import Shelf, add_upload, take_file
from tests.support.films import encoded, phantom
from tests.web.conftest import LIMIT_BYTES, Running, bare_page, file_data, logged, serving, wait_until
from tests.web.test_rest import KEYS

GRADIO_KEYS = KEYS - {"gradcam_image"}
# What of Gradio's is not offered: method, path and status.
CLOSED = [
    ("GET", "/monitoring/summary", 403),
    ("GET", "/gradio_api/runs", 404),
    ("POST", "/gradio_api/run-history/connect", 404),
    ("GET", "/gradio_api/deep_link", 404),
    ("POST", "/gradio_api/process_recording", 404),
    ("GET", "/gradio_api/file=https://example.org/", 404),
    ("GET", "/gradio_api/file=http%3A//example.org/", 404),
    ("GET", "/gradio_api/file/https://example.org/", 404),
    ("GET", "/gradio_api/proxy=https://example.org/", 404),
    ("POST", "/gradio_api/vibe-edit", 404),
    ("GET", "/gradio_api/file=/etc/passwd", 403),
    ("GET", "/gradio_api/dev/reload", 404),
    ("GET", "/gradio_api/startup-events", 404),
    ("GET", "/gradio_api/custom_component/a/client/b/c", 404),
]


@pytest.fixture(scope="module")
def whole(web_settings: Settings, tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of PneumoNet's own page."""
    with serving(web_settings, lambda: tiny_model, tmp_path_factory.mktemp("whole"), build=None) as server:
        yield server


def test_predict_answers_a_client_with_the_finding_and_a_picture(running: Running, good_film: bytes) -> None:
    finding, picture = running.ask_client(good_film)
    assert set(finding) == GRADIO_KEYS
    assert Path(picture).read_bytes()[:4] == b"\x89PNG"


def test_explain_answers_with_every_map(running: Running, good_film: bytes) -> None:
    answer = running.ask_client(good_film, api_name="/explain")
    assert set(answer) == GRADIO_KEYS | {"maps"}
    assert set(answer["maps"]) == {"ensemble", "convnext_tiny", "efficientnetv2_s"}
    for by_class in answer["maps"].values():
        assert set(by_class) == set(answer["probabilities"])
        assert all(uri.startswith("data:image/png;base64,") for uri in by_class.values())


def test_force_answers_a_refused_film(running: Running) -> None:
    blank = encoded(phantom() * 0 + 90)
    with pytest.raises(AppError, match=r"not_admitted.*request [0-9a-f]{16}"):
        running.ask_client(blank)
    finding, _ = running.ask_client(blank, force=True)
    assert finding["admission"]["accepted"] is False


def test_listed_endpoints_are_exactly_two(running: Running) -> None:
    client = running.gradio_client()
    api = client.view_api(return_format="dict")
    client.close()
    assert sorted(api["named_endpoints"]) == ["/explain", "/predict"]
    assert not api["unnamed_endpoints"]
    with running.http() as http:
        info = http.get("/gradio_api/info").json()
    assert sorted(info["named_endpoints"]) == ["/explain", "/predict"]
    assert [p["parameter_name"] for p in info["named_endpoints"]["/predict"]["parameters"]] == ["file", "force"]


def test_the_whole_page_lists_the_same_two_and_leaks_no_file(
    whole: Running, good_film: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with whole.http() as http:
        assert http.get("/").status_code == 200
        assert sorted(http.get("/gradio_api/info").json()["named_endpoints"]) == ["/explain", "/predict"]
        assert whole.ask_client(good_film)[0]["prediction"]
        # Each event of the page can be called by anyone, private or not.
        for event in http.get("/config").json()["dependencies"]:
            for value in (file_data("/etc/passwd"), "/etc/passwd", None):
                body = {"data": [value] * len(event["inputs"]), "fn_index": event["id"], "session_hash": "s"}
                http.post("/gradio_api/queue/join", json=body)
                told = http.get("/gradio_api/queue/data?session_hash=s").text
                assert "process_completed" in told
                assert "root:" not in told
    assert "passwd" not in caplog.text


def test_a_raw_caller_may_leave_out_force(running: Running, good_film: bytes) -> None:
    event, data = running.ask_raw([running.upload(good_film)])
    assert event == "complete"
    assert set(data[0]) == GRADIO_KEYS
    picture = httpx.get(data[1]["url"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert picture.content[:4] == b"\x89PNG"


def test_a_raw_caller_may_name_the_arguments(running: Running, good_film: bytes) -> None:
    with running.http() as http:
        joined = http.post("/gradio_api/call/v2/predict", json={"file": running.upload(good_film)})
        answer = http.get(f"/gradio_api/call/predict/{joined.json()['event_id']}")
    assert "event: complete" in answer.text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([None], "no_file"),
        ([], "no_file"),
        (["data:image/png;base64,iVBORw0KGgo="], "bad_request"),
        (["/etc/passwd"], "bad_request"),
        ([{}], "bad_request"),
        ([{"path": "/etc/passwd"}], "bad_request"),
        ([[1, 2]], "bad_request"),
        ([7], "bad_request"),
        ([file_data("/etc/passwd")], "bad_request"),
        ([file_data("pyproject.toml")], "bad_request"),
        ([file_data("http://127.0.0.1/film.png")], "bad_request"),
        ([file_data("https://example.org/film.png")], "bad_request"),
        ([[{"deep": file_data("https://example.org/film.png")}]], "bad_request"),
        ([file_data(None)], "bad_request"),
        ([None, "yes"], "bad_request"),
    ],
)
@pytest.mark.parametrize("name", ["predict", "explain"])
def test_wrong_shapes_get_a_sentence(
    running: Running, data: list[Any], says: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    event, error = running.ask_raw(data, name)
    assert event == "error"
    assert f"code {says}, request " in error["error"]
    assert "root:" not in error["error"]
    assert "/etc/passwd" not in "".join(capfd.readouterr())


def test_a_server_path_is_not_read_even_inside_the_upload_folder(running: Running, good_film: bytes) -> None:
    with running.http() as http:
        path = http.post("/gradio_api/upload", files={"files": ("a.png", good_film)}).json()[0]
    event, error = running.ask_raw([file_data(str(Path(path).parents[2] / "../etc/passwd"))])
    assert (event, "bad_request" in error["error"]) == ("error", True)


def test_a_mounted_page_counts_as_launched(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
) -> None:
    # Gradio's own check of where a file comes from, on which a page's events rely, is off without `has_launched`.
    def leaking_page(service: Service) -> Any:
        with gr.Blocks() as page:
            file, text = gr.File(), gr.Textbox()
            file.upload(lambda path: Path(path).read_text(), file, text, api_name="leak")
        return page

    with serving(web_settings, lambda: tiny_model, tmp_path, leaking_page) as server:
        event, error = server.ask_raw([file_data("/etc/passwd")], "leak")
        assert (event, "code bad_request" in error["error"]) == ("error", True)


@pytest.mark.parametrize("name", ["nothing", "predict_1", "lambda", "load_example"])
@pytest.mark.parametrize("way", ["call", "call/v2", "run", "api"])
def test_unknown_endpoints_are_not_found(running: Running, name: str, way: str) -> None:
    with running.http() as http:
        answer = http.post(f"/gradio_api/{way}/{name}", json={"data": []})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("way", ["run", "api"])
def test_no_call_passes_by_the_queue(running: Running, way: str) -> None:
    with running.http() as http:
        assert http.post(f"/gradio_api/{way}/predict", json={"data": [None]}).status_code == 404


@pytest.mark.parametrize("page", ["running", "whole"])
@pytest.mark.parametrize(("method", "path", "status"), CLOSED)
def test_what_is_not_offered_is_closed(
    request: pytest.FixtureRequest, page: str, method: str, path: str, status: int
) -> None:
    with request.getfixturevalue(page).http() as http:
        assert http.request(method, path).status_code == status


def test_gradio_strips_no_prefix_that_the_gate_does_not_know(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/prefix")
    with serving(web_settings, lambda: tiny_model, tmp_path) as server, server.http() as http:
        for method, path, _ in CLOSED:
            assert http.request(method, "/prefix" + path).status_code == 404


def test_a_path_is_printed_nowhere(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    # Gradio prints the parts of this one, and with them what a stranger wants to stand among the log's lines.
    with running.http() as http:
        for name in ("forged", "x%0D%7B%22forged%22%3A1%7D", "x%0Aforged"):
            assert http.get(f"/gradio_api/custom_component/{name}/client/component/style.css").status_code == 404
    assert "forged" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("path", ["/gradio_api/info", "/gradio_api/info/", "/"])
@pytest.mark.parametrize("query", ["", "?page=", "?page=x", "?page=x&page=y"])
def test_each_is_told_of_the_host_that_it_asked(running: Running, path: str, query: str) -> None:
    # Gradio writes the first caller's host, which it may make up, into the examples that it shows to all who follow.
    with running.http() as http:
        for host in ("one.example", "two.example"):
            for name in ("Host", "X-Forwarded-Host"):
                answer = http.get(path + query, headers={name: host})
                assert answer.status_code == 200
                assert set(re.findall(r"(\w+)\.example", answer.text)) == {host.removesuffix(".example")}
        openapi = http.get("/gradio_api/openapi.json").text
        assert "one.example" not in openapi


@pytest.mark.parametrize("value", ["x" * 65, "x" * 60_000, "", "a b", "a\n", "../x", "ä", 7, ["x"]])
def test_a_name_that_gradio_would_keep_for_ever_is_refused(running: Running, value: Any) -> None:
    event = {"data": [None], "fn_index": 0, "event_id": "e", "session_hash": "s"}
    with running.http() as http:
        for name in ("session_hash", "event_id"):
            for path in ("queue/join", "call/predict", "cancel", "reset"):
                answer = http.post(f"/gradio_api/{path}", json=event | {name: value})
                assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
                assert f"`{name}`" in answer.json()["error"]
        if not isinstance(value, str) or len(value) > 1000:
            return
        answer = http.get("/gradio_api/queue/data", params={"session_hash": value})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
        answer = http.get(f"/gradio_api/heartbeat/{quote(value, safe='')}")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_gradio_keeps_no_session_of_who_has_its_answer(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
) -> None:
    pages = []

    def build(service: Service) -> Any:
        pages.append(bare_page(service))
        return pages[0]

    with serving(web_settings, lambda: tiny_model, tmp_path, build) as server:
        queue = pages[0]._queue
        for _ in range(3):
            assert server.ask_raw([server.upload(good_film)])[0] == "complete"
        server.ask_client(good_film)
        wait_until(lambda: not queue.pending_event_ids_session)
        assert len(queue.event_analytics) <= 1
        # Dropped while the answer of a slow reader is on its way: Gradio looks it up once more.
        assert queue.pending_event_ids_session["dropped"] == set()


def test_a_full_queue_of_gradio_s_own_says_when_to_come_back(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = []

    def build(service: Service) -> Any:
        pages.append(bare_page(service))
        return pages[0]

    with serving(web_settings, lambda: tiny_model, tmp_path, build) as server, server.http() as http:
        pages[0]._queue.max_size = 0
        caplog.set_level("INFO", "pneumonet")
        caplog.clear()
        refused = http.post("/gradio_api/call/predict", json={"data": [None]})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert logged(caplog) == [("gradio", "busy")]


def test_an_upload_over_the_limit_is_told(running: Running, good_film: bytes) -> None:
    with running.http() as http:
        for film in (bytes(LIMIT_BYTES + 1), bytes(30_000_000)):
            answer = http.post("/gradio_api/upload", files={"files": ("a.png", film)})
            assert answer.status_code == 413
            assert "10 MB" in answer.text
        assert http.post("/gradio_api/upload", files={"files": ("a.png", bytes(LIMIT_BYTES))}).status_code == 200
    assert running.ask_client(good_film)[0]["prediction"]


def test_an_upload_is_answered_once(running: Running, good_film: bytes) -> None:
    upload = running.upload(good_film)
    assert running.ask_raw([upload])[0] == "complete"
    event, error = running.ask_raw([upload])
    assert event == "error"
    assert "Upload it again" in error["error"]


def test_the_same_film_at_once_is_answered_to_each(running: Running, good_film: bytes) -> None:
    uploads = [running.upload(good_film, "same.png") for _ in range(6)]
    assert len({upload["path"] for upload in uploads}) == 6
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda upload: running.ask_raw([upload]), uploads))
        findings = list(pool.map(lambda i: running.ask_client(good_film, f"same{i}.png")[0], range(4)))
    assert {event for event, _ in answers} == {"complete"}
    told = [data[0] for _, data in answers] + findings
    assert len({json.dumps(finding["probabilities"]) for finding in told}) == 1
    assert len({finding["request_id"] for finding in told}) == 10


def test_names_of_any_case_or_none_are_taken(running: Running, good_film: bytes) -> None:
    for name in ("SCAN.DCM", "X.PNG", "IM0001", "film.tar.gz", "ä/../b.png", ".png"):
        assert running.ask_raw([running.upload(good_film, name)])[0] == "complete"


def test_an_uploads_path_holds_no_name() -> None:
    assert "Doe" not in add_upload(b"x", "Jane Doe.dcm")
    assert add_upload(b"x", "Jane Doe.dcm").endswith("/film.dcm")
    assert add_upload(b"x", "a.Doe Jane").endswith("/film")
    assert add_upload(b"x", None).endswith("/film")


def test_take_file_reads_once() -> None:
    path = add_upload(b"abc", "a.png")
    assert take_file(path, 3) == b"abc"
    with pytest.raises(BadRequestError, match="no longer here"):
        take_file(path)


@pytest.mark.parametrize(("data", "error"), [(b"", EmptyFileError), (b"abcd", FileTooLargeError), (None, NoFileError)])
def test_take_file_refuses(data: bytes | None, error: type[Exception]) -> None:
    path = None if data is None else add_upload(data, "a.png")
    with pytest.raises(error):
        take_file(path, 3)
    # A refused film is gone as well.
    assert path is None or uploads.uploads.take(path) is None


def test_a_shelf_forgets_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(uploads.time, "monotonic", lambda: now)
    shelf = Shelf(seconds=5, most_bytes=10)
    path = shelf.put(b"12345678", "a")
    with pytest.raises(BusyError):
        shelf.put(b"123", "b")
    assert shelf.get(path) == b"12345678"
    now = 5.1
    shelf.tidy()
    assert shelf.get(path) is None
    assert shelf.take(path) is None
    assert shelf.put(b"1234567890", "c")


def test_a_failure_nobody_foresaw_is_told_by_id_only(caplog: pytest.LogCaptureFixture) -> None:
    secret = "Jane Doe.dcm data:image/png;base64,AAAA"

    class Page:
        fns: tuple[Any, ...] = ()

        async def process_api(self, block_fn: Any, inputs: list[Any]) -> None:
            raise ValueError(secret)

    class Event:
        inputs: tuple[Any, ...] = ()
        outputs: tuple[Any, ...] = ()

    page = Page()
    guard(page)
    with caplog.at_level(logging.INFO), pytest.raises(gr.Error) as raised:
        asyncio.run(page.process_api(Event(), []))
    request_id = raised.value.message.rsplit("request ", 1)[1].rstrip(")")
    assert "internal_error" in raised.value.message
    assert request_id in caplog.text
    assert "ValueError" in caplog.text
    assert "Jane" not in caplog.text + raised.value.message
    assert raised.value.print_exception is False


def test_gradio_keeps_no_answer_of_a_session(running: Running, good_film: bytes) -> None:
    answer = running.ask_client(good_film, api_name="/explain")
    picture = answer["maps"]["ensemble"]["NORMAL"][-200:]
    sessions = running_sessions()
    assert picture not in sessions
    assert answer["request_id"] not in sessions


def running_sessions() -> str:
    found = (thing for thing in gc.get_objects() if type(thing) is SessionState)
    return "".join(repr(session.config_values) for session in found)
