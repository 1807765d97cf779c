"""What the web doors say: a finding, an error, and the line that the log gets of a refusal."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse

from pneumonet.errors import AdmissionError, FileTooLargeError, PneumoNetError
from pneumonet.finding import Finding
from pneumonet.web.service import new_request_id

logger = logging.getLogger("pneumonet.doors")

NO_STORE: Final = {"Cache-Control": "no-store"}


def as_answer(finding: Finding, request_id: str, started: float) -> dict[str, Any]:
    """Return the JSON object that every web door answers with.

    Args:
        finding: What the model says.
        request_id: As in the log.
        started: `time.perf_counter()` at the request's arrival.
    """
    duration = round((time.perf_counter() - started) * 1000, 1)
    return finding.to_dict() | {"timings": finding.timings, "request_id": request_id, "duration_ms": duration}


def as_error(error: PneumoNetError, request_id: str) -> dict[str, Any]:
    """Return the JSON object that every failed request answers with."""
    body: dict[str, Any] = {"error": error.message, "code": error.code, "hint": error.hint, "request_id": request_id}
    if isinstance(error, AdmissionError):
        body["reasons"] = [{"code": reason.code, "message": reason.message} for reason in error.reasons]
    return body


def error_response(error: PneumoNetError, request_id: str) -> JSONResponse:
    """Return an error as a response, with Retry-After where waiting helps."""
    headers = dict(NO_STORE)
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return JSONResponse(as_error(error, request_id), status_code=error.http_status, headers=headers)


def request_id_of(request: Request) -> str:
    """Return the id that the middleware gave the request."""
    return getattr(request.state, "request_id", None) or new_request_id()


def too_large(limit: int) -> FileTooLargeError:
    """Return the error for a film of more than `limit` bytes."""
    return FileTooLargeError(f"The file is larger than {limit / 1e6:g} MB, the most that this server takes.")


def log_refusal(request_id: str, door: str, code: str, started: float) -> None:
    """Log a request that got no further, in the line that every answer gets; `started` as in `as_answer`."""
    duration = (time.perf_counter() - started) * 1000
    logger.info("request=%s door=%s code=%s duration_ms=%.1f", request_id, door, code, duration)


@contextmanager
def refusals_logged(request_id: str, door: str) -> Iterator[None]:
    """Log an error that is raised before a film reaches the service, which logs every film that does."""
    started = time.perf_counter()
    try:
        yield
    except PneumoNetError as error:
        log_refusal(request_id, door, error.code, started)
        raise
