"""The door for agents: asked by MCP's own client over streamable HTTP, and by strangers who know what Gradio's does."""

import asyncio
import base64
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.utils import get_upload_folder

from pneumonet.errors import ConfigError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.server import create_app
from pneumonet.web.service import Service
from pneumonet.web.turns import Turns
from tests.support.films import encoded, phantom
from tests.web.conftest import (
    LIMIT_BYTES,
    LOG_FIELDS,
    Running,
    address,
    bare_page,
    file_data,
    logged,
    serving,
    unforeseen,
    wait_until,
)
from tests.web.test_bad_input import huge_png
from tests.web.test_endpoints import GRADIO_KEYS
from tests.web.test_faults import faults_counted, lines_of_requests
from tests.web.test_life import SlowModel
from tests.web.test_login import _basic
from tests.web.test_privacy import NAME, traces

DOOR = "/gradio_api/mcp/"
RESEARCH_USE = "Research use only. Not a medical device."
# What a client sends beside the film.
ACCEPTS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


def needs_mcp() -> None:
    pytest.importorskip("mcp", reason="the package mcp is not installed: requirements-mcp.txt")


@pytest.fixture(scope="module")
def agents(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A server with the door open, and the page's own events."""
    needs_mcp()
    settings = replace(web_settings, mcp=True)
    with serving(settings, lambda: tiny_model, tmp_path_factory.mktemp("agents"), build=None) as server:
        yield server


def visit(
    server: Running, do: Callable[[Any], Awaitable[Any]], query: str = "", headers: dict[str, str] | None = None
) -> Any:
    """Connect as an agent does, and do something with the session."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def connected() -> Any:
        async with (
            httpx.AsyncClient(headers=headers, timeout=60) as http,
            streamable_http_client(server.url + DOOR + query, http_client=http) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await do(session)

    return asyncio.run(connected())


def call(server: Running, arguments: dict[str, Any], tool: str = "predict", **options: Any) -> tuple[Any, Any]:
    """Call the tool; returns what it said, and the whole result."""
    result = visit(server, lambda session: session.call_tool(tool, arguments), **options)
    return json.loads(result.content[0].text), result


def data_uri(film: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(film).decode()


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


def tool_call(**arguments: Any) -> dict[str, Any]:
    return rpc("tools/call", name="predict", arguments=arguments)


def post(server: Running, message: Any, path: str = DOOR, **headers: str) -> httpx.Response:
    body = message if isinstance(message, (bytes, str)) else json.dumps(message)
    with server.http() as http:
        return http.post(path, content=body, headers=ACCEPTS | headers)


def told(answer: httpx.Response) -> Any:
    """Return the message of a stream's one event."""
    return json.loads(
        next(line for line in answer.text.splitlines() if line.startswith("data: ")).removeprefix("data: ")
    )


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """Listen at a port of this machine; yields it, and what was sent to it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(1)
                    heard.append(b"connected")
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        threading.Thread(target=listen, daemon=True).start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)


def test_one_tool_is_offered_and_says_what_it_is_for(agents: Running) -> None:
    tools = visit(agents, lambda session: session.list_tools()).tools
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "client", "version": "1"}}
    greeting = told(post(agents, rpc("initialize", **client)))["result"]
    assert [tool.name for tool in tools] == ["predict"]
    assert RESEARCH_USE in tools[0].description
    assert RESEARCH_USE in greeting["instructions"]
    assert greeting["capabilities"].keys() == {"tools", "experimental"}
    schema = tools[0].inputSchema
    assert (set(schema["properties"]), schema["required"]) == ({"file", "force"}, ["file"])
    assert "http url" not in json.dumps(schema)
    with agents.http() as http:
        listed = http.get(DOOR + "schema").json()
        assert http.get("/api").json()["mcp"].startswith(DOOR)
        assert sorted(http.get("/gradio_api/info").json()["named_endpoints"]) == ["/explain", "/predict"]
    assert [(tool["name"], tool["inputSchema"]) for tool in listed] == [("predict", schema)]
    assert RESEARCH_USE in listed[0]["description"]


@pytest.mark.parametrize("query", ["?tools=explain", "?tools=predict,explain", "?tools=", "?tools=_analyse,take,speak"])
def test_a_client_cannot_add_a_tool_by_its_filter(agents: Running, good_film: bytes, query: str) -> None:
    from mcp import McpError

    async def look(session: Any) -> Any:
        names = [tool.name for tool in (await session.list_tools()).tools]
        for name in ("explain", "/explain", "analyse", "take", "nothing"):
            with pytest.raises(McpError, match="no tool of that name"):
                await session.call_tool(name, {"file": data_uri(good_film)})
        return names

    assert set(visit(agents, look, query)) <= {"predict"}


def test_a_film_as_a_data_uri_is_answered(agents: Running, good_film: bytes, caplog: pytest.LogCaptureFixture) -> None:
    rest = agents.post(good_film).json()
    with caplog.at_level(logging.INFO, logger="pneumonet"):
        answer, result = call(agents, {"file": data_uri(good_film)})
    assert result.isError is False
    assert set(answer) == GRADIO_KEYS
    assert answer["disclaimer"].startswith(RESEARCH_USE)
    picture = result.content[1]
    assert (picture.type, picture.mimeType, base64.b64decode(picture.data)[:4]) == ("image", "image/png", b"\x89PNG")
    assert (answer["probabilities"], answer["warnings"]) == (rest["probabilities"], rest["warnings"])
    assert data_uri(base64.b64decode(picture.data)) == rest["gradcam_image"]
    assert ("mcp", "ok") in logged(caplog)
    assert answer["request_id"] in caplog.text


def test_the_answer_and_the_log_share_the_id_of_the_request(agents: Running, good_film: bytes) -> None:
    answer = post(agents, tool_call(file=data_uri(good_film)))
    content = told(answer)["result"]["content"]
    assert json.loads(content[0]["text"])["request_id"] == answer.headers["x-request-id"]


def test_the_path_may_lack_the_slash_and_a_stranger_s_host_is_not_sent_on_to(agents: Running, good_film: bytes) -> None:
    answer = post(agents, tool_call(file=data_uri(good_film)), DOOR.rstrip("/"), Host="evil.example")
    assert answer.status_code == 200
    assert told(answer)["result"]["isError"] is False


@pytest.mark.parametrize("before", ["", "https://elsewhere.example/gradio_api/file="], ids=["path", "address"])
def test_an_uploaded_film_is_answered_once(agents: Running, good_film: bytes, before: str) -> None:
    # Gradio's own tool for uploads, `gradio upload-mcp`, tells an address of the server; its host is not asked.
    path = before + agents.upload(good_film)["path"]
    assert call(agents, {"file": path})[0]["prediction"]
    answer, result = call(agents, {"file": path})
    assert (result.isError, answer["code"]) == (True, "bad_request")


def test_answers_are_in_the_agent_s_language(agents: Running, good_film: bytes) -> None:
    answer, _ = call(agents, {"file": data_uri(good_film)}, headers={"Accept-Language": "de"})
    assert "Medizinprodukt" in answer["disclaimer"]


def test_a_refused_film_tells_why_and_force_answers_it(agents: Running) -> None:
    blank = data_uri(encoded(phantom() * 0 + 90))
    answer, result = call(agents, {"file": blank})
    assert (result.isError, answer["code"], len(result.content)) == (True, "not_admitted", 1)
    assert answer["reasons"]
    assert call(agents, {"file": blank, "force": True})[0]["admission"]["accepted"] is False


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, "no_file"),
        ({"file": None}, "no_file"),
        ({"file": ""}, "bad_request"),
        ({"file": 7}, "bad_request"),
        ({"file": "data:"}, "bad_request"),
        ({"file": "data:image/png;base64,"}, "empty_file"),
        ({"file": "data:image/png;base64,???"}, "bad_request"),
        ({"file": "data:text/plain,hello"}, "bad_request"),
        ({"file": data_uri(b"hello")}, "unsupported_format"),
        ({"file": data_uri(b"\x89PNG\r\n\x1a\n")}, "unreadable_image"),
        ({"file": data_uri(b"x"), "force": "yes"}, "bad_request"),
        ({"file": data_uri(b"x"), "frame": 1}, "bad_request"),
        ({"file": data_uri(bytes(LIMIT_BYTES + 1))}, "file_too_large"),
        ({"file": data_uri(huge_png())}, "too_many_pixels"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_an_answer_in_words(agents: Running, arguments: dict[str, Any], code: str) -> None:
    answer, result = call(agents, arguments)
    assert (result.isError, answer["code"]) == (True, code)
    assert set(answer) == {"error", "code", "hint", "request_id"}


@pytest.mark.parametrize(("films", "code"), [(Turns(1, 0, 60), "busy"), (Turns(1, 1, 0), "took_too_long")])
def test_a_full_queue_and_a_time_that_is_over_are_answers_in_words(
    agents: Running, good_film: bytes, monkeypatch: pytest.MonkeyPatch, films: Turns, code: str
) -> None:
    monkeypatch.setattr(agents.service, "films", films)
    answer, result = call(agents, {"file": data_uri(good_film)})
    assert (result.isError, answer["code"]) == (True, code)
    assert answer["hint"]


def test_a_heatmap_is_drawn_in_the_turn_of_its_film_and_its_fault_is_the_film_s(
    agents: Running, good_film: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    present = []

    def fails(_: Any) -> Any:
        present.append(agents.service.films.present)
        raise ZeroDivisionError(NAME)

    monkeypatch.setattr("pneumonet.web.agents.overlay", fails)
    caplog.set_level("INFO", "pneumonet")
    answer, result = call(agents, {"file": data_uri(good_film)})
    assert (result.isError, answer["code"], present[-1]) == (True, "internal_error", 1)
    assert lines_of_requests(caplog).count(("mcp", "/gradio_api/mcp", "internal_error")) == 1


def test_a_fault_outside_a_film_s_answer_is_counted_and_logged(
    agents: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError(NAME)

    monkeypatch.setattr("pneumonet.web.agents._film_of", fails)
    caplog.set_level("INFO", "pneumonet")
    before = faults_counted()
    answer, result = call(agents, {"file": "film"})
    assert (result.isError, answer["code"]) == (True, "internal_error")
    assert faults_counted() == before + 1
    assert lines_of_requests(caplog).count(("mcp", "/gradio_api/mcp", "internal_error")) == 1
    assert NAME not in caplog.text


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
def test_no_web_address_is_fetched(agents: Running, scheme: str) -> None:
    with listening() as (port, heard):
        for address in (f"{scheme}://127.0.0.1:{port}/", f"{scheme}://127.0.0.1:{port}/gradio_api/file=/film.png"):
            for file in (address, {"path": address, **file_data(address)}, {"url": address}, [address]):
                answer, result = call(agents, {"file": file})
                assert (result.isError, answer["code"]) == (True, "bad_request")
    assert not heard


@pytest.mark.parametrize(
    "message",
    [
        tool_call(file=data_uri(encoded(phantom()))),
        rpc("resources/read", uri="x://y"),
        rpc("prompts/get", name="x"),
        rpc("resources/list"),
        rpc("completion/complete", ref={"type": "ref/prompt", "name": "x"}, argument={"name": "a", "value": "b"}),
    ],
    ids=lambda message: message["method"],
)
def test_no_host_that_a_caller_names_is_asked(agents: Running, message: Any) -> None:
    # Gradio's own handlers call the server back at the host of the first request, and keep to it for all the others.
    with listening() as (port, heard):
        host = f"127.0.0.1:{port}"
        answer = post(agents, message, **{"Host": host, "X-Forwarded-Host": host, "X-Gradio-Server": f"http://{host}"})
        assert answer.status_code == 200
        assert ("result" in told(answer)) == (message["method"] == "tools/call")
    assert not heard


def test_no_file_of_the_server_is_read(agents: Running, good_film: bytes, tmp_path: Path) -> None:
    film = tmp_path / "another.png"
    film.write_bytes(good_film)
    for path in ("/etc/passwd", str(film), f"file://{film}", f"{get_upload_folder()}/../another.png"):
        for file in (path, file_data(path), {"path": path, **file_data(path)}, f"/gradio_api/file={path}"):
            answer, result = call(agents, {"file": file})
            assert (result.isError, answer["code"]) == (True, "bad_request")
            assert "root:" not in result.model_dump_json()


@pytest.mark.parametrize("path", ["", "/", "/schema", "/sse", "/messages/", "/http", "/http/", "/anything", "x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_door_is_shut_unless_it_is_asked_for(running: Running, path: str, method: str) -> None:
    with running.http() as http:
        answer = http.request(method, DOOR.rstrip("/") + path, headers=ACCEPTS)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/sse", "/messages/", "/http", "/http/", "/anything"])
def test_nothing_else_of_gradio_s_mcp_is_offered(agents: Running, path: str) -> None:
    for method in ("GET", "POST"):
        with agents.http() as http:
            answer = http.request(method, DOOR.rstrip("/") + path, headers=ACCEPTS)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", [DOOR, DOOR.rstrip("/")])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_no_stream_is_held_open_and_no_page_is_shown(agents: Running, path: str, method: str) -> None:
    with agents.http() as http:
        for headers in (ACCEPTS, {"Accept": "text/html"}):
            answer = http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "bad_request", "POST")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (json.dumps(tool_call(file=data_uri(bytes(LIMIT_BYTES + 200_000)))), 413, "file_too_large"),
        (json.dumps(tool_call(file="", force="x" * 70_000)), 400, "bad_request"),
        (json.dumps(tool_call(file=["data:"] * 20_000)), 400, "bad_request"),
        (json.dumps(tool_call(file="data:" + "A" * 100_000, force=[1] * 30_000)), 400, "bad_request"),
        ('{"a":' * 60 + "1" + "}" * 60, 400, "bad_request"),
        ("[" * 20_000, 400, "bad_request"),
        (json.dumps([tool_call()]), 400, "bad_request"),
        ("hello", 400, "bad_request"),
        (b'{"a": "\xff"}', 400, "bad_request"),
    ],
    ids=["film", "argument", "list", "beside the film", "deep", "deeper", "batch", "no JSON", "no UTF-8"],
)
def test_a_body_is_bounded_and_understood(agents: Running, body: Any, status: int, code: str) -> None:
    answer = post(agents, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_the_largest_film_is_taken(agents: Running, good_film: bytes) -> None:
    # What follows a PNG's end is not looked at, but for its size.
    film = good_film + bytes(LIMIT_BYTES - len(good_film))
    assert call(agents, {"file": data_uri(film)})[0]["prediction"]


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"jsonrpc": "2.0"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "predict", "arguments": [1]}},
        {"jsonrpc": "2.0", "id": 1, "method": "no/such"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
    ],
    ids=lambda message: json.dumps(message)[16:60],
)
def test_a_malformed_message_is_the_caller_s_fault(agents: Running, message: Any, capfd: Any) -> None:
    answer = post(agents, message)
    assert answer.status_code in (200, 202, 400)
    assert answer.status_code == 202 or '"error":' in answer.text
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_login_stands_before_the_door(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
) -> None:
    needs_mcp()
    settings = replace(web_settings, mcp=True, users={"ada": "right"})
    with serving(settings, lambda: tiny_model, tmp_path) as server:
        for headers in ({}, _basic("ada:wrong")):
            for message in (tool_call(file=data_uri(good_film)), rpc("tools/list")):
                answer = post(server, message, **headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "not_logged_in")
        answer, _ = call(server, {"file": data_uri(good_film)}, headers=_basic("ada:right"))
        assert answer["prediction"]


def test_an_agent_s_calls_are_counted_as_others_are(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path
) -> None:
    needs_mcp()
    with serving(replace(web_settings, mcp=True, requests_per_minute=8), lambda: tiny_model, tmp_path) as server:
        answers = [post(server, rpc("tools/list")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) > 0


def test_another_site_s_page_is_refused(agents: Running) -> None:
    answer = post(agents, rpc("tools/list"), **{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "other_site")


def test_who_hangs_up_leaves_the_queue(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, good_film: bytes
) -> None:
    needs_mcp()
    model = SlowModel(tiny_model)
    settings = replace(web_settings, mcp=True)
    with serving(settings, lambda: model, tmp_path) as server:  # type: ignore[arg-type]
        films = server.service.films
        asked = [threading.Thread(target=server.post, args=(good_film,)) for _ in range(2)]
        for thread in asked:
            thread.start()
        wait_until(lambda: films.present == 2)
        with server.http() as http, pytest.raises(httpx.ReadTimeout):
            http.post(DOOR, json=tool_call(file=data_uri(good_film)), headers=ACCEPTS, timeout=1)
        wait_until(lambda: films.present == 2)
        model.let.set()
        for thread in asked:
            thread.join(30)


def test_nothing_of_a_film_remains(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, good_film: bytes
) -> None:
    needs_mcp()
    process = start(GRADIO_TEMP_DIR=str(tmp_path / "gradio"), PNEUMONET_MCP="1")
    server = Running(address(process), None, tmp_path / "client")  # type: ignore[arg-type]
    with server.http() as http:
        wait_until(lambda: http.get("/health").status_code == 200)
    watched = [tmp_path / name for name in ("tmp", "cwd", "gradio")]
    before = set(traces(watched, []))
    film = encoded(phantom(1500, 1300))
    assert call(server, {"file": data_uri(film)})[0]["prediction"]
    assert call(server, {"file": data_uri(film[:4000])})[1].isError
    assert call(server, {"file": server.upload(film, NAME + ".png")["path"]})[0]["prediction"]
    post(server, rpc("tools/call", name=NAME, arguments={"file": data_uri(film)}))
    post(server, rpc("tools/call", name="predict", arguments={"file": NAME}))
    post(server, rpc(NAME))
    post(server, NAME)
    assert not set(traces(watched, [film])) - before
    process.send_signal(signal.SIGTERM)
    said, log = process.communicate(timeout=60)
    assert process.returncode == 0
    for word in (NAME, "data:", base64.b64encode(film[99:300]).decode()[:40]):
        assert word not in said + log
    assert not unforeseen(log)
    requests = [line for line in map(json.loads, log.splitlines()) if "request_id" in line]
    assert [(line["code"], line["route"]) for line in requests if line["door"] == "mcp"] == [
        ("ok", "/gradio_api/mcp"),
        ("unreadable_image", "/gradio_api/mcp"),
        ("ok", "/gradio_api/mcp"),
        ("not_found", "/gradio_api/mcp"),
        ("bad_request", "/gradio_api/mcp"),
        ("bad_request", "/gradio_api/mcp"),
    ]
    assert all(set(line) == LOG_FIELDS | {"engine", "revision"} for line in requests)


def test_without_the_package_the_server_does_not_start(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "none" / "mcp").mkdir(parents=True)
    (tmp_path / "none" / "mcp" / "__init__.py").write_text("raise ImportError('there is none')")
    process = start(PNEUMONET_MCP="1", PYTHONPATH=str(tmp_path / "none"))
    said, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "PneumoNet is at" not in said
    assert re.fullmatch(r"PNEUMONET_MCP is 1, .* mcp is missing.* Install requirements-mcp\.txt\.\n", log)


def test_a_package_that_gradio_does_not_know_is_as_good_as_none(
    web_settings: Settings, tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a later mcp, which has no such server.
    gradio_mcp = pytest.importorskip("gradio.mcp")
    monkeypatch.delattr(gradio_mcp.GradioMCPServer, "Server", raising=False)
    service = Service(replace(web_settings, mcp=True), lambda: tiny_model)
    with pytest.raises(ConfigError, match=r"requirements-mcp\.txt|of another version"):
        create_app(service, bare_page(service))


def test_without_the_setting_the_package_is_not_asked_for(
    web_settings: Settings, tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setenv("GRADIO_MCP_SERVER", "True")
    service = Service(web_settings, lambda: tiny_model)
    page = bare_page(service)
    create_app(service, page)
    assert page.mcp_server is False


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_the_setting_is_read(value: str, expected: bool) -> None:
    assert Settings.from_environment({"PNEUMONET_MCP": value}).mcp is expected


def test_a_setting_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConfigError, match="PNEUMONET_MCP"):
        Settings.from_environment({"PNEUMONET_MCP": "yes"})
