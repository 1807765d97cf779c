"""Reports over HTTP: which one a request asks for, making it, and those that the page offers of its answers."""

from dataclasses import replace
from typing import Final

from fastapi import Request
from fastapi.responses import Response

from pneumonet.errors import AdmissionError, BadRequestError, NotAcceptableError
from pneumonet.finding import NO_FILM, Finding
from pneumonet.language import Language, said
from pneumonet.reading import read_radiograph
from pneumonet.reports import FORMATS, ReportFormat, format_named, render
from pneumonet.reports.document import Report
from pneumonet.web.answers import NO_STORE
from pneumonet.web.held import Answered
from pneumonet.web.languages import spoken
from pneumonet.web.service import Service

REPORT_ROUTE: Final = "/report"
GONE: Final = said("This report is no longer here: it goes with the film that the page held.")
ANSWER_AGAIN: Final = said("Answer the film again.")
# What a caller may accept: the plain answer, and of reports the first of each media type.
_ANSWER_TYPE: Final = "application/json"
_OFFERED: Final[dict[str, ReportFormat | None]] = {_ANSWER_TYPE: None}
for _kind in FORMATS.values():
    _OFFERED.setdefault(_kind.media_type, _kind)


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
    """Makes reports in threads, each in its turn, in memory."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def response(
        self,
        kind: ReportFormat,
        answered: Answered,
        language: Language,
        *,
        frame: int | None = None,
        status: int = 200,
        deadline: float | None = None,
    ) -> Response:
        """Return a report of an answer, whose film is read once more when the report's turn comes.

        Args:
            kind: Which report.
            answered: What was said, without the film's pixels: many wait here, and pixels are a hundred megabytes.
            language: What the report is written in.
            frame: As it was asked with the film.
            status: Of the response.
            deadline: As in `Turns.run`.

        Raises:
            BusyError: If too many reports wait.
            TookTooLongError: If it is not made in time.
        """
        body = await self._service.reports.run(lambda: self._made(kind, answered, language, frame), deadline=deadline)
        return _download(kind, body, status, language)

    def _made(self, kind: ReportFormat, answered: Answered, language: Language, frame: int | None) -> bytes:
        model, outcome = self._service.model, answered.outcome
        film = read_radiograph(answered.data, frame=frame, limits=model.limits)
        outcome = replace(outcome, film=film) if isinstance(outcome, Finding) else outcome
        report = Report(
            outcome,
            film,
            answered.data,
            model.info,
            model.snapshot.config,
            answered.request_id,
            answered.created,
            language,
        )
        return render(report, kind)


def is_there(kind: ReportFormat) -> Response:
    """Return the answer to whoever asks beforehand whether a report can be had: HEAD, and no report is made for it."""
    response = Response(headers=NO_STORE, media_type=kind.media_type)
    # It would have to be the report's.
    del response.headers["content-length"]
    return response


def _download(kind: ReportFormat, body: bytes, status: int, language: Language) -> Response:
    disposition = {"Content-Disposition": f'attachment; filename="{kind.file_name}"'}
    return Response(body, status, NO_STORE | spoken(language) | disposition, kind.media_type)


def without_pixels(outcome: Finding | AdmissionError) -> Finding | AdmissionError:
    """Return what to keep of an answer: all but its film, which a refusal's traceback holds as well."""
    return replace(outcome, film=NO_FILM) if isinstance(outcome, Finding) else AdmissionError(outcome.reasons)
