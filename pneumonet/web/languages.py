"""Which language a request is answered in.

`?lang=` first, then what the visitor chose on the page (a cookie), then Accept-Language, then English. What programs
read, codes and names among it, is the same in every language.
"""

from contextvars import ContextVar
from typing import Any, Final

from starlette.requests import cookie_parser

from pneumonet.language import ENGLISH, Language, language_accepted, language_named

COOKIE: Final = "pneumonet-language"
# Of the request that is being answered: Gradio makes the page without handing the request on.
current_language: ContextVar[Language] = ContextVar("current_language", default=ENGLISH)


def language_asked(request: Any) -> Language:
    """Return the language to answer a request in.

    Args:
        request: A starlette.requests.Request or a gradio.Request; what its event's page was asked with counts.
    """
    headers = request.headers
    chosen = language_named(request.query_params.get("lang") or "")
    chosen = chosen or language_named(cookie_parser(headers.get("cookie") or "").get(COOKIE, ""))
    return chosen or language_accepted(headers.get("accept-language") or "")


def spoken(language: Language) -> dict[str, str]:
    """Return the headers of an answer that say its language and what it hung on (RFC 9110, 8.5 and 12.5.5)."""
    return {"Content-Language": language.tag, "Vary": "Accept-Language, Cookie"}
