"""How long a connection is held without a request, how many of one address, and how many in all."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import connections, server
from pneumonet.web.connections import Bounds, connections_allowed
from tests.web.conftest import Running, serving, wait_until

# uvicorn believes 127.0.0.1 to be a proxy, which speaks for many.
STRANGER = "127.0.0.2"
HEAD = b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def narrow(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """A server of six connections, of which an address has four, and one more that is told that it is full."""
    monkeypatch.setattr(server, "_CONNECTIONS", 6)
    monkeypatch.setattr(connections, "_TOLD", 1)
    with serving(replace(web_settings, open_requests=1), lambda: tiny_model, tmp_path) as running:
        yield running


def _connect(running: Running, source: str = "127.0.0.1") -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 20, (source, 0))


def _said(connection: socket.socket) -> bytes:
    """Return what comes until the other side hangs up."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def _is_hung_up(connection: socket.socket, sent: bytes) -> bool:
    try:
        connection.sendall(sent)
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def _is_answered(connection: socket.socket) -> bool:
    connection.sendall(HEAD + b"\r\n")
    return connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_one_address_does_not_take_every_connection(narrow: Running) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(_connect(narrow, STRANGER)) for _ in range(4)]
        for _ in range(2):
            assert _said(stack.enter_context(_connect(narrow, STRANGER))) == b""
        assert _is_answered(stack.enter_context(_connect(narrow)))
        assert all(map(_is_answered, silent))
    with _connect(narrow, STRANGER) as again:
        assert _is_answered(again)


def test_who_comes_to_a_full_server_is_told_when_to_come_back(narrow: Running) -> None:
    with ExitStack() as stack:
        there = [stack.enter_context(_connect(narrow)) for _ in range(6)]
        assert all(map(_is_answered, there))
        told = stack.enter_context(_connect(narrow))
        assert _said(stack.enter_context(_connect(narrow))) == b"", "one too many even to be told"
        told.sendall(b"GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, body = _said(told).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b'"code":"busy"' in body
        assert b"retry-after: 5" in head.lower()
        # Who is there already is served.
        assert all(map(_is_answered, there))


def test_a_film_sent_to_a_full_server_is_told_too(narrow: Running) -> None:
    body = bytes(10_000_000)
    with ExitStack() as stack:
        assert all(_is_answered(stack.enter_context(_connect(narrow))) for _ in range(6))
        told = stack.enter_context(_connect(narrow))
        told.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        # To its end: a reset would take the answer away from under who has not read it yet.
        answer = b"".join(iter(lambda: told.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"code":"busy"' in answer


def test_a_crowd_that_is_refused_takes_no_newcomer_s_place(narrow: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    everybody_is_there = threading.Event()
    add = Bounds.add

    def wait_and_add(bounds: Bounds, address: str) -> bool:
        # What comes while the server's loop stands still it takes at one go.
        assert everybody_is_there.wait(20)
        return add(bounds, address)

    monkeypatch.setattr(Bounds, "add", wait_and_add)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(_connect(narrow, STRANGER))
        newcomer = stack.enter_context(_connect(narrow))
        everybody_is_there.set()
        assert _is_answered(newcomer)


@pytest.mark.parametrize("drips", [False, True])
def test_the_rest_of_what_is_refused_is_not_waited_for(
    narrow: Running, monkeypatch: pytest.MonkeyPatch, drips: bool
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    with _connect(narrow) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        connection.sendall(b"x")
        connection.settimeout(0.02)
        wait_until(lambda: _is_hung_up(connection, b"x" if drips else b""), 5)


def test_silence_is_not_waited_for(narrow: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    with narrow.http() as http, http.stream("GET", "/gradio_api/heartbeat/page") as stream:
        assert next(stream.iter_lines()) == "data: ALIVE"
        for sent in (b"", b"G", HEAD):
            with _connect(narrow) as connection:
                connection.sendall(sent)
                assert _said(connection) == b""
        with _connect(narrow) as connection:
            assert _is_answered(connection)
            connection.sendall(HEAD)
            assert _said(connection) == b""
        assert not stream.is_closed


class TestBounds:
    def test_a_proxy_has_no_bound_of_its_own(self) -> None:
        bounds = Bounds(100, 2, "10.0.0.0/8")
        assert [bounds.add("10.1.2.3") for _ in range(3)] == [True] * 3
        assert [bounds.add("203.0.113.5") for _ in range(3)] == [True, True, False]
        bounds.remove("203.0.113.5")
        assert bounds.add("203.0.113.5")

    def test_who_is_refused_is_not_counted(self) -> None:
        bounds = Bounds(3, 2, "")
        assert [bounds.add("203.0.113.5") for _ in range(500)].count(True) == 2
        assert bounds.add("203.0.113.6")
        assert not bounds.is_full()

    def test_nought_is_no_bound(self) -> None:
        bounds = Bounds(100, 0, "")
        assert all(bounds.add("203.0.113.5") for _ in range(50))


def test_a_burst_fits_into_the_files_that_are_left_for_it(web_settings: Settings) -> None:
    # What one turn of asyncio's loop accepts, refuses and closes lies in three turns.
    assert 3 * server.configured(FastAPI(), web_settings).backlog < connections._OTHER_FILES


@pytest.mark.parametrize(
    ("limits", "raised_to", "allowed"),
    [
        ((1024, 20_000), (2400, 20_000), 2000),
        ((1024, -1), (2400, -1), 2000),
        ((1024, 1024), (1024, 1024), 624),
        ((1024, 2000), (2000, 2000), 1600),
        ((256, 256), (256, 256), 64),
        ((4096, 4096), None, 2000),
        ((-1, -1), None, 2000),
    ],
)
def test_connections_fit_into_the_files_that_may_be_open(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised_to: tuple[int, int] | None, allowed: int
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _: limits)
    monkeypatch.setattr("resource.setrlimit", lambda _, pair: raised.append(pair))
    assert connections_allowed(2000) == allowed
    assert raised == ([raised_to] if raised_to else [])
