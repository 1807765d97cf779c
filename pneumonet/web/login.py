"""Who may ask: an optional login, HTTP Basic authentication (RFC 7617), and pages of listed sites alone."""

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

from starlette.datastructures import Headers

from pneumonet.errors import NotLoggedInError, OtherSiteError

# A load balancer asks it without a name, and it says nothing of any film.
OPEN_PATH: Final = "/health"
CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="PneumoNet", charset="UTF-8"'}


class Login:
    """The users and passwords of a server; without any, everybody may ask."""

    def __init__(self, users: Mapping[str, str]) -> None:
        """Take the passwords by user name."""
        self._known = [f"{user}:{password}".encode() for user, password in users.items()]

    def check(self, path: str, headers: Headers) -> None:
        """Look at a request's Authorization header.

        Raises:
            NotLoggedInError: If it names no user with the password, and one is wanted.
        """
        if self._known and path != OPEN_PATH and not self._is_known(headers.get("authorization", "")):
            raise NotLoggedInError("This server wants a user name and a password.")

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
    if is_other and method not in ("GET", "HEAD", "OPTIONS") and headers.get("origin") not in tuple(allowed):
        raise OtherSiteError("Another site's page sent this request.")
