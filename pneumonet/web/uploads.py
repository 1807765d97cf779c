"""Gradio's uploads and outputs: in memory, never on disk, each under a path that nobody can guess."""

import secrets
import threading
import time
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import Response
from gradio.utils import get_upload_folder
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Scope

from pneumonet.errors import BadRequestError, BusyError, EmptyFileError, NoFileError, PneumoNetError
from pneumonet.language import said
from pneumonet.web.answers import NO_STORE, refusals_logged, request_id_of, text_response, too_large
from pneumonet.web.bodies import read_form
from pneumonet.web.languages import language_asked
from pneumonet.web.metrics import HELD_BYTES

# A caller who types the two requests of Gradio's protocol by hand needs a minute between them.
UPLOAD_SECONDS: Final = 60.0
OUTPUT_SECONDS: Final = 8.0
UPLOAD_ROUTE: Final = "/gradio_api/upload"
_HELD_BYTES: Final = 400_000_000


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
            if self._count() + len(data) > self._most_bytes:
                raise BusyError(said("Too many films wait to be analysed."))
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

    @property
    def held_bytes(self) -> int:
        """How many bytes it holds."""
        with self._lock:
            self._drop_old()
            return self._count()

    def _count(self) -> int:
        return sum(len(held) for _, held in self._files.values())

    def _drop_old(self) -> None:
        now = time.monotonic()
        self._files = {path: held for path, held in self._files.items() if held[0] > now}


# One of each a process: Gradio gives a handler the path alone.
uploads = Shelf(UPLOAD_SECONDS)
outputs = Shelf(OUTPUT_SECONDS)
HELD_BYTES.labels("uploads").set_function(lambda: uploads.held_bytes)
HELD_BYTES.labels("outputs").set_function(lambda: outputs.held_bytes)


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
        raise NoFileError(said("No file was sent."))
    data = uploads.take(str(path))
    if data is None:
        raise BadRequestError(
            said("The upload is no longer here: each is kept for one answer."), hint=said("Upload it again.")
        )
    if not data:
        raise EmptyFileError(said("The file is empty."))
    if max_bytes is not None and len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def add_file_routes(app: FastAPI, limit: int) -> None:
    """Add the routes that stand before Gradio's own: uploads of at most `limit` bytes, and outputs, in memory."""

    @app.post(UPLOAD_ROUTE, include_in_schema=False)
    async def upload(request: Request) -> Any:
        try:
            with refusals_logged(request_id_of(request), "upload"):
                form = await read_form(request, limit)
                sent = form.getlist("files")
                files = [file for file in sent if isinstance(file, UploadFile)]
                if not sent:
                    raise NoFileError("The form has no field `files`.")
                if len(files) < len(sent):
                    raise BadRequestError("Expected the field `files` to be a file, got text.")
                films = [(await file.read(), file.filename) for file in files]
                if any(len(data) > limit for data, _ in films):
                    raise too_large(limit)
                return [add_upload(data, name) for data, name in films]
        except PneumoNetError as error:
            return text_response(error, language_asked(request))

    @app.get(UPLOAD_ROUTE + "_progress", include_in_schema=False)
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
    return Response(data, media_type="image/png", headers=NO_STORE)
