"""The optional login stands before every door, and listed sites alone may ask from a browser."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from starlette.datastructures import Headers

from pneumonet.errors import ConfigError, NotLoggedInError, OtherSiteError, TooManyRequestsError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.login import OPEN_PATH, Login, check_host, is_loopback
from pneumonet.web.rates import RateLimit
from tests.web.conftest import Running, file_data, serving

SITE = "https://hospital.example"


@pytest.fixture(scope="module")
def guarded(tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    users = {"ada": "p:w,d", "bob": "other"}
    settings = Settings(users=users, allowed_origins=(SITE,), requests_per_minute=0)
    with serving(settings, lambda: tiny_model, tmp_path_factory.mktemp("guarded")) as server:
        yield server


def _basic(credentials: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}


DOORS = [
    ("GET", "/"), ("GET", "/config"), ("GET", "/api"), ("GET", "/openapi.json"), ("POST", "/predict"),
    ("POST", "/gradio_api/upload"), ("POST", "/gradio_api/call/predict"), ("GET", "/gradio_api/call/predict/1"),
    ("POST", "/gradio_api/queue/join"), ("GET", "/gradio_api/queue/data"), ("POST", "/gradio_api/run/predict"),
    ("GET", "/gradio_api/info"), ("GET", "/gradio_api/file=/etc/passwd"), ("GET", "/assets/index.js"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize(
    "headers",
    [{}, _basic("ada:wrong"), _basic("ada:"), _basic("bob:p:w,d"), {"Authorization": "Basic ?"}, {"Authorization": "x"},
     {"Authorization": _basic("ada:p:w,d")["Authorization"].replace("Basic", "Bearer")}],
    ids=["none", "wrong", "empty", "another's", "no base64", "no scheme", "another scheme"],
)  # fmt: skip
def test_no_door_opens_without_a_login(guarded: Running, method: str, path: str, headers: dict[str, str]) -> None:
    with guarded.http() as http:
        answer = http.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    # Gradio's clients show the text of a failed upload as it stands.
    told = answer.text if path.endswith("/upload") else answer.json()["error"]
    assert told.startswith("This server wants a user name and a password.")


def test_whoever_logs_in_is_answered_at_each_door(guarded: Running, good_film: bytes, tmp_path: Path) -> None:
    for credentials in ("ada:p:w,d", "bob:other"):
        with httpx.Client(base_url=guarded.url, headers=_basic(credentials), timeout=60) as http:
            assert http.get("/").status_code == 200
            assert http.post("/predict", files={"file": ("a.png", good_film)}).status_code == 200
            path = http.post("/gradio_api/upload", files={"files": ("a.png", good_film)}).json()[0]
            joined = http.post("/gradio_api/call/predict", json={"data": [file_data(path)]})
            assert "event: complete" in http.get(f"/gradio_api/call/predict/{joined.json()['event_id']}").text
    film = tmp_path / "film.png"
    film.write_bytes(good_film)
    client = Client(guarded.url, headers=_basic("ada:p:w,d"), verbose=False, analytics_enabled=False)
    finding, _ = client.predict(handle_file(film), api_name="/predict")
    client.close()
    assert "prediction" in finding


def test_health_needs_no_login(guarded: Running) -> None:
    with guarded.http() as http:
        assert http.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/predict", "/gradio_api/info", "/config", "/gradio_api/upload"])
def test_a_listed_site_may_ask_and_no_other(guarded: Running, path: str) -> None:
    asks = {"Access-Control-Request-Method": "POST"}
    # A browser sends no login with the question whether it may ask.
    with guarded.http() as http:
        listed = http.options(path, headers=asks | {"Origin": SITE})
        other = http.options(path, headers=asks | {"Origin": "https://evil.example"})
    assert listed.headers["access-control-allow-origin"] == SITE
    assert "access-control-allow-origin" not in other.headers


def test_a_listed_site_reads_answers_and_refusals_and_no_other_does(guarded: Running, good_film: bytes) -> None:
    with httpx.Client(base_url=guarded.url, timeout=60) as http:
        for login, status in ((_basic("bob:other"), 200), ({}, 401)):
            for origin, reads in ((SITE, True), ("https://evil.example", False)):
                answer = http.post("/predict", files={"file": ("a.png", good_film)}, headers=login | {"Origin": origin})
                assert answer.status_code == status
                assert ("access-control-allow-origin" in answer.headers) is reads
        assert "X-Request-ID" in http.get("/api", headers={"Origin": SITE}).headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "path", ["/predict", "/gradio_api/upload", "/gradio_api/call/predict", "/gradio_api/queue/join"]
)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_s_page_cannot_send_in_a_visitor_s_name(guarded: Running, path: str, site: str) -> None:
    # A form's post is sent without asking first, with the login that the browser holds.
    headers = _basic("bob:other") | {"Origin": "https://evil.example", "Sec-Fetch-Site": site}
    with guarded.http() as http:
        refused = http.post(path, files={"file": ("a.png", b"x"), "files": ("a.png", b"x")}, headers=headers)
        assert refused.status_code == 403
        listed = http.post(path, json={}, headers=headers | {"Origin": SITE})
        own = http.post(path, json={}, headers=_basic("bob:other") | {"Sec-Fetch-Site": "same-origin"})
    assert 403 not in (listed.status_code, own.status_code)


def test_passwords_cannot_be_tried_at_full_speed(tiny_model: PneumoNet, tmp_path: Path) -> None:
    settings = Settings(users={"ada": "right"}, requests_per_minute=20)
    with serving(settings, lambda: tiny_model, tmp_path) as server, server.http() as http:
        tried = [http.get("/api", headers=_basic(f"ada:{guess}")).status_code for guess in range(8)]
        assert tried == [401] * 5 + [429] * 3
        # An answer of its own to the right one would tell it among the wrong ones.
        refused = http.get("/api", headers=_basic("ada:right"))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert int(refused.headers["retry-after"]) > 0
        # Who sends none is asked for one, and another address is none of the guesser's.
        assert http.get("/api").status_code == 401
        other = _basic("ada:right") | {"X-Forwarded-For": "203.0.113.5"}
        assert [http.get("/api", headers=other).status_code for _ in range(20)] == [200] * 20


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_right_password_takes_nothing_and_passes_again_in_time() -> None:
    clock = Clock()
    login = Login({"ada": "right"}, RateLimit(4, clock))

    def check(credentials: str, path: str = "/api") -> None:
        login.check("GET", path, Headers(_basic(credentials)), "somebody")

    for _ in range(100):
        check("ada:right")
    with pytest.raises(NotLoggedInError):
        check("ada:wrong")
    for credentials in ("ada:wrong", "ada:right", "ada:right"):
        with pytest.raises(TooManyRequestsError):
            check(credentials)
    check("ada:wrong", OPEN_PATH)
    clock.now += 15
    check("ada:right")


@pytest.mark.parametrize(
    ("name", "at_port", "is_answered"),
    [
        ("evil.example", True, False),
        ("evil.example.", True, False),
        ("127.0.0.1.evil.example", True, False),
        ("localhost.evil.example", True, False),
        ("[::1", True, False),
        ("host.docker.internal", True, False),
        ("", True, False),
        ("localhost", True, True),
        ("LocalHost.", True, True),
        ("pneumo.localhost", True, True),
        ("127.0.0.1", True, True),
        ("192.168.0.7", True, True),
        ("[::1]", True, True),
        ("hospital.example", True, True),
        # A proxy of this machine passes on the name that it is known by, with its own port or none.
        ("reading-room.example", False, True),
        ("reading-room.example:8443", False, True),
    ],
)
def test_a_site_that_names_this_machine_as_its_own_is_refused(
    guarded: Running, name: str, at_port: bool, is_answered: bool
) -> None:
    port = guarded.url.rpartition(":")[2]
    headers = _basic("bob:other") | {"Host": f"{name}:{port}" if at_port else name}
    with guarded.http() as http:
        for path in ("/", "/metrics", "/gradio_api/info"):
            answer = http.get(path, headers=headers)
            assert answer.status_code == (200 if is_answered else 403)
            assert is_answered or answer.json()["code"] == "other_site"
            # Who is there by right, from a container for one, cannot guess what lets it in.
            assert is_answered or "PNEUMONET_ALLOWED_ORIGINS" in answer.json()["hint"]
            assert is_answered or "page sent this" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("host", "is_home"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.0.7", False), ("reading-room", False)],
)  # fmt: skip
def test_a_server_of_the_whole_network_answers_to_any_name(host: str, is_home: bool) -> None:
    assert is_loopback(host) is is_home


def test_a_name_without_a_port_is_at_port_80() -> None:
    check_host("evil.example", 7860, ())
    check_host(None, 80, ())
    with pytest.raises(OtherSiteError):
        check_host("evil.example", 80, ())


@pytest.mark.parametrize("is_space", [False, True])
def test_who_may_frame_the_page(tiny_model: PneumoNet, tmp_path: Path, is_space: bool) -> None:
    expected = "frame-ancestors 'self'" + (" https://huggingface.co" if is_space else "")
    with serving(Settings(is_space=is_space), lambda: tiny_model, tmp_path) as server, server.http() as http:
        for path in ("/", "/health", "/predict", "/gradio_api/info", "/nothing"):
            assert http.get(path).headers["content-security-policy"] == expected


def test_nobody_is_of_a_space_s_machine(tiny_model: PneumoNet, tmp_path: Path) -> None:
    with serving(Settings(is_space=True), lambda: tiny_model, tmp_path) as server, server.http() as http:
        assert http.get("/metrics").status_code == 404


@pytest.mark.parametrize("value", ["ada", "ada:", ":secret", "ada:secret,ada:other"])
def test_a_login_that_cannot_be_meant_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.from_environment({"PNEUMONET_AUTH": value})
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("value", ["*", "example.org", "https://example.org/path", "https://*.example.org", "null"])
def test_an_origin_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="PNEUMONET_ALLOWED_ORIGINS"):
        Settings.from_environment({"PNEUMONET_ALLOWED_ORIGINS": value})


def test_logins_and_origins_are_read_and_a_login_is_not_shown() -> None:
    settings = Settings.from_environment(
        {"PNEUMONET_AUTH": "ada:a:b, bob:c", "PNEUMONET_ALLOWED_ORIGINS": f"{SITE}, http://localhost:8000"}
    )
    assert settings.users == {"ada": "a:b", "bob": "c"}
    assert settings.allowed_origins == (SITE, "http://localhost:8000")
    assert "a:b" not in repr(settings)
    assert replace(settings, users={}).users == {}
