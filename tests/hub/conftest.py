"""One local Hub, one client of it, and clients without a Hub, for all tests of this folder."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.client import Client
from tests.hub.repos import REPO, files_of, write_snapshot
from tests.hub.server import Files, LocalHub


@pytest.fixture(scope="session")
def _hub() -> Iterator[LocalHub]:
    hub = LocalHub()
    yield hub
    hub.close()


@pytest.fixture
def hub(_hub: LocalHub) -> LocalHub:
    """The local Hub, empty and without a fault."""
    _hub.reset()
    return _hub


def _running(endpoint: str, home: Path, **environment: str) -> Iterator[Client]:
    client = Client(endpoint, home, **environment)
    yield client
    client.close()


@pytest.fixture(scope="session")
def client(_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """PneumoNet with the local Hub as its Hub."""
    yield from _running(_hub.endpoint, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def loader(_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """PneumoNet that also loads what it pulled; its cache is one for all tests, so each has a repo of its own."""
    yield from _running(_hub.endpoint, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """PneumoNet whose Hub is at a port where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield from _running(f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def offline(_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """PneumoNet with HF_HUB_OFFLINE=1."""
    yield from _running(_hub.endpoint, tmp_path_factory.mktemp("home"), HF_HUB_OFFLINE="1")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache folder."""
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole snapshot folder, fit to publish."""
    folder = tmp_path / "snapshot"
    write_snapshot(folder)
    return folder


@pytest.fixture
def files(folder: Path) -> Files:
    """The files of that snapshot."""
    return files_of(folder)


@pytest.fixture
def commit(hub: LocalHub, files: Files) -> str:
    """The commit id of that snapshot, in `REPO` on the local Hub."""
    return hub.commit(REPO, files)
