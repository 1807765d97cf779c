"""What POST /predict and GET /report do: an answer or a report, for as long as its caller is there."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import datetime, timezone
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from pneumonet.errors import AdmissionError
from pneumonet.finding import Finding
from pneumonet.rendering import data_uri, overlay
from pneumonet.reports import ReportFormat
from pneumonet.web.answers import NO_STORE, milliseconds_since, refusals_logged, request_id_of
from pneumonet.web.bodies import Question, read_question
from pneumonet.web.held import Answered
from pneumonet.web.languages import language_asked, spoken
from pneumonet.web.reporting import REPORT_ROUTE, ReportMaker, wanted_report, without_pixels
from pneumonet.web.service import Drawn, Service
from pneumonet.web.tracing import trace_of


async def answered(service: Service, reports: ReportMaker, request: Request, request_id: str) -> Response:
    """Answer POST /predict, plainly or with the report that it asks for.

    Raises:
        PneumoNetError: Whatever went wrong.
        ClientDisconnect: If the caller has gone.
    """
    started = time.perf_counter()
    with refusals_logged(request_id, "rest"):
        asked = await read_question(request, service.settings.max_upload_bytes)
        kind = wanted_report(request)
    if kind is None:
        return await _while_connected(request, _plain(service, asked, request, request_id, started))
    return await _while_connected(request, _reported(service, reports, kind, asked, request, request_id))


async def _plain(service: Service, asked: Question, request: Request, request_id: str, started: float) -> Response:
    def draw(finding: Finding) -> str | None:
        return None if asked.disable_cam else data_uri(overlay(finding))

    finding, picture = await _outcome(service, asked, request, request_id, draw)
    language = language_asked(request)
    return JSONResponse(
        finding.answer(request_id, milliseconds_since(started), language) | {"gradcam_image": picture},
        headers=NO_STORE | spoken(language),
    )


async def _reported(
    service: Service, reports: ReportMaker, kind: ReportFormat, asked: Question, request: Request, request_id: str
) -> Response:
    # The film and its report are one request, which a proxy waits for once.
    deadline = time.monotonic() + service.settings.request_seconds
    outcome: Finding | AdmissionError
    try:
        # The report has pictures of its own, drawn in its own turn.
        outcome, _ = await _outcome(service, asked, request, request_id, lambda finding: None)
    except AdmissionError as error:
        outcome = without_pixels(error)
    status = 200 if isinstance(outcome, Finding) else outcome.http_status
    said_of_it = Answered(asked.film, outcome, request_id, datetime.now(timezone.utc))
    # The film has its line in the log; that its report was refused is another matter.
    with refusals_logged(request_id, "rest"):
        return await reports.response(
            kind, said_of_it, language_asked(request), frame=asked.frame, status=status, deadline=deadline
        )


def _outcome(
    service: Service, asked: Question, request: Request, request_id: str, draw: Callable[[Finding], Drawn]
) -> Coroutine[Any, Any, tuple[Finding, Drawn]]:
    return service.answer(
        asked.film,
        draw=draw,
        request_id=request_id,
        door="rest",
        frame=asked.frame,
        force=asked.force,
        saliency=not asked.disable_cam,
        trace=trace_of(request),
    )


async def reported_later(
    service: Service, reports: ReportMaker, kind: ReportFormat, answered: Answered, request: Request
) -> Response:
    """Answer GET /report: a report of an answer that the page shows.

    Raises:
        PneumoNetError: Whatever went wrong.
        ClientDisconnect: If the caller has gone.
    """
    with refusals_logged(request_id_of(request), "rest", REPORT_ROUTE):
        service.check_open()
        return await _while_connected(request, reports.response(kind, answered, language_asked(request)))


async def _while_connected(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """Await an answer, and give it up where its caller hangs up: nobody's film is to keep others waiting.

    Raises:
        ClientDisconnect: If the caller has gone.
    """
    answering, leaving = asyncio.create_task(answer), asyncio.create_task(_leaving(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return await answering
    finally:
        answering.cancel()
        leaving.cancel()


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
