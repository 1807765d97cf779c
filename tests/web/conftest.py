"""A real server on a free port, the films sent to it, and a client for each door."""

import asyncio
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
import uvicorn
from gradio_client import Client, handle_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.endpoints import add_endpoints
from pneumonet.web.server import configured, create_app
from pneumonet.web.service import Service
from tests.support.films import encoded, phantom

LIMIT_BYTES = 10_000_000
# What the log holds of a request, whatever became of it: its door and code are groups.
LOG_LINE = re.compile(r"request=[0-9a-f]{16} door=([a-z]+) code=([a-z_]+) duration_ms=\d+\.\d")
LOG_FIELDS = {"time", "level", "logger", "request_id", "door", "route", "code", "duration_ms"}
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Running:
    """A server, its service, and how to ask it."""

    url: str
    service: Service
    downloads: Path

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def gradio_client(self) -> Client:
        return Client(self.url, verbose=False, analytics_enabled=False, download_files=self.downloads)

    def ask_client(self, film: bytes, name: str = "film.png", api_name: str = "/predict", **options: Any) -> Any:
        """Ask by gradio_client's own road: a file on this side, handle_file, predict."""
        self.downloads.mkdir(exist_ok=True, parents=True)
        path = self.downloads / name
        path.write_bytes(film)
        client = self.gradio_client()
        try:
            return client.predict(handle_file(path), api_name=api_name, **options)
        finally:
            client.close()
            path.unlink()

    def ask_raw(self, data: list[Any], name: str = "predict") -> tuple[str, Any]:
        """Ask by Gradio's two requests; returns the event and its data."""
        with self.http() as http:
            joined = http.post(f"/gradio_api/call/{name}", json={"data": data})
            joined.raise_for_status()
            answer = http.get(f"/gradio_api/call/{name}/{joined.json()['event_id']}")
        lines = [line for line in answer.text.splitlines() if line and "heartbeat" not in line]
        event, payload = lines[-2].removeprefix("event: "), lines[-1].removeprefix("data: ")
        return event, json.loads(payload)

    def upload(self, film: bytes, name: str = "film.png") -> dict[str, Any]:
        with self.http() as http:
            answer = http.post("/gradio_api/upload", files={"files": (name, film)})
            answer.raise_for_status()
        return file_data(answer.json()[0])

    def post(self, film: bytes, name: str = "film.png", **fields: str) -> httpx.Response:
        with self.http() as http:
            return http.post("/predict", files={"file": (name, film)}, data=fields)


def file_data(path: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def bare_page(service: Service) -> Any:
    with gr.Blocks(delete_cache=(1, 5)) as page:
        gr.Markdown("# PneumoNet")
        add_endpoints(service)
    return page


@contextlib.contextmanager
def serving(
    settings: Settings,
    load: Callable[[], PneumoNet],
    downloads: Path,
    build: Callable[[Service], Any] | None = bare_page,
    wait: bool = True,
) -> Iterator[Running]:
    """Serve in a thread for as long as the block lasts; `build` None takes PneumoNet's own page."""
    service = Service(settings, load)
    app = create_app(service, build(service) if build else None)
    config = configured(app, settings)
    config.port, config.timeout_graceful_shutdown = 0, 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    service.start()
    if wait:
        wait_until(lambda: service.status == "healthy")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", service, downloads)
    finally:
        server.should_exit = True
        thread.join(10)


def wait_until(ready: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def web_settings(tiny_snapshot: Path) -> Settings:
    # Every test's requests come from one address.
    return Settings(
        model=str(tiny_snapshot), device="cpu", max_upload_bytes=LIMIT_BYTES, requests_per_minute=0, open_requests=0
    )


@pytest.fixture(scope="session")
def running(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One server for every test that changes nothing."""
    with serving(web_settings, lambda: tiny_model, tmp_path_factory.mktemp("client")) as server:
        yield server


def dicom(pixels: Any = None, **tags: Any) -> bytes:
    """A small digital radiograph as a DICOM file; of no pixels where none are given."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = "1.2.3"
    film.Modality, film.BodyPartExamined, film.PatientName = "DX", "CHEST", "Doe^Jane"
    if pixels is not None:
        film.Rows, film.Columns = pixels.shape
        film.SamplesPerPixel, film.PhotometricInterpretation, film.PixelRepresentation = 1, "MONOCHROME2", 0
        film.BitsAllocated = film.BitsStored = pixels.dtype.itemsize * 8
        film.HighBit = film.BitsStored - 1
        film.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(film, name, value)
    buffer = io.BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def good_film() -> bytes:
    return encoded(phantom())


@pytest.fixture
def start(tiny_snapshot: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start app.py as a process of its own, in folders of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        for name in ("tmp", "cwd"):
            (tmp_path / name).mkdir(exist_ok=True)
        own = {
            "PNEUMONET_MODEL": str(tiny_snapshot),
            "PNEUMONET_DEVICE": "cpu",
            "PNEUMONET_PORT": "0",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(tmp_path / "tmp"),
            "GRADIO_TEMP_DIR": "",
        }
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")],
            cwd=tmp_path / "cwd",
            env=os.environ | own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("PneumoNet is at http://"), process.communicate()
    return line.split()[-1]


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the door and code of each line of our own that a test logged."""
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("pneumonet")]
    matches = [LOG_LINE.fullmatch(line) for line in lines]
    assert None not in matches, lines
    return [(match[1], match[2]) for match in matches if match]


def unforeseen(log: str) -> list[str]:
    """Return what stands in a log only where something failed that nobody foresaw."""
    return [sign for sign in ("Traceback", '"level": "ERROR"', "failed with") if sign in log]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # Gradio 6.31 counts its events with calls that pandas 3 deprecates.
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"))
