"""Who may ask: an optional login, HTTP Basic authentication (RFC 7617), pages of listed sites, and this machine."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final

from fastapi import Request
from starlette.datastructures import Headers

from pneumonet.errors import NotLoggedInError, OtherSiteError
from pneumonet.language import said
from pneumonet.web.oauth import OPEN_PATHS, SignIn

# A load balancer asks it without a name, and it says nothing of any film.
OPEN_PATH: Final = "/health"
_READING: Final = ("GET", "HEAD", "OPTIONS")
CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="PneumoNet", charset="UTF-8"'}


class Login:
    """The users and passwords of a server, and its sign-in; without either, everybody may ask."""

    def __init__(self, users: Mapping[str, str], sign_in: SignIn | None = None) -> None:
        """Take the passwords by user name, and who else is signed in."""
        self.sign_in = sign_in
        # A browser asks for a password where it reads the challenge: not where nobody has one.
        self.challenge = CHALLENGE if users else {}
        self._known = [f"{user}:{password}".encode() for user, password in users.items()]

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Look at a request's Authorization and Cookie headers.

        Raises:
            NotLoggedInError: If they name nobody who may ask, and somebody is wanted.
            OtherSiteError: If a cookie speaks for the caller, and nothing says that this server's page sent it.
        """
        if path == OPEN_PATH or not (self._known or self.sign_in):
            return
        if self._known and self._is_known(headers.get("authorization", "")):
            return
        if self.sign_in is None:
            raise NotLoggedInError(said("This server wants a user name and a password."))
        if path in OPEN_PATHS:
            return
        if self.sign_in.user_of(headers.get("cookie", "")) is None:
            raise NotLoggedInError(
                said("This server answers listed accounts only."), hint=said("Sign in with Hugging Face.")
            )
        # A cookie travels by itself, whoever sends the request.
        is_vouched = "sec-fetch-site" in headers or self.sign_in.is_own_page(headers.get("origin"))
        if method not in _READING and not is_vouched:
            raise OtherSiteError(said("Another site's page sent this request."))

    def _is_known(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        try:
            credentials = base64.b64decode(given.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        # Every one is compared, each in constant time, so that the time tells nothing of names or passwords.
        matches = [hmac.compare_digest(credentials, known) for known in self._known]
        return scheme.lower() == "basic" and any(matches)


def check_site(method: str, headers: Headers, allowed: Iterable[str]) -> None:
    """Refuse what another site's page sends in a visitor's name.

    CORS alone keeps such a page from reading the answer, not from sending a form with a film and the visitor's login.
    Browsers say in Sec-Fetch-Site where a request comes from, whatever host names a proxy has put in.

    Raises:
        OtherSiteError: If it comes from another site's page that is not listed.
    """
    is_other = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if is_other and method not in _READING and headers.get("origin") not in tuple(allowed):
        raise OtherSiteError(said("Another site's page sent this request."))


def is_of_this_machine(request: Request) -> bool:
    """Return whether a request comes from the machine that the server runs on, and not by way of a proxy there."""
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    # A socket that takes both kinds shows an address of the older kind in one of the newer.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
