"""The server: one FastAPI app with the plain routes first and the page after them, and its life as a process."""

import asyncio
import logging
import signal
import socket
import sys
import threading
import time
import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import gradio
import uvicorn
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from pneumonet import __version__
from pneumonet.errors import ConfigError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import agents, endpoints, installing, oauth, rest, uploads
from pneumonet.web.connections import TAKEN_AT_ONCE, BoundedProtocol, Bounds, connections_allowed
from pneumonet.web.logs import JsonFormatter
from pneumonet.web.middleware import RequestGate
from pneumonet.web.service import AT_ONCE_GATHERED, Service
from pneumonet.web.tidying import private_folder, tidying

_SHUTDOWN_SECONDS: Final = 3
_SESSIONS_HELD: Final = 1000
# Each session's page holds one, and asks by a second.
_CONNECTIONS: Final = 2 * _SESSIONS_HELD
# Beside the requests that one address may have open: a browser keeps up to six connections to a host.
_CONNECTIONS_FOR_A_REQUEST: Final = 4
# What the page's other events, each done in no time, may need of Gradio's places beside the films and previews.
_OTHER_EVENTS: Final = 100
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


def create_app(service: Service, page: Any = None) -> FastAPI:
    """Build the app that serves every door.

    Args:
        service: Answers films; whoever serves the app calls its `start`.
        page: A gr.Blocks; PneumoNet's own page by default.

    Raises:
        ConfigError: If a package is missing that a setting needs.
    """
    folder = private_folder()
    options: dict[str, Any] = {}
    if page is None:
        from pneumonet.web.ui import build_page, page_options

        page, options = build_page(service), page_options()
    settings = service.settings
    app = FastAPI(title="PneumoNet", version=__version__, docs_url=None, redoc_url=None, lifespan=tidying(folder, page))
    # Starlette asks the routes in order, and the page at / takes all the rest.
    app.include_router(rest.routes(service))
    app.include_router(installing.routes())
    if settings.oauth is not None:
        app.include_router(oauth.routes(oauth.SignIn(settings.oauth)))
    uploads.add_file_routes(app, settings.max_upload_bytes)
    _prepare(page, service, folder)
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        # Given even where there is none: GRADIO_ROOT_PATH would have Gradio strip a prefix that the gate does not know.
        root_path=settings.root_path,
        show_error=False,
        max_file_size=settings.max_upload_bytes,
        enable_monitoring=False,
        run_history=False,
        pwa=False,
        ssr_mode=False,
        mcp_server=settings.mcp,
        app_kwargs={"openapi_url": None},
        **options,
    )
    if settings.mcp:
        agents.open_door(app, page, service)
    app.add_middleware(RequestGate, settings, page, service.metrics)
    # Only listed sites may read answers, none by default; without this, Gradio's own rule lets every site read its.
    # Outside the gate: a browser's question beforehand carries no login, and refusals are to be read too.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=("X-Request-ID", "Retry-After"),
    )
    return app


def _prepare(page: Any, service: Service, folder: Path) -> None:
    most_waiting = service.settings.max_waiting
    # Films wait in the service's queue, the only one that counts every door's and the time; Gradio's own holds nobody
    # up: there is a place in it for all that the service lets in, and for who is told that it is full.
    page.max_threads = most_waiting + AT_ONCE_GATHERED + service.previews.most + _OTHER_EVENTS
    page.queue(api_open=False, max_size=most_waiting + _OTHER_EVENTS, default_concurrency_limit=None)
    # Sessions are dropped from it while a slow reader's answer is still on its way, which Gradio then looks up.
    page._queue.pending_event_ids_session = defaultdict(set)
    page.state_session_capacity = _SESSIONS_HELD
    for block in page.blocks.values():
        block.GRADIO_CACHE = str(folder)
    endpoints.guard(page)
    # Mounted pages skip the check that a file was uploaded, unless they count as launched: gradio.routes and
    # gradio.processing_utils._check_allowed. Without it any file of this machine is a stranger's for the asking.
    page.has_launched = True


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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Connections that are kept outlive the listener, and one film after the other would hold up the end.
        self.service.is_stopping = True
        for listening in self.servers:
            listening.close()
        # uvicorn would cancel films with the streams of open pages, which end by themselves only when the visitor goes.
        deadline = time.monotonic() + self.service.settings.request_seconds
        while self.service.has_work and time.monotonic() < deadline and not self.force_exit:
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)

    def _stop(self) -> None:
        self.should_exit = True


def _set_up_logging(settings: Settings) -> JsonFormatter:
    formatter = JsonFormatter()
    handler = logging.StreamHandler()
    handler.setFormatter(formatter if settings.log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("pneumonet").setLevel(logging.INFO)
    # Readers quote the values they stumble over, and in DICOM these may be a patient's.
    warnings.simplefilter("ignore")
    for name in ("pydicom", "PIL", "python_multipart", "mcp"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Much of what mcp quotes it gives to no logger of its own but to the root's.
    logging.getLogger().addFilter(lambda record: "mcp" not in Path(record.pathname).parts)
    # A page that is open holds a stream for as long; that a stop ends it is no error.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not record.getMessage().startswith("Cancel "))
    return formatter


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


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return what uvicorn is told of the app, its log and its connections."""
    config = uvicorn.Config(
        app,
        # A connection that were to become one of another kind would no longer be counted.
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        backlog=TAKEN_AT_ONCE,
    )
    most_of_one = _CONNECTIONS_FOR_A_REQUEST * settings.open_requests
    bounds = Bounds(connections_allowed(_CONNECTIONS), most_of_one, config.forwarded_allow_ips)
    # uvicorn takes any maker of a protocol, and says that it takes a class.
    config.http = cast(Any, partial(BoundedProtocol, bounds))
    return config


def serve(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code, 1 where it cannot start or the model does not load."""
    try:
        private_folder()
    except OSError as error:
        print(f"PneumoNet cannot make its folder in GRADIO_TEMP_DIR: {error.strerror}.", file=sys.stderr)
        return 1
    try:
        listener = _listen(settings.host, settings.port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "it is not possible"
        print(f"PneumoNet cannot listen at {settings.host}:{settings.port}: {reason}.", file=sys.stderr)
        return 1
    formatter = _set_up_logging(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host

    def load() -> PneumoNet:
        model = PneumoNet.from_pretrained(settings=settings)
        formatter.context |= {"engine": model.ensemble.engine.name, "revision": model.info.revision}
        return model

    try:
        service = Service(settings, load)
        app = create_app(service)
    except ConfigError as error:
        print(error.told, file=sys.stderr)
        return 1
    config = configured(app, settings)
    server = _Server(config, service, f"http://{host}:{listener.getsockname()[1]}")
    # uvicorn stops at these by itself and then raises them once more, which would end the process with their code.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])
    if server.loading is not None:
        # Python must not be taken down under a thread that is inside torch, if it ends soon.
        server.loading.join(_SHUTDOWN_SECONDS)
    service.close()
    return 1 if service.failure is not None else 0
