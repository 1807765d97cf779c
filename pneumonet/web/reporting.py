"""Reports over HTTP: which one a request asks for, making it, and those that the page offers of its answers."""

from dataclasses import replace
from datetime import datetime
from typing import Final

import anyio
import anyio.to_thread
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from pneumonet.errors import AdmissionError, BadRequestError, NotAcceptableError
from pneumonet.finding import NO_FILM, Finding
from pneumonet.radiograph import Radiograph
from pneumonet.reading import read_radiograph
from pneumonet.reports import FORMATS, ReportFormat, format_named, render
from pneumonet.reports.document import Report
from pneumonet.web.answers import NO_STORE
from pneumonet.web.held import Answered
from pneumonet.web.service import Service

REPORT_ROUTE: Final = "/report"
# What a caller may accept: the plain answer, and of reports the first of each media type.
_ANSWER_TYPE: Final = "application/json"
_OFFERED: Final[dict[str, ReportFormat | None]] = {_ANSWER_TYPE: None}
for _kind in FORMATS.values():
    _OFFERED.setdefault(_kind.media_type, _kind)
# Reports are made outside the queue of films.
_AT_ONCE: Final = 2


def wanted_report(request: Request) -> ReportFormat | None:
    """Return the report that a request asks for, by `?format=` or else by Accept; None for the plain answer.

    Raises:
        BadRequestError: If there is no such format.
        NotAcceptableError: If Accept leaves nothing that is offered.
    """
    names = request.query_params.getlist("format")
    if len(names) > 1:
        raise BadRequestError("Expected one `format`.", hint="Ask once for each.")
    if names:
        return format_named(names[0])
    accepted = ",".join(request.headers.getlist("accept"))
    if not accepted.strip():
        return None
    shares = {media_type: _share(media_type, accepted) for media_type in _OFFERED}
    best = max(shares, key=lambda media_type: shares[media_type])
    if not shares[best]:
        raise NotAcceptableError(f"The request accepts none of {', '.join(_OFFERED)}.")
    return _OFFERED[best]


def _share(media_type: str, accepted: str) -> float:
    """Return how much a media type is wanted (RFC 9110, 12.5.1): what the range that fits it best says, else 0."""
    found = (-1, 0.0)
    for part in accepted.lower().split(","):
        pattern, *parameters = (piece.strip() for piece in part.split(";"))
        fits = (pattern == "*/*", pattern == f"{media_type.split('/')[0]}/*", pattern == media_type)
        if any(fits):
            found = max(found, (fits.index(True), _weight(parameters)))
    return found[1]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


class ReportMaker:
    """Makes reports in threads, a few at a time, in memory."""

    def __init__(self, service: Service) -> None:
        self._service, self._turns = service, anyio.CapacityLimiter(_AT_ONCE)

    async def response(
        self, kind: ReportFormat, data: bytes, outcome: Finding | AdmissionError, request_id: str, frame: int | None
    ) -> Response:
        """Return a report as the answer to the request that the film came with; a refused film's has status 422."""
        status = 200 if isinstance(outcome, Finding) else outcome.http_status

        def made() -> bytes:
            film = outcome.film if isinstance(outcome, Finding) else self._read(data, frame)
            return self._made(kind, data, outcome, film, request_id)

        return _download(kind, await anyio.to_thread.run_sync(made, limiter=self._turns), status)

    async def later(self, kind: ReportFormat, answered: Answered) -> Response:
        """Return a report of an answer that the page shows."""

        def made() -> bytes:
            film, outcome = self._read(answered.data, None), answered.outcome
            outcome = replace(outcome, film=film) if isinstance(outcome, Finding) else outcome
            return self._made(kind, answered.data, outcome, film, answered.request_id, answered.created)

        return _download(kind, await anyio.to_thread.run_sync(made, limiter=self._turns), 200)

    def _read(self, data: bytes, frame: int | None) -> Radiograph:
        return read_radiograph(data, frame=frame, limits=self._service.model.limits)

    def _made(
        self,
        kind: ReportFormat,
        data: bytes,
        outcome: Finding | AdmissionError,
        film: Radiograph,
        request_id: str,
        created: datetime | None = None,
    ) -> bytes:
        model = self._service.model
        when = {} if created is None else {"created": created}
        return render(Report(outcome, film, data, model.info, model.snapshot.config, request_id, **when), kind)


def _download(kind: ReportFormat, body: bytes, status: int) -> Response:
    disposition = f'attachment; filename="{kind.file_name}"'
    return Response(body, status, NO_STORE | {"Content-Disposition": disposition}, kind.media_type)


def without_pixels(outcome: Finding | AdmissionError) -> Finding | AdmissionError:
    """Return what to keep of an answer: all but its film."""
    return replace(outcome, film=NO_FILM) if isinstance(outcome, Finding) else outcome


def gone(request_id: str) -> JSONResponse:
    """Return the answer to a link whose film is no longer held."""
    body = {
        "error": "This report is no longer here: it goes with the film that the page held.",
        "code": "not_found",
        "hint": "Answer the film again.",
        "request_id": request_id,
    }
    return JSONResponse(body, status_code=404, headers=NO_STORE)
