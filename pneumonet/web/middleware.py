"""What every request passes first: an id, a bound on its body, and words where something fails."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumonet.errors import (
    BadRequestError,
    BusyError,
    FileTooLargeError,
    NotLoggedInError,
    PneumoNetError,
)
from pneumonet.language import said
from pneumonet.settings import Settings
from pneumonet.web.agents import read_call
from pneumonet.web.answers import as_error, not_found, stopping, unforeseen
from pneumonet.web.bodies import read_body
from pneumonet.web.connections import SURPLUS
from pneumonet.web.exchange import CODES, Exchange
from pneumonet.web.gradio_routes import GRADIO, MCP_ROUTE, GradioRoutes
from pneumonet.web.languages import current_language
from pneumonet.web.login import OPEN_PATH, Login, check_host, check_site, is_loopback
from pneumonet.web.metrics import Metrics
from pneumonet.web.oauth import OPEN_PATHS as SIGN_IN_PATHS
from pneumonet.web.oauth import SignIn, sign_in_page
from pneumonet.web.rates import OpenRequests, RateLimit
from pneumonet.web.reporting import REPORT_ROUTE
from pneumonet.web.rest import METHODS
from pneumonet.web.uploads import UPLOAD_ROUTE

# Films go to routes of our own, which bound their bodies. What Gradio's take is a path and a choice or two.
_FILM_ROUTES: Final = (UPLOAD_ROUTE, "/predict")
_BODY_BYTES: Final = 64 * 1024
_READING: Final = ("GET", "HEAD", "OPTIONS")
# A browser asks for half a hundred of the page's scripts at once, and a hospital's browsers have one address: so many
# times as many of these may be open as of other requests.
_FILES: Final = ("/assets/", "/static/")
_FILES_OPEN: Final = 10
# What Gradio answers for one of its pages: ours has one.
_OF_A_PAGE: Final = ("/", GRADIO + "info", GRADIO + "info/")
# A Space shows its page inside the Hub's; nobody else may lay a page of theirs around ours.
_SELF: Final = "frame-ancestors 'self'"
_SPACE: Final = f"{_SELF} https://huggingface.co"
_FULL: Final = said("The server is slow or busy: try again in a few seconds, or send a smaller film.")
_OFFER: Final = "See GET /api for what it offers."


class RequestGate:
    """Give each request an id, bound its body, close what is not offered, and answer failures in words."""

    def __init__(self, app: ASGIApp, settings: Settings, page: Any, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        sign_in = SignIn(settings.oauth) if settings.oauth else None
        self.rates, guesses = (RateLimit(settings.requests_per_minute) for _ in range(2))
        self.login, self.gradio = Login(settings.users, guesses, sign_in), GradioRoutes(page)
        self.open, self.files = OpenRequests(settings.open_requests), OpenRequests(_FILES_OPEN * settings.open_requests)
        self.is_at_home = is_loopback(settings.host)
        self.embedding = _SPACE if settings.is_space else _SELF

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it (the ASGI interface)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = _of_the_one_page(_without_prefix(scope, self.settings.root_path))
        exchange = Exchange(scope, receive, send, self.metrics, self.embedding, self.login.challenge)
        current_language.set(exchange.language)
        try:
            await self._answer(exchange, receive)
        except NotLoggedInError as error:
            exchange.log(error.code)
            is_visitor = self.login.sign_in is not None and exchange.path == "/"
            await (exchange.show(sign_in_page(exchange.language)) if is_visitor else exchange.tell(error))
        except PneumoNetError as error:
            exchange.log(error.code)
            await exchange.tell(error)
        except ClientDisconnect:
            exchange.log(BadRequestError.code)
        except asyncio.CancelledError:
            # Only a server that stops cancels: what is open ends here, without a traceback in the log.
            await (exchange.end() if exchange.begun else exchange.tell(stopping()))
        except Exception as error:
            await _failed(exchange, error)

    async def _answer(self, exchange: Exchange, receive: Receive) -> None:
        scope, path = exchange.scope, exchange.path
        if scope["state"].get(SURPLUS) and path != OPEN_PATH:
            raise BusyError(_FULL, hint="")
        client = (scope["client"] or ("",))[0]
        with self._counted(path, client):
            self._check_caller(scope, path, client)
            query = Request(scope).query_params
            answer = _nothing(exchange, self.gradio.missing(path, query)) or _other_method(exchange)
            if answer is None and path not in _FILM_ROUTES and scope["method"] not in _READING:
                body = await self._body(path, Request(scope, receive))
                answer, receive = _nothing(exchange, self.gradio.missing_by(path, body)), _replaying(body, receive)
            await (answer or self.app)(scope, receive, exchange.send)

    def _counted(self, path: str, client: str) -> AbstractContextManager[None]:
        if path == OPEN_PATH:
            return nullcontext()
        return (self.files if path.startswith(_FILES) else self.open).another(client)

    async def _body(self, path: str, request: Request) -> bytes:
        if path.rstrip("/") == MCP_ROUTE:
            return await read_call(request, self.settings.max_upload_bytes)
        return await _small_body(request)

    def _check_caller(self, scope: Scope, path: str, client: str) -> None:
        headers, method = Headers(scope=scope), scope["method"]
        if self.is_at_home and scope["server"]:
            check_host(headers.get("host"), scope["server"][1], self.settings.allowed_origins)
        # A report costs what a film costs: it is read and drawn anew. A sign-in asks another server.
        is_costly = path.startswith(REPORT_ROUTE + "/") or path in SIGN_IN_PATHS
        if method == "POST" or (method == "GET" and is_costly):
            self.rates.take(client)
        self.login.check(method, path, headers, client)
        check_site(method, headers, self.settings.allowed_origins)


def _without_prefix(scope: Scope, prefix: str) -> Scope:
    # Some proxies strip the prefix and some do not; from here on all have.
    if not prefix or not scope["path"].startswith(prefix + "/"):
        return scope
    path = scope["path"].removeprefix(prefix)
    return {**scope, "path": path, "raw_path": quote(path).encode()}


def _of_the_one_page(scope: Scope) -> Scope:
    # Asked of no page or of one that there is not, Gradio fails, or keeps its answer to the first who asks for all who
    # come later, with the host in it that the first had named.
    if scope["path"] not in _OF_A_PAGE:
        return scope
    asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = [(name, value) for name, value in asked if name != "page"]
    return {**scope, "query_string": urlencode([*query, ("page", "")]).encode()}


def _other_method(exchange: Exchange) -> JSONResponse | None:
    path, method = exchange.path, exchange.scope["method"]
    if method in METHODS.get(path, (method,)):
        return None
    error = BadRequestError(f"{path} does not take this method.")
    body = as_error(error, exchange.request_id, exchange.language)
    return JSONResponse(body, status_code=405, headers={"Allow": ", ".join(METHODS[path])})


def _nothing(exchange: Exchange, why: str | None) -> JSONResponse | None:
    return None if why is None else not_found(why, _OFFER, exchange.request_id, exchange.language)


async def _failed(exchange: Exchange, error: Exception) -> None:
    if exchange.begun and isinstance(error.__cause__, HTTPException):
        # Gradio's streams begin before they look for what was asked, say so in an event, and break off.
        exchange.log(CODES.get(error.__cause__.status_code, BadRequestError.code))
        await exchange.end()
        return
    unknown = unforeseen(error, exchange.request_id)
    exchange.log(unknown.code)
    if not exchange.begun:
        await exchange.tell(unknown)


async def _small_body(request: Request) -> bytes:
    error = FileTooLargeError("The request is larger than 64 kB.", hint=f"Send films to {UPLOAD_ROUTE} or /predict.")
    return b"".join([chunk async for chunk in read_body(request, _BODY_BYTES, error)])


def _replaying(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replaying() -> Message:
        return messages.pop() if messages else await receive()

    return replaying
