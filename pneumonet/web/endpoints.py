"""The two public Gradio endpoints, and the uploads that every Gradio handler takes: in memory, never on disk."""

import logging
import os
import secrets
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

# Gradio asks its makers' servers for news unless this is set before it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import anyio.to_thread
import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from gradio.exceptions import InvalidPathError
from gradio.utils import get_upload_folder
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Scope

from pneumonet.errors import (
    BadRequestError,
    BusyError,
    EmptyFileError,
    InternalError,
    NoFileError,
    PneumoNetError,
)
from pneumonet.finding import Finding
from pneumonet.rendering import data_uri, overlay, png
from pneumonet.web.rest import as_answer, read_form, refusals_logged, request_id_of, too_large
from pneumonet.web.service import Service, new_request_id

logger = logging.getLogger("pneumonet.gradio")

# A caller who types the two requests of Gradio's protocol by hand needs a minute between them.
UPLOAD_SECONDS: Final = 60.0
OUTPUT_SECONDS: Final = 8.0
UPLOAD_ROUTE: Final = "/gradio_api/upload"
_HELD_BYTES: Final = 400_000_000
_HOW_TO_SEND: Final = (
    'Post the file to /gradio_api/upload first, then send {"path": <what it answered>, '
    '"meta": {"_type": "gradio.FileData"}}; gradio_client\'s handle_file does both.'
)


class Shelf:
    """Files in memory under paths that nobody can guess, for a few seconds each.

    Gradio hands its handlers a path. Its own uploads lie on disk, at one path for all users where bytes and name are
    the same, so that unlinking one user's film breaks another's run. Here each upload has a path of its own, and no
    file behind it.
    """

    def __init__(self, seconds: float, most_bytes: int = _HELD_BYTES) -> None:
        self._seconds, self._most_bytes = seconds, most_bytes
        self._files: dict[str, tuple[float, bytes]] = {}
        self._lock = threading.Lock()

    def put(self, data: bytes, name: str) -> str:
        """Keep a file; returns its path, which lies in Gradio's upload folder so that Gradio lets it pass.

        Raises:
            BusyError: If too many bytes are held already.
        """
        path = str(Path(get_upload_folder()).resolve() / secrets.token_hex(20) / name)
        with self._lock:
            self._drop_old()
            if sum(len(held) for _, held in self._files.values()) + len(data) > self._most_bytes:
                raise BusyError("Too many files wait to be analysed.")
            self._files[path] = (time.monotonic() + self._seconds, data)
        return path

    def get(self, path: str) -> bytes | None:
        """Return a file that stays."""
        with self._lock:
            self._drop_old()
            return self._files[path][1] if path in self._files else None

    def take(self, path: str) -> bytes | None:
        """Return a file that is then gone."""
        with self._lock:
            self._drop_old()
            return self._files.pop(path, (0.0, None))[1]

    def tidy(self) -> None:
        """Drop what is too old."""
        with self._lock:
            self._drop_old()

    def _drop_old(self) -> None:
        now = time.monotonic()
        self._files = {path: held for path, held in self._files.items() if held[0] > now}


# One of each a process: Gradio gives a handler the path alone.
uploads = Shelf(UPLOAD_SECONDS)
outputs = Shelf(OUTPUT_SECONDS)


def add_upload(data: bytes, name: str | None) -> str:
    """Keep an upload in memory; returns the path that stands for it, without the name, which may be a patient's."""
    suffix = Path(name or "").suffix
    return uploads.put(data, "film" + (suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) < 9 else ""))


def take_file(path: str | None, max_bytes: int | None = None) -> bytes:
    """Return the bytes of an uploaded film, once: afterwards they are gone.

    Args:
        path: What Gradio hands a handler for an upload.
        max_bytes: The most bytes taken; uploads are within the server's limit already.

    Raises:
        NoFileError: If there is no path.
        EmptyFileError: If the film has no bytes.
        FileTooLargeError: If it has too many.
        BadRequestError: If the path stands for no upload, or for one that was taken or is too old.
    """
    if path is None:
        raise NoFileError("No film was sent.")
    data = uploads.take(str(path))
    if data is None:
        raise BadRequestError("The upload is no longer here: each is kept for one answer.", hint="Upload it again.")
    if not data:
        raise EmptyFileError("The file is empty: it has no bytes.")
    if max_bytes is not None and len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def add_file_routes(app: FastAPI, limit: int) -> None:
    """Add the routes that stand before Gradio's own: uploads of at most `limit` bytes, and outputs, in memory."""

    @app.post(UPLOAD_ROUTE)
    async def upload(request: Request) -> Any:
        try:
            with refusals_logged(request_id_of(request), "upload"):
                form = await read_form(request, limit)
                files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
                films = [(await file.read(), file.filename) for file in files]
                if any(len(data) > limit for data, _ in films):
                    raise too_large(limit)
                return [add_upload(data, name) for data, name in films]
        except PneumoNetError as error:
            # Gradio's clients show the text of a failed upload as it stands.
            headers = {"Retry-After": str(error.retry_after_seconds)} if error.retry_after_seconds else None
            return PlainTextResponse(f"{error.message} {error.hint}".strip(), error.http_status, headers)

    @app.get(UPLOAD_ROUTE + "_progress")
    async def upload_progress() -> Response:
        # The page asks for it beside each upload, and takes the upload's own answer for its end.
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    app.router.routes.append(_OutputRoute("/gradio_api/file={path:path}", _output, methods=["GET", "HEAD"]))


class _OutputRoute(Route):
    """A route to the outputs held in memory alone; any other file is Gradio's to answer."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        held = match is not Match.NONE and outputs.get(child["path_params"]["path"]) is not None
        return (match, child) if held else (Match.NONE, {})


async def _output(request: Request) -> Response:
    data = outputs.get(request.path_params["path"])
    if data is None:
        raise HTTPException(404)
    return Response(data, media_type="image/png", headers={"Cache-Control": "no-store"})


def as_gradio_error(error: PneumoNetError, request_id: str) -> Any:
    """Return an error as Gradio shows it: a sentence, what to do, the code and the request id."""
    message = f"{error.message} {error.hint} (code {error.code}, request {request_id})"
    return gr.Error(" ".join(message.split()), title="No answer", print_exception=False)


def add_endpoints(service: Service) -> None:
    """Add the public endpoints `/predict` and `/explain` to the Blocks being built."""

    async def predict(file: Any, force: Any = False) -> tuple[dict[str, Any], dict[str, Any]]:
        finding, answer = await _answer(service, file, force)
        picture = await anyio.to_thread.run_sync(lambda: png(overlay(finding)))
        return answer, _file_data(outputs.put(picture, "overlay.png"))

    async def explain(file: Any, force: Any = False) -> dict[str, Any]:
        finding, answer = await _answer(service, file, force)
        return answer | {"maps": await anyio.to_thread.run_sync(lambda: _maps(finding))}

    film = gr.File(label="chest film: JPEG, PNG, TIFF, WebP, BMP or DICOM", visible=False)
    forced = gr.Checkbox(label="answer a film that would be refused", value=False, visible=False)
    answer = gr.JSON(label="finding", visible=False)
    picture = gr.Image(label="heatmap laid over the film", visible=False)
    # Without Gradio's own processing nothing is copied to disk and wrong values reach a handler that can explain them.
    options = {"preprocess": False, "postprocess": False, "concurrency_limit": None, "show_progress": "hidden"}
    gr.Button(visible=False).click(
        predict,
        [film, forced],
        [answer, picture],
        api_name="predict",
        api_description="Classify a chest film; returns the finding and the heatmap laid over the film.",
        **options,
    )
    gr.Button(visible=False).click(
        explain,
        [film, forced],
        answer,
        api_name="explain",
        api_description="Classify a chest film; returns the finding and each heatmap, by source and class.",
        **options,
    )


async def _answer(service: Service, file: Any, force: Any) -> tuple[Finding, dict[str, Any]]:
    request_id, started = new_request_id(), time.perf_counter()
    try:
        with refusals_logged(request_id, "gradio"):
            if not isinstance(force, bool) and force is not None:
                raise BadRequestError("Expected `force` to be true or false.")
            data = take_file(_path_of(file), service.settings.max_upload_bytes)
        finding = await service.answer(data, request_id=request_id, door="gradio", force=bool(force))
    except PneumoNetError as error:
        raise as_gradio_error(error, request_id) from None
    return finding, as_answer(finding, request_id, started)


def _path_of(file: Any) -> str | None:
    if file is None:
        return None
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str):
        raise BadRequestError("Expected an uploaded file.", hint=_HOW_TO_SEND)
    return path


def _maps(finding: Finding) -> dict[str, dict[str, str]]:
    return {
        source: {label: data_uri(overlay(finding, label, source)) for label in by_class}
        for source, by_class in finding.saliency.items()
    }


def _file_data(path: str) -> dict[str, Any]:
    return {"path": path, "orig_name": "overlay.png", "mime_type": "image/png", "meta": {"_type": "gradio.FileData"}}


def guard(page: Any) -> None:
    """Make every event of a page fail in words, and keep its callers' values out of the log.

    Gradio prints the traceback of a failed event with the value that made it fail, a file's path or a whole picture,
    and answers with `null`.

    Args:
        page: A gr.Blocks.
    """
    process: Callable[..., Awaitable[Any]] = page.process_api

    async def guarded(block_fn: Any, inputs: list[Any], **options: Any) -> Any:
        request_id = new_request_id()
        block_fn = page.fns[block_fn] if isinstance(block_fn, int) else block_fn
        try:
            return await process(block_fn=block_fn, inputs=_complete(block_fn, inputs), **options)
        except gr.Error as error:
            error.print_exception = False
            raise
        except PneumoNetError as error:
            known = error
        except (InvalidPathError, ValidationError):
            known = BadRequestError("Expected an uploaded file.", hint=_HOW_TO_SEND)
        except Exception as error:
            # The message may hold what the caller sent: the kind and the place say enough.
            place = "".join(traceback.format_tb(error.__traceback__))
            logger.error("request=%s failed with %s at\n%s", request_id, type(error).__name__, place)
            known = InternalError("Something went wrong on our side.")
        finally:
            _forget_values(options.get("state"), block_fn)
        logger.info("request=%s code=%s", request_id, known.code)
        raise as_gradio_error(known, request_id)

    page.process_api = guarded


def _forget_values(state: Any, block_fn: Any) -> None:
    # Gradio keeps the last value of each component for thousands of sessions, for deep links, which are closed here.
    for block in (*block_fn.inputs, *block_fn.outputs) if state is not None else ():
        state.config_values.get(block._id, {}).get("props", {}).pop("value", None)


def _complete(block_fn: Any, inputs: list[Any]) -> list[Any]:
    """Return an event's inputs with the defaults of those left out, none of them a file on another server."""
    if _names_web_address(inputs):
        # Gradio would fetch it: this server asks nothing of others.
        raise BadRequestError("Expected an uploaded file, got a web address.", hint=_HOW_TO_SEND)
    return inputs + [getattr(block, "value", None) for block in block_fn.inputs[len(inputs) :]]


def _names_web_address(value: Any) -> bool:
    if isinstance(value, dict):
        path = str(value.get("path", "")).lower()
        return path.startswith(("http:", "https:")) or any(map(_names_web_address, value.values()))
    return isinstance(value, list) and any(map(_names_web_address, value))
