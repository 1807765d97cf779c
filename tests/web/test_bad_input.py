"""What bad input gets at each door, and that the next good film is answered after it."""

import json
import logging
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client.exceptions import AppError

from tests.support.films import encoded, phantom
from tests.web.conftest import LIMIT_BYTES, Running, dicom, logged
from tests.web.test_rest import as_json


def huge_png() -> bytes:
    """One colour, 20000 by 20000, in some dozen kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze = zlib.compressobj()
    rows = b"".join(squeeze.compress(bytes(1 + 20000 // 8)) for _ in range(20000)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def cut(film: bytes) -> bytes:
    return film[: len(film) // 2]


FILMS: dict[str, tuple[str, int, Callable[[], bytes]]] = {
    "empty.png": ("empty_file", 400, lambda: b""),
    "text.png": ("unsupported_format", 415, lambda: b"this is a text, whatever its name says\n" * 20),
    "cut.jpg": ("unreadable_image", 422, lambda: cut(encoded(phantom(), "JPEG"))),
    "cut.dcm": ("unreadable_image", 422, lambda: cut(dicom(phantom()))),
    "no-pixels.dcm": ("unreadable_image", 422, dicom),
    "huge.png": ("too_many_pixels", 413, huge_png),
    "claims.dcm": ("too_many_pixels", 413, lambda: dicom(phantom(), Rows=65535, Columns=65535)),
    "lateral.dcm": ("not_admitted", 422, lambda: dicom(phantom(), ViewPosition="LATERAL")),
    "hand.dcm": ("not_admitted", 422, lambda: dicom(phantom(), BodyPartExamined="HAND")),
    "ct.dcm": ("not_admitted", 422, lambda: dicom(phantom(), Modality="CT")),
    "blank.png": ("not_admitted", 422, lambda: encoded(np.full((300, 260), 90, dtype=np.uint8))),
}
REQUEST_ID = re.compile(r"[0-9a-f]{16}")


def by_multipart(running: Running, name: str, film: bytes) -> tuple[int, dict[str, Any]]:
    answer = running.post(film, name)
    return answer.status_code, answer.json()


def by_json(running: Running, name: str, film: bytes) -> tuple[int, dict[str, Any]]:
    with running.http() as http:
        answer = http.post("/predict", json=as_json(film))
    return answer.status_code, answer.json()


@pytest.mark.parametrize("ask", [by_multipart, by_json])
@pytest.mark.parametrize("name", FILMS)
def test_rest_says_what_is_wrong(
    running: Running, good_film: bytes, name: str, ask: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    code, status, make = FILMS[name]
    got, body = ask(running, name, make())
    assert (got, body["code"]) == (status, code)
    assert set(body) - {"reasons"} == {"error", "code", "hint", "request_id"}
    assert name not in str(body)
    assert running.post(good_film).status_code == 200


@pytest.mark.parametrize("name", FILMS)
def test_gradios_rest_says_what_is_wrong(running: Running, good_film: bytes, name: str) -> None:
    code, _, make = FILMS[name]
    event, error = running.ask_raw([running.upload(make(), name)])
    assert event == "error"
    assert f"code {code}, request " in error["error"]
    assert REQUEST_ID.search(error["error"])
    assert error["title"] == "No answer"
    assert running.ask_raw([running.upload(good_film)])[0] == "complete"


@pytest.mark.parametrize("name", FILMS)
def test_gradio_client_says_what_is_wrong(running: Running, good_film: bytes, name: str) -> None:
    code, _, make = FILMS[name]
    with pytest.raises(AppError, match=f"code {code}, request "):
        running.ask_client(make(), name)
    assert running.ask_client(good_film)[0]["prediction"]


def test_gradio_client_is_told_of_a_missing_film(running: Running) -> None:
    client = running.gradio_client()
    with pytest.raises(AppError, match="code no_file, request "):
        client.predict(None, api_name="/predict")
    client.close()


def test_a_film_of_30_mb_is_too_large_at_each_door(running: Running, good_film: bytes) -> None:
    film = bytes(30_000_000)
    for ask in (by_multipart, by_json):
        status, body = ask(running, "large.png", film)
        assert (status, body["code"]) == (413, "file_too_large")
    with pytest.raises(httpx.HTTPStatusError, match="413"):
        running.upload(film)
    # gradio_client reads the limit off the page and sends nothing.
    with pytest.raises(ValueError, match="exceeds the maximum file size"):
        running.ask_client(film, "large.png")
    assert running.post(good_film).status_code == 200
    assert running.ask_client(good_film)[0]["prediction"]


@pytest.mark.parametrize(
    ("parts", "says", "code"),
    [
        ({}, "content type", "bad_request"),
        ({"content": b"x", "headers": {"Content-Type": "image/png"}}, "content type", "bad_request"),
        ({"files": {"other": ("a.png", b"x")}}, "`files`", "no_file"),
        ({"files": {"other": ("a.png", b"x")}, "data": {"files": "a.png"}}, "`files`", "bad_request"),
    ],
)
def test_malformed_uploads(
    running: Running, parts: dict[str, Any], says: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pneumonet"), running.http() as http:
        answer = http.post("/gradio_api/upload", **parts)
    assert (answer.status_code, says in answer.text) == (400, True)
    assert logged(caplog) == [("upload", code)]


_PREDICT = "/gradio_api/call/v2/predict"
_JOIN = {"data": [], "session_hash": "s"}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/gradio_api/queue/join", _JOIN | {"fn_index": 999}, 404, "not_found"),
        ("/gradio_api/queue/join", _JOIN | {"fn_index": -1}, 404, "not_found"),
        ("/gradio_api/queue/join", _JOIN | {"fn_index": "999"}, 404, "not_found"),
        (_PREDICT, {}, 400, "bad_request"),
        (_PREDICT, {"force": True}, 400, "bad_request"),
        (_PREDICT, {"file": None, "film": None}, 400, "bad_request"),
        ("/gradio_api/call/predict", {"data": json.loads("[" * 400 + "]" * 400)}, 400, "bad_request"),
        ("/gradio_api/component_server", {"component_id": 9}, 404, "not_found"),
        ("/gradio_api/stream/x", {"data": []}, 404, "not_found"),
    ],
)
def test_what_gradio_would_fail_at_is_told(
    running: Running, path: str, body: Any, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), running.http() as http:
        answer = http.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(answer.json()) == {"error", "code", "hint", "request_id"}
    assert logged(caplog) == [("gradio", code)]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("path", ["queue/data?session_hash=unknown", "call/predict/unknown", "call/v2/predict/unknown"])
def test_a_stream_of_nothing_ends_in_peace(running: Running, path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), running.http() as http:
        answer = http.get("/gradio_api/" + path)
        assert http.get("/health").status_code == 200
    assert (answer.status_code, "data: " in answer.text) == (200, True)
    assert logged(caplog) == [("gradio", "not_found")]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_json_body_over_the_limit_is_refused(running: Running, good_film: bytes) -> None:
    with running.http() as http:
        for size in (65_536, 2 * LIMIT_BYTES):
            for path in ("call/predict", "call/v2/predict", "queue/join", "cancel", "reset"):
                answer = http.post(f"/gradio_api/{path}", json={"data": ["x" * size]})
                assert (answer.status_code, answer.json()["code"]) == (413, "file_too_large")
        assert http.post("/gradio_api/call/predict", json={"data": ["x" * 60_000]}).status_code == 200
    assert running.ask_client(good_film)[0]["prediction"]
