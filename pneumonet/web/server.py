"""The server: one FastAPI app with the plain routes first and the page after them, and its life as a process."""

import asyncio
import atexit
import contextlib
import functools
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

# Gradio asks its makers' servers for news unless this is set before it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumonet.errors import InternalError, ModelUnavailableError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import endpoints, rest
from pneumonet.web.service import Service, new_request_id

logger = logging.getLogger("pneumonet.server")

# Files of Gradio's are at most this old when they go: its own empty ones, and whatever a page may write.
_FILE_SECONDS: Final = 4.0
_TIDY_EVERY_SECONDS: Final = 1.0
_SHUTDOWN_SECONDS: Final = 3
_SESSIONS_HELD: Final = 1000
_GRADIO: Final = "/gradio_api/"
# Parts of Gradio that the page does not use, and that would write to disk, run code or reach other servers.
_CLOSED_NAMES: Final = "deep_link process_recording proxy= file=http file/http vibe- undo-vibe runs run-history"
_CLOSED: Final = tuple(_GRADIO + name for name in _CLOSED_NAMES.split(" "))


@functools.cache
def private_folder() -> Path:
    """Return a fresh folder for Gradio's files that only this process uses, inside GRADIO_TEMP_DIR where it is set."""
    parent = os.environ.get("GRADIO_TEMP_DIR") or None
    if parent is not None:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pneumonet-", dir=parent)).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def create_app(service: Service, page: Any = None) -> FastAPI:
    """Build the app that serves every door.

    Args:
        service: Answers films; whoever serves the app calls its `start`.
        page: A gr.Blocks; PneumoNet's own page by default.
    """
    folder = private_folder()
    options: dict[str, Any] = {}
    if page is None:
        from pneumonet.web.ui import build_page, page_options

        page, options = build_page(service), page_options()
    settings = service.settings
    app = FastAPI(title="PneumoNet", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_tidying(folder, page))
    # No other site may ask. Without this, Gradio's own rule lets every site read its routes' answers.
    app.add_middleware(CORSMiddleware, allow_origins=())
    # Starlette asks the routes in order, and the page at / takes all the rest.
    app.include_router(rest.routes(service))
    endpoints.add_file_routes(app, settings.max_upload_bytes)
    _prepare(page, settings, folder)
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        root_path=settings.root_path or None,
        show_error=False,
        max_file_size=settings.max_upload_bytes,
        enable_monitoring=False,
        run_history=False,
        pwa=False,
        ssr_mode=False,
        mcp_server=False,
        app_kwargs={"openapi_url": None},
        **options,
    )
    # A film as base64 is a third longer.
    names = frozenset(str(fn.api_name) for fn in page.fns.values())
    app.add_middleware(_Requests, settings.root_path, settings.max_upload_bytes * 2, names)
    return app


def _prepare(page: Any, settings: Settings, folder: Path) -> None:
    # Films wait in the service's queue, the only one that counts every door's; Gradio's own holds nobody up.
    page.queue(api_open=False, max_size=settings.max_waiting + 100, default_concurrency_limit=None)
    page.state_session_capacity = _SESSIONS_HELD
    for block in page.blocks.values():
        block.GRADIO_CACHE = str(folder)
    endpoints.guard(page)
    # Mounted pages skip the check that a file was uploaded, unless they count as launched: gradio.routes and
    # gradio.processing_utils._check_allowed. Without it any file of this machine is a stranger's for the asking.
    page.has_launched = True


class _Requests:
    """Give each request an id, bound its body, close what is not offered, and answer failures in words."""

    def __init__(self, app: ASGIApp, root_path: str, most_bytes: int, names: frozenset[str]) -> None:
        self.app, self.root_path, self.most_bytes, self.names = app, root_path, most_bytes, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, begun, ended = new_request_id(), False, False
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            nonlocal begun, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        if self.root_path and scope["path"].startswith(self.root_path + "/"):
            # Some proxies strip the prefix and some do not; from here on all have.
            path = scope["path"].removeprefix(self.root_path)
            scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        refusal = self._refusal(scope["path"], request_id)
        if refusal is not None:
            await refusal(scope, receive, send_with_id)
            return
        # Our own routes count for themselves.
        gradios = scope["path"].startswith(_GRADIO) and scope["path"] != endpoints.UPLOAD_ROUTE
        bounded = self._bounded(receive) if gradios else receive
        try:
            await self.app(scope, bounded, send_with_id)
        except asyncio.CancelledError:
            # Only a server that stops cancels: what is open ends here, without a traceback in the log.
            if not begun:
                await rest.error_response(_STOPPING, request_id)(scope, receive, send_with_id)
            elif not ended:
                await send({"type": "http.response.body"})
        except Exception as error:
            # Gradio's messages may hold paths and values: the kind and the place say enough.
            place = "".join(traceback.format_tb(error.__traceback__))
            logger.error("request=%s failed with %s at\n%s", request_id, type(error).__name__, place)
            if not begun:
                await rest.error_response(_UNFORESEEN, request_id)(scope, receive, send_with_id)

    def _refusal(self, path: str, request_id: str) -> JSONResponse | None:
        if path.startswith(_CLOSED):
            return _not_found("This server does not offer that.", request_id)
        asked = path.removeprefix(_GRADIO).split("/")
        # The name follows /call/ or /call/v2/; without this Gradio fails with a traceback.
        name = asked[2] if asked[:2] == ["call", "v2"] and len(asked) > 2 else asked[1] if len(asked) > 1 else ""
        if path.startswith(_GRADIO) and asked[0] in ("call", "run", "api") and name not in self.names:
            return _not_found("There is no endpoint of that name.", request_id)
        return None

    def _bounded(self, receive: Receive) -> Receive:
        count = 0

        async def bounded() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.most_bytes:
                raise HTTPException(413, "The request is too large.")
            return message

        return bounded


_UNFORESEEN: Final = InternalError("Something went wrong on our side.")
_STOPPING: Final = ModelUnavailableError("The server is stopping.", hint="Try again in a minute.")


def _not_found(sentence: str, request_id: str) -> JSONResponse:
    hint = "See GET /api for what it offers."
    body = {"error": sentence, "code": "not_found", "hint": hint, "request_id": request_id}
    return JSONResponse(body, status_code=404)


def _tidying(folder: Path, page: Any) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # What is there before the first request is the page's own.
        task = asyncio.create_task(_tidy(folder, frozenset(_files(folder)), page))
        try:
            yield
        finally:
            task.cancel()

    return lifespan


async def _tidy(folder: Path, keep: frozenset[Path], page: Any) -> None:
    unread: dict[str, float] = {}
    while True:
        await asyncio.sleep(_TIDY_EVERY_SECONDS)
        endpoints.uploads.tidy()
        endpoints.outputs.tidy()
        unread = drop_unread(page._queue, unread)
        await asyncio.to_thread(sweep, folder, keep)


def drop_unread(queue: Any, unread: dict[str, float], seconds: float = endpoints.UPLOAD_SECONDS) -> dict[str, float]:
    """Forget the answers that nobody fetches, which Gradio keeps for the last 2000 sessions.

    Args:
        queue: Gradio's queue of a page.
        unread: Since when each session has answers that wait, as the last call returned it.
        seconds: How long they may.
    """
    running = {event.session_hash for event in queue.event_ids_to_events.values()}
    messages = queue.pending_messages_per_session
    now = time.monotonic()
    waiting = [session for session in messages if session not in running and not messages[session].empty()]
    unread = {session: unread.get(session, now) for session in waiting}
    for session in [session for session, since in unread.items() if now - since > seconds]:
        del messages[session], unread[session]
        queue.pending_event_ids_session.pop(session, None)
    return unread


def _files(folder: Path) -> Iterable[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def sweep(folder: Path, keep: frozenset[Path], max_age: float = _FILE_SECONDS) -> None:
    """Remove the files under a folder that are too old, but for some to keep, and the folders that are then empty."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            elif path not in keep and time.time() - path.lstat().st_ctime > max_age:
                path.unlink()


class _Server(uvicorn.Server):
    """uvicorn, which says where it listens and then loads the model."""

    def __init__(self, config: uvicorn.Config, service: Service, address: str) -> None:
        super().__init__(config)
        self.service, self.address = service, address
        self.loading: threading.Thread | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"PneumoNet is at {self.address}", flush=True)
            self.loading = self.service.start(on_failure=self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("pneumonet").setLevel(logging.INFO)
    # Readers quote the values they stumble over, and in DICOM these may be a patient's.
    warnings.simplefilter("ignore")
    for name in ("pydicom", "PIL", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def serve(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code, 1 where the port is taken or the model does not load."""
    try:
        listener = _listen(settings.host, settings.port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "it is not possible"
        print(f"PneumoNet cannot listen at {settings.host}:{settings.port}: {reason}.", file=sys.stderr)
        return 1
    _set_up_logging()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    service = Service(settings, lambda: PneumoNet.from_pretrained(settings=settings))
    config = uvicorn.Config(
        create_app(service),
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = _Server(config, service, f"http://{host}:{listener.getsockname()[1]}")
    # uvicorn stops at these by itself and then raises them once more, which would end the process with their code.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])
    if server.loading is not None:
        # Python must not be taken down under a thread that is inside torch, if it ends soon.
        server.loading.join(_SHUTDOWN_SECONDS)
    return 1 if service.failure is not None else 0
