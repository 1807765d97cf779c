"""The plain HTTP routes: POST /predict, GET /health, GET /api, GET /metrics."""

import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any, Final

import psutil
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from pneumonet import __version__
from pneumonet.errors import BadRequestError, ConfigError, InputError, ModelUnavailableError, PneumoNetError
from pneumonet.finding import DISCLAIMER
from pneumonet.language import LANGUAGES
from pneumonet.reports import FORMATS as REPORTS
from pneumonet.reports.json_report import SCHEMA_FILE
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.web import metrics, schema
from pneumonet.web.answering import answered, reported_later
from pneumonet.web.answers import NO_STORE, error_response, fault, not_found, request_id_of
from pneumonet.web.gradio_routes import MCP_ROUTE
from pneumonet.web.held import offers
from pneumonet.web.installing import PATHS
from pneumonet.web.languages import language_asked
from pneumonet.web.login import is_of_this_machine
from pneumonet.web.reporting import ANSWER_AGAIN, GONE, REPORT_ROUTE, ReportMaker, is_there
from pneumonet.web.service import Service

SCHEMA_ROUTE: Final = "/schema/report.json"
# What each path takes; the gate refuses the rest, which Gradio's mount would answer in a shape of its own.
METHODS: Final = {
    "/predict": ("POST",),
    "/health": ("GET", "HEAD"),
    "/api": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
    "/openapi.json": ("GET", "HEAD"),
    SCHEMA_ROUTE: ("GET", "HEAD"),
    # Gradio's stream for what no client asked has nothing to say, and its page about MCP is another's.
    MCP_ROUTE: ("POST",),
    MCP_ROUTE + "/": ("POST",),
    **dict.fromkeys(PATHS, ("GET", "HEAD")),
}
_WHOSE_METRICS: Final = "Ask from the machine that it runs on, or have PNEUMONET_METRICS set to public."
FORMATS: Final = ("JPEG", "PNG", "TIFF", "WebP", "BMP", "DICOM")


async def answer_errors(request: Request, handle: Callable[[], Awaitable[Any]]) -> Any:
    """Return what `handle` does, or the error it raises as a response; an unforeseen one is logged."""
    request_id, started = request_id_of(request), time.perf_counter()
    try:
        return await handle()
    except (PneumoNetError, ClientDisconnect) as error:
        known = error if isinstance(error, PneumoNetError) else BadRequestError("The request was cut short.")
        return error_response(known, request_id, language_asked(request))
    except Exception as error:
        unknown = fault(error, request_id, "rest", started, metrics.route_of(request.url.path))
        return error_response(unknown, request_id, language_asked(request))


def health(service: Service) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and body of GET /health."""
    is_loaded = service.status == "healthy"
    healthy = is_loaded and not service.is_stuck
    body = {
        "status": "unhealthy" if is_loaded and not healthy else service.status,
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "models_loaded": is_loaded,
        "version": __version__,
        "model": service.model.info.to_dict() if is_loaded else None,
        "engine": service.engine if is_loaded else None,
        "memory_mib": round(psutil.Process().memory_info().rss / 2**20),
        "queue": {
            "length": service.films.present,
            "most": service.films.most,
            "oldest_seconds": round(service.oldest_seconds, 1),
        },
    }
    return 200 if healthy else 503, body


def error_kinds() -> list[dict[str, Any]]:
    """Return each error that a web door answers with, as the classes of `pneumonet.errors` state it."""
    kinds: list[dict[str, Any]] = []
    waiting: list[type[PneumoNetError]] = [PneumoNetError]
    while waiting:
        kind = waiting.pop(0)
        waiting.extend(kind.__subclasses__())
        if kind not in (PneumoNetError, InputError, ConfigError):
            meaning = (kind.__doc__ or "").split("\n")[0]
            kinds.append({"code": kind.code, "status": kind.http_status, "meaning": meaning, "hint": kind.default_hint})
    return sorted(kinds, key=lambda kind: (kind["status"], kind["code"]))


def describe(service: Service) -> dict[str, Any]:
    """Return what the service offers: the body of GET /api."""
    settings = service.settings
    options = {
        "disable_cam": "true for no heatmap; optional",
        "force": "true to answer a film that would be refused; optional",
        "frame": "which frame of several, from 0; optional",
    }
    film = f"the film, at most {settings.max_upload_bytes} bytes"
    return {
        "name": "PneumoNet",
        "version": __version__,
        "disclaimer": DISCLAIMER,
        "classes": list(CLASS_NAMES),
        "formats": list(FORMATS),
        "languages": {"ask": "?lang=de or Accept-Language", "tags": list(LANGUAGES)},
        "limits": {
            "max_upload_bytes": settings.max_upload_bytes,
            "max_pixels": settings.max_pixels,
            "max_waiting": settings.max_waiting,
            "request_seconds": settings.request_seconds,
            "requests_per_minute": settings.requests_per_minute or None,
            "open_requests": settings.open_requests or None,
        },
        "routes": [
            {"method": "POST", "path": "/predict", "type": "multipart/form-data", "fields": {"file": film} | options},
            {
                "method": "POST",
                "path": "/predict",
                "type": "application/json",
                "fields": {"file_data": f"base64 or a data URI of {film}"} | options,
            },
            {"method": "GET", "path": "/health", "answer": "200 when healthy, else 503, also where a film never ends"},
            {
                "method": "GET",
                "path": "/metrics",
                "answer": "counters in Prometheus' text format, not for every caller",
            },
            {"method": "GET", "path": "/api", "answer": "this description"},
            {"method": "GET", "path": "/openapi.json", "answer": "the OpenAPI schema of these routes"},
            {"method": "GET", "path": SCHEMA_ROUTE, "answer": "the JSON schema of the report as JSON"},
        ],
        "reports": [
            {"ask": f"POST /predict?format={kind.name}", "type": kind.media_type, "title": kind.title}
            for kind in REPORTS.values()
        ],
        "gradio": {
            "/predict": "file, force -> the finding and the heatmap laid over the film, a PNG file",
            "/explain": "file, force -> the finding and each heatmap as a PNG data URI, by source and class",
        },
        "mcp": f"{MCP_ROUTE}/, one tool: file, force -> the finding and the heatmap" if settings.mcp else None,
        "errors": error_kinds(),
    }


def routes(service: Service) -> APIRouter:
    """Return the plain HTTP routes."""
    router = APIRouter()
    reports = ReportMaker(service)

    @router.post("/predict", **schema.PREDICT)
    async def predict(request: Request) -> Any:
        return await answer_errors(request, lambda: answered(service, reports, request, request_id_of(request)))

    @router.head(REPORT_ROUTE + "/{token}/{name}", include_in_schema=False)
    @router.get(REPORT_ROUTE + "/{token}/{name}", include_in_schema=False)
    async def report(request: Request, token: str, name: str) -> Any:
        kind, offered = REPORTS.get(name), offers.get(token)
        if kind is None or offered is None:
            return not_found(GONE, ANSWER_AGAIN, request_id_of(request), language_asked(request))
        if request.method == "HEAD":
            return is_there(kind)
        return await answer_errors(request, lambda: reported_later(service, reports, kind, offered, request))

    @router.head(SCHEMA_ROUTE, include_in_schema=False)
    @router.get(SCHEMA_ROUTE, include_in_schema=False)
    async def report_schema() -> Response:
        return Response(SCHEMA_FILE.read_bytes(), media_type="application/schema+json")

    @router.head("/health", include_in_schema=False)
    @router.get("/health", **schema.HEALTH)
    async def get_health() -> JSONResponse:
        status, body = health(service)
        wait = {"Retry-After": str(ModelUnavailableError.retry_after_seconds)} if status != 200 else {}
        return JSONResponse(body, status_code=status, headers=NO_STORE | wait)

    @router.head("/metrics", include_in_schema=False)
    @router.get("/metrics", **schema.METRICS)
    async def get_metrics(request: Request) -> Response:
        settings = service.settings
        # Whoever got here where a login is wanted has one. On a Space nobody is of this machine, whatever address its
        # proxy passes on.
        is_here = not settings.is_space and is_of_this_machine(request)
        if not (settings.metrics == "public" or settings.users or settings.oauth or is_here):
            return not_found(
                "This server does not offer that.", _WHOSE_METRICS, request_id_of(request), language_asked(request)
            )
        return Response(service.metrics.exposition(), media_type=metrics.CONTENT_TYPE, headers=NO_STORE)

    @router.head("/api", include_in_schema=False)
    @router.get("/api", **schema.API)
    async def api() -> JSONResponse:
        return JSONResponse(describe(service))

    return router
