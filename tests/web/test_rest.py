import base64
import http.client
import json
from typing import Any

import pytest

from pneumonet.errors import BusyError, PneumoNetError
from pneumonet.language import LANGUAGES
from pneumonet.web import bodies
from pneumonet.web.rest import error_kinds
from tests.support.films import encoded, phantom
from tests.web.conftest import LIMIT_BYTES, Running

KEYS = {
    "prediction", "confidence", "risk_level", "gradcam_image", "probabilities", "prediction_set", "members",
    "admission", "warnings", "model", "disclaimer", "request_id", "duration_ms", "timings",
}  # fmt: skip


def as_json(film: bytes, **fields: Any) -> dict[str, Any]:
    return {"file_data": base64.b64encode(film).decode(), **fields}


def test_multipart_answers_with_every_key(running: Running, good_film: bytes) -> None:
    answer = running.post(good_film)
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == KEYS
    assert answer.headers["x-request-id"] == body["request_id"]
    assert base64.b64decode(body["gradcam_image"].removeprefix("data:image/png;base64,"))[:4] == b"\x89PNG"
    assert sum(body["probabilities"].values()) == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:;base64,"], ids=["plain", "uri", "bare-uri"])
def test_json_takes_base64_and_data_uris(running: Running, good_film: bytes, prefix: str) -> None:
    with running.http() as http:
        answer = http.post("/predict", json={"file_data": prefix + base64.encodebytes(good_film).decode()})
    assert answer.status_code == 200
    assert set(answer.json()) == KEYS


@pytest.mark.parametrize("flag", ["true", "1", "TRUE"])
def test_disable_cam_leaves_out_the_picture(running: Running, good_film: bytes, flag: str) -> None:
    assert running.post(good_film, disable_cam=flag).json()["gradcam_image"] is None
    with running.http() as http:
        body = http.post("/predict", json=as_json(good_film, disable_cam=True)).json()
    assert body["gradcam_image"] is None


def test_a_refused_film_tells_why_and_force_answers_it(running: Running) -> None:
    blank = encoded(phantom() * 0 + 90)
    refused = running.post(blank)
    assert refused.status_code == 422
    assert refused.json()["code"] == "not_admitted"
    assert all(set(reason) == {"code", "message"} for reason in refused.json()["reasons"])
    forced = running.post(blank, force="true").json()
    assert forced["admission"]["accepted"] is False
    assert forced["admission"]["reasons"] == refused.json()["reasons"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"disable_cam": "yes"}, "disable_cam"),
        ({"force": "2"}, "force"),
        ({"frame": "first"}, "frame"),
        ({"frame": "-1"}, "frame"),
    ],
)
def test_a_form_field_of_the_wrong_type_is_named(
    running: Running, good_film: bytes, fields: dict[str, str], named: str
) -> None:
    answer = running.post(good_film, **fields)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert f"`{named}`" in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"force": "true"}, "force"),
        ({"disable_cam": 1}, "disable_cam"),
        ({"frame": True}, "frame"),
        ({"frame": 1.5}, "frame"),
        ({"file_data": 7}, "file_data"),
        ({"file_data": ["a"]}, "file_data"),
        ({"file_data": "data:image/png,abc"}, "file_data"),
        ({"file_data": "not base64!"}, "file_data"),
        ({"file_data": "YWJj*"}, "file_data"),
        ({"file_data": "YWJ"}, "file_data"),
        ({"file_data": "Ünïcode"}, "file_data"),
    ],
)
def test_a_json_field_of_the_wrong_type_is_named(
    running: Running, good_film: bytes, change: dict[str, Any], named: str
) -> None:
    with running.http() as http:
        answer = http.post("/predict", json=as_json(good_film) | change)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert f"`{named}`" in answer.json()["error"]


@pytest.mark.parametrize(
    ("request_parts", "code"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, "bad_request"),
        ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, "bad_request"),
        ({"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, "bad_request"),
        ({"json": [1]}, "bad_request"),
        ({"json": {}}, "no_file"),
        ({"json": {"file_data": None}}, "no_file"),
        ({"json": {"file_data": ""}}, "empty_file"),
        ({"content": b""}, "no_file"),
        ({"content": b"x", "headers": {"Content-Type": "image/png"}}, "bad_request"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "bad_request"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, "bad_request"),
        ({"files": {"other": ("a.png", b"x")}}, "no_file"),
        ({"files": {"file": ("a.png", b"")}}, "empty_file"),
        ({"files": {"other": ("a.png", b"x")}, "data": {"file": "a.png"}}, "bad_request"),
        ({"files": [("file", ("a.png", b"x")), ("file", ("b.png", b"y"))]}, "bad_request"),
        ({"files": {"file": ("a.png", b"x"), "force": ("f", b"y")}}, "bad_request"),
    ],
)
def test_malformed_requests(running: Running, good_film: bytes, request_parts: dict[str, Any], code: str) -> None:
    with running.http() as http:
        answer = http.post("/predict", **request_parts)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
        assert set(answer.json()) == {"error", "code", "hint", "request_id"}
        assert http.post("/predict", files={"file": ("a.png", good_film)}).status_code == 200


def test_the_limit_is_on_the_films_bytes(running: Running) -> None:
    # Padding after a PNG's end is no part of the picture, and readers pass over it.
    film = encoded(phantom())
    just = film + bytes(LIMIT_BYTES - len(film))
    with running.http() as http:
        for body in ({"files": {"file": ("a.png", just)}}, {"json": as_json(just)}):
            assert http.post("/predict", **body).json().get("code") != "file_too_large"
        for body in ({"files": {"file": ("a.png", just + b"x")}}, {"json": as_json(just + b"x")}):
            answer = http.post("/predict", **body)
            assert (answer.status_code, answer.json()["code"]) == (413, "file_too_large")
            assert "10 MB" in answer.json()["error"]


def test_a_huge_body_leaves_the_connection_usable(running: Running, good_film: bytes) -> None:
    host = running.url.removeprefix("http://")
    for chunked in (False, True):
        connection = http.client.HTTPConnection(host, timeout=60)
        body = (b"x" * 1_000_000 for _ in range(30)) if chunked else b"x" * 30_000_000
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        connection.request("POST", "/predict", body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (413, "file_too_large")
        sock = connection.sock
        connection.request("POST", "/predict", json.dumps(as_json(good_film)), {"Content-Type": "application/json"})
        assert connection.sock is sock
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        connection.close()


def test_a_caller_who_asks_first_is_told_before_it_sends(running: Running) -> None:
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/predict")
    for name, value in (("Content-Type", "multipart/form-data; boundary=b"), ("Content-Length", "30000000")):
        connection.putheader(name, value)
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    ("path", "allowed", "methods"),
    [
        ("/predict", "POST", "GET PUT DELETE PATCH OPTIONS TRACE MADE-UP"),
        ("/health", "GET, HEAD", "POST PUT OPTIONS"),
        ("/api", "GET, HEAD", "POST DELETE OPTIONS"),
    ],
)
def test_other_methods_are_refused_in_the_same_shape(running: Running, path: str, allowed: str, methods: str) -> None:
    with running.http() as http:
        for method in methods.split():
            answer = http.request(method, path)
            assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "bad_request", allowed)
            assert set(answer.json()) == {"error", "code", "hint", "request_id"}
            assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("tail", [b'], "file_data": "YWJj"}', b'], "more": {"file_data": "YWJj"}}', b""])
def test_json_of_many_values_is_refused_unparsed(
    running: Running, tail: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "json", None)
    content = b'{"x":[' + b"[]," * 4_000_000 + b"[]" + tail
    with running.http() as http:
        answer = http.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "`file_data`" in answer.json()["error"]


def test_a_body_that_stalls_is_given_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_BODY_SECONDS", 0.3)
    for path in ("/predict", "/gradio_api/upload", "/gradio_api/call/predict"):
        connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=10)
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"--b")
        answer = connection.getresponse()
        assert answer.status == 400
        assert b"did not arrive within" in answer.read()
        connection.close()
    assert bodies._InFlight.count == 0


def test_too_many_bytes_at_once_are_refused(
    running: Running, good_film: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_IN_FLIGHT_BYTES", len(good_film) // 2)
    refused = running.post(good_film)
    assert (refused.status_code, refused.json()["code"]) == (503, "busy")
    assert int(refused.headers["retry-after"]) > 0
    with running.http() as http:
        assert http.post("/gradio_api/upload", files={"files": ("a.png", good_film)}).status_code == 503
    monkeypatch.undo()
    assert bodies._InFlight.count == 0
    assert running.post(good_film).status_code == 200


def test_health_when_healthy(running: Running) -> None:
    with running.http() as http:
        answer = http.get("/health")
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"status", "timestamp", "models_loaded", "version", "model", "engine", "memory_mib", "queue"}
    assert (body["status"], body["models_loaded"]) == ("healthy", True)
    assert body["timestamp"].endswith("+00:00")
    assert body["model"] == running.service.model.info.to_dict()


def test_api_lists_every_error_once(running: Running) -> None:
    with running.http() as http:
        body = http.get("/api").json()
    codes = [kind["code"] for kind in body["errors"]]
    assert len(codes) == len(set(codes)) == 24
    assert {"not_admitted", "busy", "too_many_pixels", "internal_error"} < set(codes)
    assert body["limits"]["max_upload_bytes"] == LIMIT_BYTES
    assert set(body["gradio"]) == {"/predict", "/explain"}
    assert body["languages"]["tags"] == list(LANGUAGES)
    assert "Not a medical device" in body["disclaimer"]


def test_error_kinds_are_read_from_the_classes() -> None:
    busy = next(kind for kind in error_kinds() if kind["code"] == "busy")
    assert (busy["status"], busy["meaning"]) == (503, (BusyError.__doc__ or ""))
    assert PneumoNetError.code not in {kind["code"] for kind in error_kinds()}


@pytest.mark.parametrize("path", ["/", "/health", "/nothing", "/predict", "/gradio_api/info", "/config"])
def test_every_response_has_an_id_of_its_own(running: Running, path: str) -> None:
    with running.http() as http:
        ids = {http.get(path, headers={"X-Request-ID": "mine"}).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert "mine" not in ids


@pytest.mark.parametrize("path", ["/health", "/predict", "/gradio_api/info", "/config", "/gradio_api/upload"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_no_other_site_may_ask(running: Running, path: str, method: str) -> None:
    # Gradio's own rule is stricter towards localhost than towards any other host.
    headers = {"Origin": "https://evil.example", "Host": "pneumo.example", "Access-Control-Request-Method": "POST"}
    with running.http() as http:
        answer = http.request(method, path, headers=headers)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_closed_stays_closed_to_who_looks_like_asking_first(running: Running, method: str) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    with running.http() as http:
        assert http.request(method, "/gradio_api/proxy=x", headers=headers).status_code == 404
        assert http.put("/predict", headers=headers).status_code == 405


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_fastapis_own_pages_are_off(running: Running, path: str) -> None:
    with running.http() as http:
        assert http.get(path).status_code == 404
