"""What every request passes first: an id, a bound on its body, and words where something fails."""

import asyncio
import logging
import traceback
from typing import Final
from urllib.parse import quote

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumonet.errors import InternalError, ModelUnavailableError
from pneumonet.web.answers import error_response
from pneumonet.web.service import new_request_id
from pneumonet.web.uploads import UPLOAD_ROUTE

logger = logging.getLogger("pneumonet.server")

_GRADIO: Final = "/gradio_api/"
# Parts of Gradio that the page does not use, and that would write to disk, run code or reach other servers.
_CLOSED_NAMES: Final = "deep_link process_recording proxy= file=http file/http vibe- undo-vibe runs run-history"
_CLOSED: Final = tuple(_GRADIO + name for name in _CLOSED_NAMES.split(" "))
_UNFORESEEN: Final = InternalError("Something went wrong on our side.")
_STOPPING: Final = ModelUnavailableError("The server is stopping.", hint="Try again in a minute.")


class RequestGate:
    """Give each request an id, bound its body, close what is not offered, and answer failures in words."""

    def __init__(self, app: ASGIApp, root_path: str, most_bytes: int, names: frozenset[str]) -> None:
        self.app, self.root_path, self.most_bytes, self.names = app, root_path, most_bytes, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it (the ASGI interface)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, begun, ended = new_request_id(), False, False
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            nonlocal begun, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        if self.root_path and scope["path"].startswith(self.root_path + "/"):
            # Some proxies strip the prefix and some do not; from here on all have.
            path = scope["path"].removeprefix(self.root_path)
            scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        refusal = self._refusal(scope["path"], request_id)
        if refusal is not None:
            await refusal(scope, receive, send_with_id)
            return
        # Our own routes count for themselves.
        gradios = scope["path"].startswith(_GRADIO) and scope["path"] != UPLOAD_ROUTE
        bounded = self._bounded(receive) if gradios else receive
        try:
            await self.app(scope, bounded, send_with_id)
        except asyncio.CancelledError:
            # Only a server that stops cancels: what is open ends here, without a traceback in the log.
            if not begun:
                await error_response(_STOPPING, request_id)(scope, receive, send_with_id)
            elif not ended:
                await send({"type": "http.response.body"})
        except Exception as error:
            # Gradio's messages may hold paths and values: the kind and the place say enough.
            place = "".join(traceback.format_tb(error.__traceback__))
            logger.error("request=%s failed with %s at\n%s", request_id, type(error).__name__, place)
            if not begun:
                await error_response(_UNFORESEEN, request_id)(scope, receive, send_with_id)

    def _refusal(self, path: str, request_id: str) -> JSONResponse | None:
        if path.startswith(_CLOSED):
            return _not_found("This server does not offer that.", request_id)
        asked = path.removeprefix(_GRADIO).split("/")
        # The name follows /call/ or /call/v2/; without this Gradio fails with a traceback.
        name = asked[2] if asked[:2] == ["call", "v2"] and len(asked) > 2 else asked[1] if len(asked) > 1 else ""
        if path.startswith(_GRADIO) and asked[0] in ("call", "run", "api") and name not in self.names:
            return _not_found("There is no endpoint of that name.", request_id)
        return None

    def _bounded(self, receive: Receive) -> Receive:
        count = 0

        async def bounded() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.most_bytes:
                raise HTTPException(413, "The request is too large.")
            return message

        return bounded


def _not_found(sentence: str, request_id: str) -> JSONResponse:
    hint = "See GET /api for what it offers."
    body = {"error": sentence, "code": "not_found", "hint": hint, "request_id": request_id}
    return JSONResponse(body, status_code=404)
