"""An optional login before every door: HTTP Basic authentication (RFC 7617)."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Final

from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from pneumonet.errors import NotLoggedInError
from pneumonet.web.answers import as_error, log_refusal, request_id_of

# A load balancer asks it without a name, and it says nothing of any film.
_OPEN: Final = "/health"
_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="PneumoNet", charset="UTF-8"', "Cache-Control": "no-store"}


class Login:
    """Let a request pass whose Authorization header names a user and the password."""

    def __init__(self, app: ASGIApp, users: Mapping[str, str]) -> None:
        """Wrap an app.

        Args:
            app: What is behind the login.
            users: Passwords by user name.
        """
        self.app = app
        self._known = [f"{user}:{password}".encode() for user, password in users.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or ask who it is (the ASGI interface)."""
        if scope["type"] != "http" or scope["path"] == _OPEN or self._is_known(Request(scope)):
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(Request(scope))
        error = NotLoggedInError("This server wants a user name and a password.")
        log_refusal(request_id, "login", error.code)
        response = JSONResponse(as_error(error, request_id), status_code=error.http_status, headers=_CHALLENGE)
        await response(scope, receive, send)

    def _is_known(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            credentials = base64.b64decode(given.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        # Every one is compared, each in constant time, so that the time tells nothing of names or passwords.
        matches = [hmac.compare_digest(credentials, known) for known in self._known]
        return scheme.lower() == "basic" and any(matches)
