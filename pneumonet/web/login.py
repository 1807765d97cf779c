"""Who may ask: an optional login, HTTP Basic authentication (RFC 7617), pages of listed sites, and this machine."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers

from pneumonet.errors import NotLoggedInError, OtherSiteError
from pneumonet.language import said
from pneumonet.web.oauth import OPEN_PATHS, SignIn
from pneumonet.web.rates import RateLimit

# A load balancer asks it without a name, and it says nothing of any film.
OPEN_PATH: Final = "/health"
_READING: Final = ("GET", "HEAD", "OPTIONS")
_HTTP_PORT: Final = 80
_NAMES: Final = (
    "Ask for 127.0.0.1 or localhost, or have whoever runs the server list the name in PNEUMONET_ALLOWED_ORIGINS, such"
    " as http://reading-room:7860."
)
CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="PneumoNet", charset="UTF-8"'}


class Login:
    """The users and passwords of a server, and its sign-in; without either, everybody may ask."""

    def __init__(self, users: Mapping[str, str], guesses: RateLimit, sign_in: SignIn | None = None) -> None:
        """Take the passwords by user name, how many wrong ones a client may send, and who else is signed in."""
        self.sign_in, self._guesses = sign_in, guesses
        # A browser asks for a password where it reads the challenge: not where nobody has one.
        self.challenge = CHALLENGE if users else {}
        self._known = [f"{user}:{password}".encode() for user, password in users.items()]

    def check(self, method: str, path: str, headers: Headers, client: str) -> None:
        """Look at a request's Authorization and Cookie headers.

        Raises:
            NotLoggedInError: If they name nobody who may ask, and somebody is wanted.
            TooManyRequestsError: If they bring a password from a client that has sent too many wrong ones.
            OtherSiteError: If a cookie speaks for the caller, and nothing says that this server's page sent it.
        """
        if path == OPEN_PATH or not (self._known or self.sign_in):
            return
        if self._known and self._is_known(headers.get("authorization", ""), client):
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

    def _is_known(self, authorization: str, client: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        # Before anything is compared, and for right and wrong alike: else the answer would tell the right one.
        self._guesses.check(client)
        if self._is_right(given.strip()):
            return True
        self._guesses.take(client)
        return False

    def _is_right(self, given: str) -> bool:
        try:
            credentials = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            return False
        # Every one is compared, each in constant time, so that the time tells nothing of names or passwords.
        matches = [hmac.compare_digest(credentials, known) for known in self._known]
        return any(matches)


def check_host(host: str | None, port: int, allowed: Iterable[str]) -> None:
    """Refuse a browser that another site has sent to this machine under a name of its own (DNS rebinding).

    Its page is then of one site with this server's answers, and reads them. The browser has gone to the port that it
    names, so a proxy of this machine, which listens at another one, may pass on whatever name it is known by.

    Args:
        host: The Host header.
        port: Where the server listens, at a loopback address.
        allowed: The listed sites.

    Raises:
        OtherSiteError: If it names the port, and neither this machine, an address nor a listed site.
    """
    try:
        named = urlsplit(f"//{host or ''}")
        name, at = (named.hostname or "").rstrip("."), named.port or _HTTP_PORT
    except ValueError:
        name, at = "", port
    if host is None or at != port or name == "localhost" or name.endswith(".localhost") or _is_address(name):
        return
    if name not in {urlsplit(site).hostname for site in allowed}:
        # A program of a container or a proxy elsewhere comes here too, and no page has sent it.
        raise OtherSiteError("This server, which listens for its own machine, is not known by that name.", hint=_NAMES)


def is_loopback(host: str) -> bool:
    """Return whether a server at an address is reached from its own machine alone."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


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
