"""What POST /predict and GET /report do: an answer or a report, for as long as its caller is there."""

import asyncio
import time
from collections.abc import Coroutine
from datetime import datetime, timezone
from typing import Any

import anyio.to_thread
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from pneumonet.errors import AdmissionError
from pneumonet.finding import Finding
from pneumonet.language import Language
from pneumonet.rendering import data_uri, overlay
from pneumonet.reports import ReportFormat
from pneumonet.web.answers import NO_STORE, milliseconds_since, refusals_logged, request_id_of
from pneumonet.web.bodies import Question, read_question
from pneumonet.web.held import Answered
from pneumonet.web.languages import language_asked, spoken
from pneumonet.web.reporting import REPORT_ROUTE, ReportMaker, wanted_report, without_pixels
from pneumonet.web.service import Service


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
    language = language_asked(request)
    if kind is None:
        return await _while_connected(request, _plain(service, asked, request_id, language, started))
    return await _while_connected(request, _reported(service, reports, kind, asked, request_id, language))


async def _plain(service: Service, asked: Question, request_id: str, language: Language, started: float) -> Response:
    finding = await _outcome(service, asked, request_id)
    picture = None if asked.disable_cam else await anyio.to_thread.run_sync(lambda: data_uri(overlay(finding)))
    return JSONResponse(
        finding.answer(request_id, milliseconds_since(started), language) | {"gradcam_image": picture},
        headers=NO_STORE | spoken(language),
    )


async def _reported(
    service: Service, reports: ReportMaker, kind: ReportFormat, asked: Question, request_id: str, language: Language
) -> Response:
    outcome: Finding | AdmissionError
    try:
        outcome = without_pixels(await _outcome(service, asked, request_id))
    except AdmissionError as error:
        outcome = without_pixels(error)
    status = 200 if isinstance(outcome, Finding) else outcome.http_status
    said_of_it = Answered(asked.film, outcome, request_id, datetime.now(timezone.utc))
    # The film has its line in the log; that its report was refused is another matter.
    with refusals_logged(request_id, "rest"):
        return await reports.response(kind, said_of_it, language, frame=asked.frame, status=status)


def _outcome(service: Service, asked: Question, request_id: str) -> Coroutine[Any, Any, Finding]:
    return service.answer(
        asked.film,
        request_id=request_id,
        door="rest",
        frame=asked.frame,
        force=asked.force,
        saliency=not asked.disable_cam,
    )


async def reported_later(reports: ReportMaker, kind: ReportFormat, answered: Answered, request: Request) -> Response:
    """Answer GET /report: a report of an answer that the page shows.

    Raises:
        PneumoNetError: Whatever went wrong.
        ClientDisconnect: If the caller has gone.
    """
    with refusals_logged(request_id_of(request), "rest", REPORT_ROUTE):
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
