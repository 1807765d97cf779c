"""What bad input gets at each door, and that the next good film is answered after it."""

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
from tests.web.conftest import Running, dicom
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
