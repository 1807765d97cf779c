"""Debian's nginx with deploy/nginx.conf, in the foreground, in a folder of its own."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.dockerfile import ROOT, stages
from tests.support.net import free_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
TEMPLATE = (ROOT / "deploy" / "nginx.conf").read_text()


def rendered(template: str = TEMPLATE, **environment: str) -> str:
    """Fill in the template as the image does: with the environment, whose defaults the Dockerfile sets."""
    values = stages()["proxy"].environment | environment
    return re.sub(r"\$\{([A-Z_]+)\}", lambda name: values[name[1]], template)


@dataclass
class Nginx:
    """A running nginx."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    def lines(self) -> list[dict[str, Any]]:
        """Return what it logged of each request."""
        return [json.loads(line) for line in (self.folder / "out").read_text().splitlines()]

    def worker_of(self, request_id: str) -> str:
        """Return the address of the worker that answered a request."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            found = [line["worker"] for line in self.lines() if line["request_id"] == request_id]
            if found:
                return str(found[0])
            time.sleep(0.02)
        raise AssertionError(f"no line of {request_id}")

    def complaints(self) -> str:
        return (self.folder / "err").read_text()


@contextlib.contextmanager
def nginx(
    folder: Path, workers: list[str], change: Callable[[str], str] = lambda text: text, **environment: str
) -> Iterator[Nginx]:
    """Run nginx before workers, given as host:port, for as long as the block lasts.

    Args:
        folder: Of its own.
        workers: Where the app listens.
        change: Makes another template of ours, to see what a directive is good for.
        environment: Other than the Dockerfile's.
    """
    assert NGINX is not None
    folder.mkdir(parents=True)
    port = free_port()
    own = {
        "NGINX_LISTEN": f"127.0.0.1:{port}",
        "NGINX_RUN": str(folder),
        "NGINX_WORKERS": " ".join(f"server {worker};" for worker in workers),
        "NGINX_LOG_LEVEL": "warn",
        # Tests come from 127.0.0.1 and are to be strangers.
        "NGINX_TRUSTED_PROXY": "127.0.0.99",
    }
    (folder / "nginx.conf").write_text(rendered(change(TEMPLATE), **own | environment))
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
    running = Nginx(f"http://127.0.0.1:{port}", folder, process)
    try:
        _wait_until_open(port, running)
        yield running
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_open(port: int, running: Nginx) -> None:
    deadline = time.monotonic() + 20
    while True:
        assert running.process.poll() is None, running.complaints()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < deadline, running.complaints()
        time.sleep(0.05)
