"""What the web doors say where there is no finding, and the line that the log gets of it."""

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse

from pneumonet.errors import AdmissionError, FileTooLargeError, InternalError, ModelUnavailableError, PneumoNetError
from pneumonet.language import Language, said
from pneumonet.web.languages import spoken
from pneumonet.web.logs import log_request
from pneumonet.web.metrics import TURNED_AWAY
from pneumonet.web.request_id import new_request_id

logger = logging.getLogger("pneumonet.doors")

NO_STORE: Final = {"Cache-Control": "no-store"}


def milliseconds_since(started: float) -> float:
    """Return the time since a `time.perf_counter()`."""
    return (time.perf_counter() - started) * 1000


def as_error(error: PneumoNetError, request_id: str, language: Language) -> dict[str, Any]:
    """Return the JSON object that every failed request answers with."""
    body = {"error": language(error.message), "code": error.code, "hint": language(error.hint)}
    answer: dict[str, Any] = body | {"request_id": request_id}
    if isinstance(error, AdmissionError):
        answer["reasons"] = [{"code": reason.code, "message": language(reason.message)} for reason in error.reasons]
    return answer


def error_response(error: PneumoNetError, request_id: str, language: Language) -> JSONResponse:
    """Return an error as a response, with Retry-After where waiting helps."""
    body, headers = as_error(error, request_id, language), _headers(error, language)
    return JSONResponse(body, status_code=error.http_status, headers=headers)


def text_response(error: PneumoNetError, language: Language) -> PlainTextResponse:
    """Return an error as plain text: what Gradio's clients show of a failed upload as it stands."""
    return PlainTextResponse(language(error.told), error.http_status, _headers(error, language))


def not_found(sentence: str, hint: str, request_id: str, language: Language) -> JSONResponse:
    """Return the answer to a request for what is not there."""
    body = {"error": language(sentence), "code": "not_found", "hint": language(hint), "request_id": request_id}
    return JSONResponse(body, status_code=404, headers=NO_STORE | spoken(language))


def _headers(error: PneumoNetError, language: Language) -> dict[str, str]:
    wait = error.retry_after_seconds
    return NO_STORE | spoken(language) | ({} if wait is None else {"Retry-After": str(wait)})


def request_id_of(request: Request) -> str:
    """Return the id that the middleware gave the request."""
    return getattr(request.state, "request_id", None) or new_request_id()


def too_large(limit: int) -> FileTooLargeError:
    """Return the error for a film of more than `limit` bytes."""
    return FileTooLargeError(
        said("The file is larger than {limit:g} MB, the most that this server takes.", limit=limit / 1e6)
    )


def stopping() -> ModelUnavailableError:
    """Return the error for who comes to a server that stops."""
    return ModelUnavailableError(said("The server is stopping."), hint=said("Try again in a minute."))


def log_refusal(request_id: str, door: str, code: str, started: float | None = None, route: str | None = None) -> None:
    """Log and count a request that got no further, in the line that every answer gets.

    Args:
        request_id: As in the answer.
        door: As in `log_request`.
        code: As in `log_request`.
        started: A `time.perf_counter()`.
        route: As in `log_request`.
    """
    TURNED_AWAY.labels(code).inc()
    log_request(request_id, door, code, 0.0 if started is None else milliseconds_since(started), route)


def unforeseen(error: Exception, request_id: str) -> InternalError:
    """Log an error that nobody foresaw, and return what its caller is told.

    Its message may hold what the caller sent, a patient's name among it: the kind and the place say enough.
    """
    place = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request=%s failed with %s at\n%s", request_id, type(error).__name__, place)
    return InternalError(said("Something went wrong on our side."))


def fault(
    error: Exception, request_id: str, door: str, started: float | None = None, route: str | None = None
) -> InternalError:
    """Log and count an error that nobody foresaw where the service, which does so itself, is not asked.

    Args:
        error: The error.
        request_id: As in `log_refusal`.
        door: As in `log_refusal`.
        started: As in `log_refusal`.
        route: As in `log_refusal`.

    Returns:
        What its caller is told.
    """
    unknown = unforeseen(error, request_id)
    log_refusal(request_id, door, unknown.code, started, route)
    return unknown


@contextmanager
def refusals_logged(request_id: str, door: str, route: str | None = None) -> Iterator[None]:
    """Log an error that is raised where the service, which logs every film that reaches it, is not asked."""
    started = time.perf_counter()
    try:
        yield
    except PneumoNetError as error:
        log_refusal(request_id, door, error.code, started, route)
        raise
