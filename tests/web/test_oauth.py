"""Sign in with Hugging Face, against a provider of our own that speaks the protocol: who is let in, at every door."""

import asyncio
import hashlib
import json
import threading
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from itsdangerous import URLSafeTimedSerializer

from pneumonet.errors import ConfigError, SignInError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.oauth import CALLBACK_ROUTE, COOKIE, LOGIN_ROUTE, LOGOUT_ROUTE, SignIn
from tests.web.conftest import Running, serving
from tests.web.test_login import DOORS

CLIENT, SECRET, HOST = "client-1", "a secret of the Space", "org-space.hf.example"
SPACE = {
    "SPACE_ID": "org/space",
    "SPACE_HOST": HOST,
    "OAUTH_CLIENT_ID": CLIENT,
    "OAUTH_CLIENT_SECRET": SECRET,
    "PNEUMONET_OAUTH_USERS": "ada, grace",
}


class Provider(ThreadingHTTPServer):
    """An OpenID provider: hands a code to whoever it is told, checks the client and the verifier, names the account."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.codes: dict[str, tuple[str, dict[str, str]]] = {}
        self.is_broken = False
        self.asked: list[str] = []

    def consent(self, location: str, account: str) -> str:
        """Agree to an authorization request as an account; returns the code."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = (account, query)
        return code


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/.well-known/openid-configuration":
            names = ("authorization", "token", "userinfo")
            self._say({f"{name}_endpoint": f"{self.server.address}/oauth/{name}" for name in names})
        elif self.path == "/oauth/userinfo":
            account = self.headers["Authorization"].removeprefix("Bearer token-of-")
            self._say({"sub": "1", "preferred_username": account})

    def do_POST(self) -> None:
        form = {k: v[0] for k, v in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()}
        account, query = self.server.codes.pop(form["code"], ("", {}))
        digest = urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        is_right = (
            b64decode(self.headers["Authorization"].split()[1]).decode() == f"{CLIENT}:{SECRET}"
            and query.get("code_challenge") == digest
            and form["redirect_uri"] == query.get("redirect_uri") == f"https://{HOST}{CALLBACK_ROUTE}"
        )
        if self.server.is_broken or not is_right:
            self._say({"error": "invalid_grant"}, 400)
        else:
            self._say({"access_token": f"token-of-{account}", "token_type": "bearer"})

    def _say(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def space(provider: Provider, tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environment = SPACE | {"OPENID_PROVIDER_URL": provider.address, "PNEUMONET_REQUESTS_PER_MINUTE": "0"}
    settings = Settings.from_environment(environment)
    with serving(settings, lambda: tiny_model, tmp_path_factory.mktemp("space")) as running:
        yield running


def _cookie_of(answer: httpx.Response, name: str) -> str:
    for header in answer.headers.get_list("set-cookie"):
        if header.startswith(f"{name}=") and "Max-Age=0" not in header:
            # Of a Space in the Hub's frame, which is another site; no script may read it.
            assert {"secure", "httponly", "samesite=none"} <= set(header.lower().replace(" ", "").split(";"))
            return header.split(";")[0]
    return ""


def _begun(space: Running) -> tuple[str, str, str]:
    """Begin to sign in; returns where the visitor is sent, the state, and the cookie of the flow."""
    with space.http() as http:
        answer = http.get(LOGIN_ROUTE)
    assert answer.status_code == 303
    location = answer.headers["location"]
    return location, parse_qs(urlsplit(location).query)["state"][0], _cookie_of(answer, "pneumonet-login")


def _sign_in(space: Running, provider: Provider, account: str) -> httpx.Response:
    location, state, flow = _begun(space)
    with space.http() as http:
        query = {"code": provider.consent(location, account), "state": state}
        return http.get(CALLBACK_ROUTE, params=query, headers={"Cookie": flow})


@pytest.fixture(scope="module")
def session(space: Running, provider: Provider) -> str:
    answer = _sign_in(space, provider, "ada")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    return _cookie_of(answer, COOKIE)


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize("cookie", ["", f"{COOKIE}=ada", f"{COOKIE}=ImFkYSI.aaaa.bbbb"], ids=["none", "bare", "forged"])
def test_no_door_opens_to_whoever_is_not_signed_in(space: Running, method: str, path: str, cookie: str) -> None:
    with space.http() as http:
        answer = http.request(method, path, headers={"Cookie": cookie} if cookie else {})
    assert answer.status_code == 401
    # A browser would ask for a password that nobody has.
    assert "www-authenticate" not in answer.headers


def test_the_page_offers_the_sign_in_in_the_visitors_language(space: Running) -> None:
    with space.http() as http:
        page = http.get("/", headers={"Accept": "text/html", "Accept-Language": "de"})
    assert page.status_code == 401
    assert f'href="{LOGIN_ROUTE}"' in page.text
    assert '<html lang="de"' in page.text


def test_whoever_signs_in_is_answered_at_each_door(space: Running, session: str, good_film: bytes) -> None:
    own = {"Cookie": session, "Origin": f"https://{HOST}"}
    with httpx.Client(base_url=space.url, headers=own, timeout=60) as http:
        assert http.get("/config").status_code == 200
        assert http.post("/predict", files={"file": ("a.png", good_film)}).status_code == 200
        assert http.post("/gradio_api/upload", files={"files": ("a.png", good_film)}).status_code == 200
        assert http.get("/metrics", headers={"X-Forwarded-For": "203.0.113.5"}).status_code == 200
    with space.http() as http:
        assert http.get("/health").status_code == 200


def test_an_account_that_is_not_listed_is_told_so(space: Running, provider: Provider) -> None:
    answer = _sign_in(space, provider, "mallory")
    assert answer.status_code == 403
    assert "may not ask here" in answer.text
    assert not _cookie_of(answer, COOKIE)


@pytest.mark.parametrize(
    "query", [{}, {"code": "x"}, {"code": "x", "state": "another"}, {"state": ""}, {"error": "access_denied"}]
)
def test_a_flow_that_is_not_the_visitors_own_signs_nobody_in(space: Running, query: dict[str, str]) -> None:
    _, _, flow = _begun(space)
    with space.http() as http:
        for cookies in ({"Cookie": flow}, {}):
            answer = http.get(CALLBACK_ROUTE, params=query, headers=cookies)
            assert answer.status_code == 403
            assert not _cookie_of(answer, COOKIE)


def test_a_code_is_worth_nothing_without_the_browser_that_asked_for_it(space: Running, provider: Provider) -> None:
    location, _, _ = _begun(space)
    code = provider.consent(location, "ada")
    _, state, flow = _begun(space)
    with space.http() as http:
        answer = http.get(CALLBACK_ROUTE, params={"code": code, "state": state}, headers={"Cookie": flow})
    assert answer.status_code == 403


def test_a_provider_that_fails_is_a_sentence(
    space: Running, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "is_broken", True)
    answer = _sign_in(space, provider, "ada")
    assert answer.status_code == 403
    assert "did not say who you are" in answer.text


def test_strangers_who_begin_cost_the_provider_nothing(space: Running, provider: Provider) -> None:
    _begun(space)
    provider.asked.clear()
    for _ in range(5):
        _begun(space)
    assert provider.asked == []


def test_a_slow_provider_is_asked_once_for_all_who_wait_and_anew_after_it_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings.from_environment(SPACE).oauth
    assert settings is not None
    asked = 0
    answers: list[Any] = [SignInError("down"), {"authorization_endpoint": "https://hf.example/a"}]
    whole = {f"{name}_endpoint": f"https://hf.example/{name}" for name in ("authorization", "token", "userinfo")}

    async def ask(*_: Any, **__: Any) -> Any:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        answer = answers.pop(0) if answers else whole
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("pneumonet.web.oauth._asked", ask)

    async def begin() -> None:
        sign_in = SignIn(settings)
        # The first fails, the second lacks what is needed: neither is kept.
        for count in (1, 2):
            failed = await asyncio.gather(*(sign_in.begin() for _ in range(3)), return_exceptions=True)
            assert [type(error) for error in failed] == [SignInError] * 3
            assert asked == count
        for _ in range(3):
            begun = await asyncio.gather(sign_in.begin(), sign_in.begin())
            assert [answer.status_code for answer in begun] == [303] * 2
        assert asked == 3
        monkeypatch.setattr(sign_in, "_metadata_until", 0.0)
        assert (await sign_in.begin()).status_code == 303
        assert asked == 4

    asyncio.run(begin())


def test_signing_in_has_the_rate_of_an_address(provider: Provider, tiny_model: PneumoNet, tmp_path: Path) -> None:
    environment = SPACE | {"OPENID_PROVIDER_URL": provider.address, "PNEUMONET_REQUESTS_PER_MINUTE": "12"}
    settings = Settings.from_environment(environment)
    with serving(settings, lambda: tiny_model, tmp_path) as server, server.http() as http:
        asked = [http.get(path) for path in (LOGIN_ROUTE, CALLBACK_ROUTE, LOGIN_ROUTE, LOGIN_ROUTE, CALLBACK_ROUTE)]
        assert [answer.status_code for answer in asked] == [303, 403, 303, 429, 429]
        assert int(asked[-1].headers["retry-after"]) > 0
        # Whoever is told to sign in is told so at any pace.
        assert http.get("/").status_code == 401


def test_a_session_ends(space: Running, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with space.http() as http:
        gone = http.post(LOGOUT_ROUTE, headers={"Cookie": session, "Origin": f"https://{HOST}"})
        assert gone.status_code == 303
        assert f"{COOKIE}=" in gone.headers["set-cookie"]
        assert "Max-Age=0" in gone.headers["set-cookie"]
        monkeypatch.setattr("pneumonet.web.oauth._SESSION_SECONDS", -1)
        assert http.get("/config", headers={"Cookie": session}).status_code == 401


def test_a_cookie_of_another_purpose_or_another_secret_signs_nobody_in(space: Running) -> None:
    for secret, salt in ((SECRET, "flow"), ("another", "session")):
        forged = URLSafeTimedSerializer(secret, salt=salt).dumps("ada")
        with space.http() as http:
            assert http.get("/config", headers={"Cookie": f"{COOKIE}={forged}"}).status_code == 401


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
def test_another_site_cannot_send_with_the_visitors_cookie(
    space: Running, session: str, good_film: bytes, origin: str | None
) -> None:
    # The cookie travels by itself, and an old browser does not say in Sec-Fetch-Site who sends it.
    headers = {"Cookie": session} | ({"Origin": origin} if origin else {})
    with space.http() as http:
        answer = http.post("/predict", files={"file": ("a.png", good_film)}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "other_site")


@pytest.mark.parametrize("lacking", ["SPACE_ID", "SPACE_HOST", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET"])
def test_a_list_of_accounts_without_a_sign_in_is_no_open_door(lacking: str) -> None:
    with pytest.raises(ConfigError, match="PNEUMONET_OAUTH_USERS"):
        Settings.from_environment({name: value for name, value in SPACE.items() if name != lacking})


def test_the_secret_stays_out_of_sight(tmp_path: Path) -> None:
    assert SECRET not in repr(Settings.from_environment(SPACE))
    assert Settings.from_environment({"SPACE_ID": "org/space"}).oauth is None
