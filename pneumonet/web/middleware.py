"""What every request passes first: an id, a bound on its body, and words where something fails."""

import asyncio
import json
import time
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumonet.errors import BadRequestError, FileTooLargeError, ModelUnavailableError, NotLoggedInError, PneumoNetError
from pneumonet.settings import Settings
from pneumonet.web.answers import as_error, error_response, log_refusal, text_response, unforeseen
from pneumonet.web.bodies import read_body
from pneumonet.web.login import CHALLENGE, Login, check_site
from pneumonet.web.metrics import Metrics, route_of
from pneumonet.web.rates import RateLimit
from pneumonet.web.request_id import new_request_id
from pneumonet.web.rest import METHODS
from pneumonet.web.uploads import UPLOAD_ROUTE

_GRADIO: Final = "/gradio_api/"
_CALL: Final = _GRADIO + "call/v2/"
# Films go to routes of our own, which bound their bodies. What Gradio's take is a path and a choice or two.
_FILM_ROUTES: Final = (UPLOAD_ROUTE, "/predict")
_BODY_BYTES: Final = 64 * 1024
_DEPTH: Final = 32
# Parts of Gradio that the page does not use, and that would write to disk, run code or reach other servers.
_CLOSED_NAMES: Final = (
    "deep_link process_recording component_server stream proxy= file=http file/http vibe- undo-vibe runs run-history"
)
_CLOSED: Final = tuple(_GRADIO + name for name in _CLOSED_NAMES.split(" "))
# A Space shows its page inside the Hub's; nobody else may lay a page of theirs around ours.
_SELF: Final = "frame-ancestors 'self'"
_SPACE: Final = f"{_SELF} https://huggingface.co"
_STOPPING: Final = ModelUnavailableError("The server is stopping.", hint="Try again in a minute.")
_CODES: Final = {404: "not_found", 405: BadRequestError.code}


class RequestGate:
    """Give each request an id, bound its body, close what is not offered, and answer failures in words."""

    def __init__(self, app: ASGIApp, settings: Settings, page: Any, metrics: Metrics) -> None:
        self.app, self.settings, self.root_path, self.metrics = app, settings, settings.root_path, metrics
        self.rates, self.login = RateLimit(settings.requests_per_minute), Login(settings.users)
        self.embedding = _SPACE if settings.is_space else _SELF
        self.events = frozenset(page.fns)
        self.names = frozenset(str(fn.api_name) for fn in page.fns.values())
        # Of each public endpoint, its arguments and whether each may be left out.
        self.arguments = {
            name.strip("/"): {p["parameter_name"]: p.get("parameter_has_default", False) for p in info["parameters"]}
            for name, info in page.get_api_info()["named_endpoints"].items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it (the ASGI interface)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, started, begun, ended = new_request_id(), time.perf_counter(), False, False
        scope.setdefault("state", {})["request_id"] = request_id
        if self.root_path and scope["path"].startswith(self.root_path + "/"):
            # Some proxies strip the prefix and some do not; from here on all have.
            path = scope["path"].removeprefix(self.root_path)
            scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        path = scope["path"]
        door = "gradio" if path.startswith(_GRADIO) else "rest"

        async def send_with_id(message: Message) -> None:
            nonlocal begun, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                begun = True
                self.metrics.responded(path, message["status"], time.perf_counter() - started)
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = self.embedding
                if message["status"] == NotLoggedInError.http_status:
                    headers.update(CHALLENGE)
                if message["status"] in _CODES:
                    log_refusal(request_id, door, _CODES[message["status"]], started, route_of(path))
            await send(message)

        try:
            self._check_caller(scope, path)
            answer = self._refusal(path, scope["method"], request_id)
            if answer is None and path not in _FILM_ROUTES and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
                body = await _small_body(Request(scope, receive))
                answer, receive = self._mistake(path, body, request_id), _replaying(body, receive)
            await (answer or self.app)(scope, receive, send_with_id)
        except PneumoNetError as error:
            log_refusal(request_id, door, error.code, started, route_of(path))
            # Gradio's clients show the text of a failed upload as it stands.
            told: Response = text_response(error) if path == UPLOAD_ROUTE else error_response(error, request_id)
            await told(scope, receive, send_with_id)
        except ClientDisconnect:
            log_refusal(request_id, door, BadRequestError.code, started, route_of(path))
        except asyncio.CancelledError:
            # Only a server that stops cancels: what is open ends here, without a traceback in the log.
            if not begun:
                await error_response(_STOPPING, request_id)(scope, receive, send_with_id)
            elif not ended:
                await send({"type": "http.response.body"})
        except Exception as error:
            if begun and isinstance(error.__cause__, HTTPException):
                # Gradio's streams begin before they look for what was asked, say so in an event, and break off.
                code = _CODES.get(error.__cause__.status_code, BadRequestError.code)
                log_refusal(request_id, door, code, started, route_of(path))
                if not ended:
                    await send({"type": "http.response.body"})
                return
            unknown = unforeseen(error, request_id)
            if not begun:
                await error_response(unknown, request_id)(scope, receive, send_with_id)

    def _check_caller(self, scope: Scope, path: str) -> None:
        headers, client = Headers(scope=scope), (scope["client"] or ("",))[0]
        if scope["method"] == "POST":
            self.rates.take(client)
        try:
            self.login.check(path, headers)
        except NotLoggedInError:
            # A guess costs as much as a film: passwords are not to be tried at full speed.
            self.rates.take(client)
            raise
        check_site(scope["method"], headers, self.settings.allowed_origins)

    def _refusal(self, path: str, method: str, request_id: str) -> JSONResponse | None:
        if method not in METHODS.get(path, (method,)):
            body = as_error(BadRequestError(f"{path} does not take this method."), request_id)
            return JSONResponse(body, status_code=405, headers={"Allow": ", ".join(METHODS[path])})
        if path.startswith(_CLOSED):
            return _not_found("This server does not offer that.", request_id)
        asked = path.removeprefix(_GRADIO).split("/")
        # The name follows /call/ or /call/v2/; without this Gradio fails with a traceback.
        name = asked[2] if asked[:2] == ["call", "v2"] and len(asked) > 2 else asked[1] if len(asked) > 1 else ""
        if path.startswith(_GRADIO) and asked[0] in ("call", "run", "api") and name not in self.names:
            return _not_found("There is no endpoint of that name.", request_id)
        return None

    def _mistake(self, path: str, body: bytes, request_id: str) -> JSONResponse | None:
        """Return the answer to a body that Gradio would fail at with a traceback, None for any other."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            # It may be no JSON by right; where it should be, Gradio says so.
            return None
        if _is_deep(fields):
            raise BadRequestError("The JSON body is nested too deeply.")
        if not isinstance(fields, dict):
            return None
        if path == _GRADIO + "queue/join" and _whole(fields.get("fn_index")) not in self.events | {None}:
            return _not_found("There is no event of that number.", request_id)
        if path.startswith(_CALL):
            arguments = self.arguments.get(path.removeprefix(_CALL).strip("/"))
            if arguments is None:
                return _not_found("There is no endpoint of that name.", request_id)
            needed = {name for name, optional in arguments.items() if not optional}
            if needed - fields.keys() or fields.keys() - {*arguments, "oauth_token"}:
                raise BadRequestError(f"Expected of the arguments {', '.join(arguments)} at least {', '.join(needed)}.")
        return None


async def _small_body(request: Request) -> bytes:
    error = FileTooLargeError("The request is larger than 64 kB.", hint=f"Send films to {UPLOAD_ROUTE} or /predict.")
    return b"".join([chunk async for chunk in read_body(request, _BODY_BYTES, error)])


def _replaying(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replaying() -> Message:
        return messages.pop() if messages else await receive()

    return replaying


def _whole(value: Any) -> Any:
    # Pydantic takes these for whole numbers, and so must whoever looks before it does.
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEPTH):
        nested = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = [item for items in nested for item in items]
    return bool(level)


def _not_found(sentence: str, request_id: str) -> JSONResponse:
    hint = "See GET /api for what it offers."
    body = {"error": sentence, "code": "not_found", "hint": hint, "request_id": request_id}
    return JSONResponse(body, status_code=404)
