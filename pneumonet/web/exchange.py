"""One request and what is sent in answer to it: an id, headers, and words where something fails."""

import time
from collections.abc import Mapping
from typing import Final

from fastapi import Request
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from pneumonet.errors import BadRequestError, BusyError, NotLoggedInError, PneumoNetError
from pneumonet.web.answers import error_response, log_refusal, text_response
from pneumonet.web.gradio_routes import GRADIO, MCP_ROUTE
from pneumonet.web.languages import language_asked
from pneumonet.web.metrics import Metrics, route_of
from pneumonet.web.request_id import new_request_id
from pneumonet.web.uploads import UPLOAD_ROUTE

# What Gradio and Starlette answer in a shape of their own, and so without a line in the log.
CODES: Final = {404: "not_found", 405: BadRequestError.code}


class Exchange:
    """A request on its way through the gate.

    Attributes:
        scope: The request's, as ASGI has it.
        path: What it asks for.
        language: What it is answered in.
        request_id: Stands in the answer and in the log.
        begun: Whether anything of the answer has been sent.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        metrics: Metrics,
        embedding: str,
        challenge: Mapping[str, str],
    ) -> None:
        """Give a request an id.

        Args:
            scope: As ASGI has it.
            receive: As ASGI has it.
            send: As ASGI has it.
            metrics: Count the answer.
            embedding: The Content-Security-Policy, who may frame it.
            challenge: The headers of an answer to whoever is not logged in.
        """
        self.scope, self.path, self.language = scope, scope["path"], language_asked(Request(scope))
        self.request_id, self.begun, self._ended = new_request_id(), False, False
        self._receive, self._send, self._metrics, self._embedding, self._challenge = (
            receive,
            send,
            metrics,
            embedding,
            challenge,
        )
        self._started = time.perf_counter()
        self._door = _door_of(self.path)
        scope.setdefault("state", {})["request_id"] = self.request_id

    def log(self, code: str) -> None:
        """Log that the request got no further."""
        log_refusal(self.request_id, self._door, code, self._started, route_of(self.path))

    async def send(self, message: Message) -> None:
        """Send a piece of the answer (the ASGI interface), its headers with ours among them."""
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        if message["type"] == "http.response.start":
            self.begun = True
            self._metrics.responded(self.path, message["status"], time.perf_counter() - self._started)
            self._complete(message["status"], MutableHeaders(scope=message))
        await self._send(message)

    def _complete(self, status: int, headers: MutableHeaders) -> None:
        headers["X-Request-ID"] = self.request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Content-Security-Policy"] = self._embedding
        if status == NotLoggedInError.http_status:
            headers.update(self._challenge)
        if status in CODES:
            self.log(CODES[status])
        if status == BusyError.http_status and "retry-after" not in headers:
            headers["Retry-After"] = str(BusyError.retry_after_seconds)
            if self._door == "gradio":
                # Gradio's own queue is full: what we refuse says itself when to come back.
                self.log(BusyError.code)

    async def tell(self, error: PneumoNetError) -> None:
        """Answer with an error."""
        # Gradio's clients show the text of a failed upload as it stands.
        told: Response = (
            text_response(error, self.language)
            if self.path == UPLOAD_ROUTE
            else error_response(error, self.request_id, self.language)
        )
        await self.show(told)

    async def show(self, answer: Response) -> None:
        """Answer with a response."""
        await answer(self.scope, self._receive, self.send)

    async def end(self) -> None:
        """End an answer that breaks off."""
        if not self._ended:
            await self._send({"type": "http.response.body"})


def _door_of(path: str) -> str:
    return "mcp" if path.startswith(MCP_ROUTE) else "gradio" if path.startswith(GRADIO) else "rest"
