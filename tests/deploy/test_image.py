"""What deploy/Dockerfile copies, and its own commands run on just that: there is no docker here."""

import os
import re
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.deploy.dockerfile import DOCKERFILE, ROOT, stages
from tests.support.net import free_port


def _copied() -> list[str]:
    return [source for stage in stages().values() for source in stage.copied]


def test_the_last_stage_builds_nothing() -> None:
    assert list(stages()) == ["build", "proxy", "app"]
    app = stages()["app"]
    ran = " ".join(app.all("RUN"))
    assert [tool for tool in ("apt", "pip", "gcc", "make") if re.search(rf"\b{tool}\b", ran)] == []
    assert app.base == stages()["build"].base, "a virtual environment works with the Python that it was made by"
    order = [kind for kind, _ in app.instructions]
    assert order.index("USER") < order.index("CMD")
    assert order.index("USER") < len(order) - 1 - order[::-1].index("RUN"), "the cache belongs to who reads it"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().split()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert set(_copied()) == kept
    for source in _copied():
        assert (ROOT / source).exists(), source
        tracked = subprocess.run(["git", "-C", str(ROOT), "check-ignore", source], capture_output=True, check=False)
        assert tracked.returncode == 1, f"{source} is in no clone"
    assert not any(fnmatch("pneumonet", line) for line in lines[1:] if not line.startswith("!"))


def test_what_a_setting_needs_beside_the_app_is_installed() -> None:
    # Whoever injects OTEL_EXPORTER_OTLP_ENDPOINT into every pod is not to end its start.
    [installed] = [text for text in stages()["build"].all("RUN") if "requirements.txt" in text]
    for name in ("requirements-otel.txt", "requirements-redis.txt"):
        assert f"-r /build/{name}" in installed
        assert name in stages()["build"].copied


@pytest.fixture
def image(tmp_path: Path, tiny_snapshot: Path) -> tuple[Path, dict[str, str]]:
    """The folder that the image would hold, with tiny weights, and the environment that it would set."""
    folder, app = tmp_path / "app", stages()["app"]
    folder.mkdir()
    for source in app.copied:
        if source == "model_card":
            shutil.copytree(tiny_snapshot, folder / source)
        elif (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder)
    port = free_port()
    here = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "GRADIO_TEMP_DIR": str(tmp_path / "gradio"),
        "PNEUMONET_CACHE_DIR": str(tmp_path / "cache"),
        "PNEUMONET_DEVICE": "cpu",
        "PNEUMONET_HOST": "127.0.0.1",
        "PNEUMONET_PORT": str(port),
    }
    return folder, app.environment | here


def test_its_commands_work_on_just_what_it_holds(image: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, environment = image
    app = stages()["app"]
    cache = tmp_path / "cache"

    def run(kind: str) -> subprocess.CompletedProcess[str]:
        command = app.command(kind)
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    warm = run("RUN")
    assert warm.returncode == 0, warm.stderr
    converted = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert converted, "the cache is to be filled when the image is built"
    assert run("HEALTHCHECK").returncode != 0
    server = subprocess.Popen(
        app.command("CMD"), cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 90
        while (health := run("HEALTHCHECK")).returncode != 0:
            assert server.poll() is None, server.communicate()[1]
            assert time.monotonic() < deadline, health.stderr
            time.sleep(0.5)
        assert {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()} == converted
        server.terminate()
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()
