"""Two workers as an operator starts them, and nginx before them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.load_test import wait_until_healthy
from tests.deploy.dockerfile import ROOT
from tests.deploy.nginx import NGINX, Nginx, nginx
from tests.support.films import encoded, phantom

PREFIX = "/pneumonet"
LISTED = "https://example.org"
Start = Callable[..., tuple[str, subprocess.Popen[str]]]


@pytest.fixture(scope="session")
def start_worker(tiny_snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start app.py with the tiny snapshot; returns its host:port and its process once it is healthy."""
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> tuple[str, subprocess.Popen[str]]:
        folder = tmp_path_factory.mktemp("worker")
        own = {
            "PNEUMONET_MODEL": str(tiny_snapshot), "PNEUMONET_DEVICE": "cpu", "PNEUMONET_PORT": "0",
            "PNEUMONET_ROOT_PATH": PREFIX, "PNEUMONET_ALLOWED_ORIGINS": LISTED,
            "PNEUMONET_REQUESTS_PER_MINUTE": "600", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder),
            # A server of this process sweeps all that lies in its own folder, which the environment names.
            "GRADIO_TEMP_DIR": str(folder),
        }  # fmt: skip
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PNEUMONET_")}
        with (folder / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "app.py")],
                cwd=folder, env=clean | own | environment, stdout=subprocess.PIPE, stderr=err, text=True,
            )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("PneumoNet is at http://"), (folder / "err").read_text()
        wait_until_healthy(line.split()[-1])
        return line.split("//")[-1].strip(), process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def workers(start_worker: Start) -> list[str]:
    """Two workers that no test changes."""
    if NGINX is None:
        pytest.skip("no nginx: apt-get install nginx")
    return [start_worker()[0] for _ in range(2)]


@pytest.fixture(scope="session")
def proxy(workers: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Nginx before both."""
    folder = tmp_path_factory.mktemp("nginx") / "run"
    with nginx(folder, workers, PNEUMONET_ROOT_PATH=PREFIX) as running:
        yield running


@pytest.fixture(scope="session", params=["", "consistent"], ids=["by place", "by name"])
def hashing(
    request: pytest.FixtureRequest, workers: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    """Nginx before both, by each of the two ways of hashing that deploy/ uses."""
    folder = tmp_path_factory.mktemp("hashing") / "run"
    with nginx(folder, workers, PNEUMONET_ROOT_PATH=PREFIX, NGINX_HASH=request.param) as running:
        yield running


@pytest.fixture(scope="session")
def film() -> bytes:
    return encoded(phantom())
