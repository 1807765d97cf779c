"""Sign in with Hugging Face on a Space: OAuth 2.0's code flow with PKCE (RFC 6749, 7636), for listed accounts.

Gradio's own login is not used: its session is invisible to the plain routes, off a Space it signs every visitor in as
the operator, and it keeps the account's token in the cookie. Here the cookie holds the account's name and a time,
signed, and the token is forgotten at once.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from base64 import urlsafe_b64encode
from html import escape
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import cookie_parser

from pneumonet.errors import PneumoNetError, SignInError
from pneumonet.language import Language, said
from pneumonet.settings import OAuthSettings
from pneumonet.web.answers import NO_STORE
from pneumonet.web.languages import language_asked, spoken

LOGIN_ROUTE: Final = "/login/huggingface"
CALLBACK_ROUTE: Final = "/login/callback"
LOGOUT_ROUTE: Final = "/logout"
# Whoever is not signed in yet has to reach these.
OPEN_PATHS: Final = (LOGIN_ROUTE, CALLBACK_ROUTE)
COOKIE: Final = "pneumonet-session"
_FLOW_COOKIE: Final = "pneumonet-login"
_SESSION_SECONDS: Final = 8 * 3600
_FLOW_SECONDS: Final = 600
_PROVIDER_SECONDS: Final = 10
_METADATA_SECONDS: Final = 3600
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint")
_NOT_SAID: Final = said("Hugging Face did not say who you are.")

_log = logging.getLogger("pneumonet.oauth")


class SignIn:
    """Signs visitors in, and knows who is."""

    def __init__(self, settings: OAuthSettings) -> None:
        self._settings = settings
        self._sessions = URLSafeTimedSerializer(settings.client_secret, salt="session")
        self._flows = URLSafeTimedSerializer(settings.client_secret, salt="flow")
        self._back = f"https://{settings.host}{CALLBACK_ROUTE}"
        self._metadata_asked: asyncio.Task[dict[str, Any]] | None = None
        self._metadata_until = 0.0

    def user_of(self, cookies: str) -> str | None:
        """Return the account that a Cookie header is signed in as; None where there is none on the list.

        Args:
            cookies: The header.
        """
        name = _loaded(self._sessions, cookie_parser(cookies).get(COOKIE, ""), _SESSION_SECONDS)
        # Asked anew each time: whoever is taken off the list is out with the next start.
        return name if isinstance(name, str) and name in self._settings.users else None

    def is_own_page(self, origin: str | None) -> bool:
        """Return whether an Origin header names this Space."""
        return origin == f"https://{self._settings.host}"

    async def begin(self) -> Response:
        """Send the visitor to the provider."""
        metadata = await self._metadata()
        state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": self._settings.client_id,
            "redirect_uri": self._back,
            "response_type": "code",
            "scope": "openid profile",
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        answer = RedirectResponse(f"{metadata['authorization_endpoint']}?{urlencode(query)}", 303, NO_STORE)
        _set(answer, _FLOW_COOKIE, self._flows.dumps([state, verifier]), _FLOW_SECONDS)
        return answer

    async def end(self, request: Request) -> Response:
        """Take the visitor back from the provider, signed in.

        Raises:
            SignInError: If the provider or the visitor's browser says something else than was agreed, or the account
                is not on the list.
        """
        flow = _loaded(self._flows, request.cookies.get(_FLOW_COOKIE, ""), _FLOW_SECONDS)
        state, verifier = flow if isinstance(flow, list) and len(flow) == 2 else ("", "")
        given = request.query_params
        if not state or not secrets.compare_digest(state, given.get("state", "")) or not given.get("code"):
            raise SignInError(said("The sign-in was broken off, or took too long."))
        name = await self._name(given["code"], verifier)
        if name not in self._settings.users:
            raise SignInError(said("This account may not ask here."))
        answer = RedirectResponse("/", 303, NO_STORE)
        _set(answer, COOKIE, self._sessions.dumps(name), _SESSION_SECONDS)
        answer.delete_cookie(_FLOW_COOKIE)
        return answer

    async def _metadata(self) -> dict[str, Any]:
        # Strangers begin to sign in as they like, a slow provider is asked once for all who wait, and then not again
        # for an hour. What failed is asked anew.
        asked = self._metadata_asked
        if asked is None or time.monotonic() > self._metadata_until or (asked.done() and _has_failed(asked)):
            asked = self._metadata_asked = asyncio.create_task(_metadata_of(self._settings.provider))
            self._metadata_until = time.monotonic() + _METADATA_SECONDS
        # Whoever goes away does not take the answer from those who wait.
        return await asyncio.shield(asked)

    async def _name(self, code: str, verifier: str) -> str:
        metadata, settings = await self._metadata(), self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._back,
            "client_id": settings.client_id,
            "code_verifier": verifier,
        }
        basic = (settings.client_id, settings.client_secret)
        token = await _asked("POST", metadata["token_endpoint"], data=form, auth=basic)
        bearer = {"Authorization": f"Bearer {token.get('access_token')}"}
        return str((await _asked("GET", metadata["userinfo_endpoint"], headers=bearer)).get("preferred_username"))


async def _metadata_of(provider: str) -> dict[str, Any]:
    metadata = await _asked("GET", f"{provider}/.well-known/openid-configuration")
    if not all(isinstance(metadata.get(name), str) for name in _ENDPOINTS):
        raise SignInError(_NOT_SAID)
    return metadata


def _has_failed(asked: asyncio.Task[Any]) -> bool:
    return asked.cancelled() or asked.exception() is not None


async def _asked(method: str, address: str, **options: Any) -> dict[str, Any]:
    try:
        async with httpx2.AsyncClient(timeout=_PROVIDER_SECONDS) as client:
            answer = await client.request(method, address, **options)
            answer.raise_for_status()
            body = answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        # Its address holds no secret; its answer may.
        _log.warning("The provider's %s failed with %s.", address.partition("?")[0], type(error).__name__)
        raise SignInError(_NOT_SAID) from error
    if not isinstance(body, dict):
        raise SignInError(_NOT_SAID)
    return body


def _loaded(serializer: URLSafeTimedSerializer, value: str, seconds: int) -> Any:
    try:
        return serializer.loads(value, max_age=seconds)
    except BadSignature:
        return None


def _set(answer: Response, name: str, value: str, seconds: int) -> None:
    # A Space lies in a frame of the Hub's page, which is another site.
    answer.set_cookie(name, value, max_age=seconds, secure=True, httponly=True, samesite="none")


def sign_in_page(language: Language, error: PneumoNetError | None = None) -> HTMLResponse:
    """Return the page of a visitor who is not signed in.

    Args:
        language: Of its words.
        error: Why a sign-in failed.
    """
    why = f"<p role='alert'>{escape(language(error.told))}</p>" if error else ""
    link = language("Sign in with Hugging Face")
    note = language("This server answers listed accounts only. The sign-in opens in a tab of its own.")
    body = (
        f'<!doctype html><html lang="{language.tag}" dir="{language.direction}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>PneumoNet</title></head>'
        '<body style="background:Canvas;color:CanvasText;font:1rem/1.5 system-ui,sans-serif;max-width:40rem;'
        'margin:3rem auto;padding:0 1rem">'
        f"<main><h1>PneumoNet</h1>{why}<p>{escape(note)}</p>"
        # A frame of another site may keep no cookie: the tab is not in one.
        f'<p><a href="{LOGIN_ROUTE}" target="_blank">{escape(link)}</a></p></main></body></html>'
    )
    status = error.http_status if error else 401
    return HTMLResponse(body, status, NO_STORE | spoken(language))


def routes(sign_in: SignIn) -> APIRouter:
    """Return the routes of signing in and out."""
    router = APIRouter()

    async def answered(request: Request, step: Any) -> Response:
        try:
            answer: Response = await step
            return answer
        except SignInError as error:
            return sign_in_page(language_asked(request), error)

    @router.get(LOGIN_ROUTE, include_in_schema=False)
    async def login(request: Request) -> Response:
        return await answered(request, sign_in.begin())

    @router.get(CALLBACK_ROUTE, include_in_schema=False)
    async def callback(request: Request) -> Response:
        return await answered(request, sign_in.end(request))

    @router.post(LOGOUT_ROUTE, include_in_schema=False)
    async def logout() -> Response:
        answer = RedirectResponse("/", 303, NO_STORE)
        answer.delete_cookie(COOKIE, secure=True, httponly=True, samesite="none")
        return answer

    return router
