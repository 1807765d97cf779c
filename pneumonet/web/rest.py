"""The plain HTTP routes: POST /predict, GET /health, GET /api, and what they share with the other doors."""

import base64
import binascii
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from pneumonet import __version__
from pneumonet.errors import (
    AdmissionError,
    BadRequestError,
    ConfigError,
    EmptyFileError,
    FileTooLargeError,
    InputError,
    InternalError,
    NoFileError,
    PneumoNetError,
)
from pneumonet.finding import DISCLAIMER, Finding
from pneumonet.rendering import data_uri, overlay
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.web.service import Service, new_request_id

logger = logging.getLogger("pneumonet.rest")

FORMATS: Final = ("JPEG", "PNG", "TIFF", "WebP", "BMP", "DICOM")
# What may surround the film in a body: boundaries, headers, the other fields.
_ENVELOPE_BYTES: Final = 64 * 1024
# How much of a body that is too large is read to the end, so that the connection lives on.
_DRAINED_BYTES: Final = 64_000_000
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_NO_STORE: Final = {"Cache-Control": "no-store"}


@dataclass(frozen=True)
class Question:
    """What a caller of POST /predict asks."""

    film: bytes
    disable_cam: bool = False
    force: bool = False
    frame: int | None = None


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
    headers = dict(_NO_STORE)
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return JSONResponse(as_error(error, request_id), status_code=error.http_status, headers=headers)


def request_id_of(request: Request) -> str:
    """Return the id that the middleware gave the request."""
    return getattr(request.state, "request_id", None) or new_request_id()


def too_large(limit: int) -> FileTooLargeError:
    """Return the error for a film of more than `limit` bytes."""
    return FileTooLargeError(f"The file is larger than {limit / 1e6:g} MB, the most that this server takes.")


async def read_body(request: Request, limit: int, film_limit: int) -> AsyncGenerator[bytes, None]:
    """Yield a body's chunks, and fail once they are more than `limit` bytes, declared or counted.

    Raises:
        FileTooLargeError: After the rest was read and dropped, within reason, so that the connection stays usable.
    """
    declared = request.headers.get("content-length", "")
    excess = int(declared) > limit if declared.isdecimal() else False
    # A caller who asked first is told before it sends anything.
    if excess and (request.headers.get("expect") or int(declared) > _DRAINED_BYTES):
        raise too_large(film_limit)
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > _DRAINED_BYTES + limit:
            break
        if not excess and count <= limit:
            yield chunk
    if excess or count > limit:
        raise too_large(film_limit)


class _InMemoryParser(MultiPartParser):
    # Starlette rolls a part over to a file on disk beyond this many bytes; 0 is never. A film stays in memory.
    spool_max_size = 0


async def read_form(request: Request, film_limit: int, body_limit: int | None = None) -> FormData:
    """Read a multipart form in memory.

    Args:
        request: The request.
        film_limit: The most bytes of a film, as the error tells it.
        body_limit: The most bytes of the whole body; one film and its envelope by default.

    Raises:
        BadRequestError: If the form is malformed.
        FileTooLargeError: If the body is too large.
    """
    chunks = read_body(request, body_limit or film_limit + _ENVELOPE_BYTES, film_limit)
    try:
        return await _InMemoryParser(request.headers, chunks, max_files=100, max_fields=100).parse()
    except MultiPartException as error:
        # The rest of the body goes too: the connection lives on, and a film too large is told as that.
        async for _ in chunks:
            pass
        raise BadRequestError(f"The multipart form is malformed: {error.message}") from error


async def read_question(request: Request, limit: int) -> Question:
    """Read what a caller of POST /predict asks.

    Raises:
        InputError: If the request is malformed, has no film, or one of too many bytes.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    fields: Mapping[str, object]
    if kind == "multipart/form-data":
        film, fields = await _of_form(await read_form(request, limit))
    elif kind == "application/json":
        film, fields = await _of_json(request, limit)
    else:
        async for _ in read_body(request, limit + _ENVELOPE_BYTES, limit):
            pass
        if not kind:
            raise NoFileError("The request holds no film.")
        raise BadRequestError("Expected the content type multipart/form-data or application/json.")
    if not film:
        raise EmptyFileError("The file is empty: it has no bytes.")
    if len(film) > limit:
        raise too_large(limit)
    return Question(film, _flag(fields, "disable_cam"), _flag(fields, "force"), _frame(fields))


async def _of_form(form: FormData) -> tuple[bytes, dict[str, object]]:
    films = form.getlist("file")
    if not films:
        raise NoFileError("The form has no field `file`.")
    if len(films) > 1:
        raise BadRequestError(f"Expected one field `file`, got {len(films)}.", hint="Send one film a request.")
    if not isinstance(films[0], UploadFile):
        if not films[0]:
            raise NoFileError("The field `file` is empty.")
        raise BadRequestError("Expected the field `file` to be a file, got text.")
    fields: dict[str, object] = {}
    for name in ("disable_cam", "force", "frame"):
        value = form.get(name)
        if isinstance(value, str) and value.strip():
            text = value.strip().lower()
            fields[name] = _whole(text) if name == "frame" else _FLAGS.get(text, text)
        elif value:
            fields[name] = value
    return await films[0].read(), fields


def _whole(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


async def _of_json(request: Request, limit: int) -> tuple[bytes, Mapping[str, object]]:
    encoded_limit = 4 * (limit + 2) // 3
    body = b"".join([chunk async for chunk in read_body(request, encoded_limit + _ENVELOPE_BYTES, limit)])
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("The body is not valid JSON.") from error
    if not isinstance(fields, dict):
        raise BadRequestError("Expected the JSON body to be an object with the field `file_data`.")
    data = fields.get("file_data")
    if data is None:
        raise NoFileError("The JSON body has no field `file_data`.")
    if not isinstance(data, str):
        raise BadRequestError("Expected `file_data` to be a string of base64 or a data URI.")
    return _decoded(data), fields


def _decoded(data: str) -> bytes:
    if data[:5].lower() == "data:":
        head, comma, data = data.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise BadRequestError("Expected the data URI in `file_data` to be of the form data:...;base64,....")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError("Expected `file_data` to be base64, but it does not decode.") from error


def _flag(fields: Mapping[str, object], name: str) -> bool:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequestError(f"Expected `{name}` to be true or false.")


def _frame(fields: Mapping[str, object]) -> int | None:
    value = fields.get("frame")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise BadRequestError("Expected `frame` to be a whole number from 0.")


async def _predict(service: Service, request: Request, request_id: str) -> JSONResponse:
    started = time.perf_counter()
    with refusals_logged(request_id, "rest"):
        asked = await read_question(request, service.settings.max_upload_bytes)
    finding = await service.answer(
        asked.film,
        request_id=request_id,
        door="rest",
        frame=asked.frame,
        force=asked.force,
        saliency=not asked.disable_cam,
    )
    picture = None if asked.disable_cam else await anyio.to_thread.run_sync(lambda: data_uri(overlay(finding)))
    return JSONResponse(as_answer(finding, request_id, started) | {"gradcam_image": picture}, headers=_NO_STORE)


@contextmanager
def refusals_logged(request_id: str, door: str) -> Iterator[None]:
    """Log an error that is raised before a film reaches the service, which logs every film that does."""
    started = time.perf_counter()
    try:
        yield
    except PneumoNetError as error:
        duration = (time.perf_counter() - started) * 1000
        logger.info("request=%s door=%s code=%s duration_ms=%.1f", request_id, door, error.code, duration)
        raise


async def answer_errors(request: Request, handle: Callable[[], Awaitable[Any]]) -> Any:
    """Return what `handle` does, or the error it raises as a response; an unforeseen one is logged."""
    request_id = request_id_of(request)
    try:
        return await handle()
    except (PneumoNetError, ClientDisconnect) as error:
        known = error if isinstance(error, PneumoNetError) else BadRequestError("The request was cut short.")
        return error_response(known, request_id)
    except Exception:
        logger.exception("request=%s failed", request_id)
        return error_response(InternalError("Something went wrong on our side."), request_id)


def health(service: Service) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and body of GET /health."""
    healthy = service.status == "healthy"
    body = {
        "status": service.status,
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "models_loaded": healthy,
        "version": __version__,
        "model": service.model.info.to_dict() if healthy else None,
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
        "limits": {
            "max_upload_bytes": settings.max_upload_bytes,
            "max_pixels": settings.max_pixels,
            "max_waiting": settings.max_waiting,
        },
        "routes": [
            {"method": "POST", "path": "/predict", "type": "multipart/form-data", "fields": {"file": film} | options},
            {
                "method": "POST",
                "path": "/predict",
                "type": "application/json",
                "fields": {"file_data": f"base64 or a data URI of {film}"} | options,
            },
            {"method": "GET", "path": "/health", "answer": "200 when healthy, else 503"},
            {"method": "GET", "path": "/api", "answer": "this description"},
        ],
        "gradio": {
            "/predict": "file, force -> the finding and the heatmap laid over the film, a PNG file",
            "/explain": "file, force -> the finding and each heatmap as a PNG data URI, by source and class",
        },
        "errors": error_kinds(),
    }


def routes(service: Service) -> APIRouter:
    """Return the plain HTTP routes."""
    router = APIRouter()

    @router.post("/predict")
    async def predict(request: Request) -> Any:
        return await answer_errors(request, lambda: _predict(service, request, request_id_of(request)))

    @router.api_route("/predict", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"])
    async def no_predict(request: Request) -> JSONResponse:
        error = BadRequestError(f"Expected POST /predict, got {request.method}.")
        body = as_error(error, request_id_of(request))
        return JSONResponse(body, status_code=405, headers={"Allow": "POST"})

    @router.api_route("/health", methods=["GET", "HEAD"])
    async def get_health() -> JSONResponse:
        status, body = health(service)
        return JSONResponse(body, status_code=status, headers=_NO_STORE)

    @router.api_route("/api", methods=["GET", "HEAD"])
    async def api() -> JSONResponse:
        return JSONResponse(describe(service))

    return router
