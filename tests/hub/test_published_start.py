"""The whole way of a model: published by the script, pulled and served by the app, and served once more offline."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pneumonet.model import PneumoNet
from tests.hub.client import ROOT
from tests.hub.repos import REPO, WEIGHTS, files_of, write_card_and_metrics
from tests.hub.server import LocalHub
from tests.support.films import encoded, phantom
from tests.support.snapshots import poison

TAG = "v0.0.1"
SECONDS = 90


@pytest.fixture
def own_hub() -> Iterator[LocalHub]:
    """A Hub that a test may close."""
    hub = LocalHub()
    yield hub
    hub.close()


@pytest.fixture
def environment(own_hub: LocalHub, tmp_path: Path) -> dict[str, str]:
    """The whole environment of each process, so that nothing from outside reaches it."""
    (tmp_path / "tmp").mkdir()
    return {
        "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1",
        "HF_ENDPOINT": own_hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False", "PNEUMONET_MODEL": REPO,
        "PNEUMONET_REVISION": TAG, "PNEUMONET_DEVICE": "cpu", "PNEUMONET_PORT": "0",
    }  # fmt: skip


def _publish(snapshot: Path, environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "to publish"
    shutil.copytree(snapshot, folder)
    write_card_and_metrics(folder, "0.0.1")
    # A cache of its own: the app must pull whatever it serves.
    own = environment | {"HF_HOME": str(tmp_path / "home of the publisher")}
    command = [sys.executable, str(ROOT / "scripts" / "publish.py"), str(folder), REPO]
    done = subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def _app(environment: dict[str, str], tmp_path: Path) -> Iterator[httpx.Client]:
    """Run app.py, and stop it as an operator would; yields a client of it as soon as it is healthy."""
    said = tmp_path / "said"
    with said.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")], env=environment, cwd=tmp_path, stdout=output, stderr=output
        )
    try:
        address = _wait_for(lambda: re.search(r"PneumoNet is at (\S+)\n", said.read_text()), process, said).group(1)
        with httpx.Client(base_url=address, timeout=SECONDS) as client:
            _wait_for(lambda: _is_healthy(client), process, said)
            yield client
        process.terminate()
        assert process.wait(SECONDS) == 0
        assert "Traceback" not in said.read_text()
    finally:
        process.kill()
        process.wait()


def _ended_app(environment: dict[str, str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "app.py")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def _is_healthy(app: httpx.Client) -> bool:
    try:
        return app.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def _wait_for(ask: Callable[[], Any], process: subprocess.Popen[bytes], said: Path) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (answer := ask()):
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)
    return answer


def _predict(app: httpx.Client, film: bytes) -> dict[str, Any]:
    response = app.post("/predict", files={"file": ("film.png", film, "image/png")})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_app_serves_what_was_published_and_goes_on_without_the_hub(
    own_hub: LocalHub, environment: dict[str, str], tiny_snapshot: Path, tiny_model: PneumoNet, tmp_path: Path
) -> None:
    _publish(tiny_snapshot, environment, tmp_path)
    commit = own_hub.repos[REPO].tags[TAG]
    film = encoded(phantom())
    expected = tiny_model.predict(film).to_dict()

    with _app(environment, tmp_path) as app:
        model = app.get("/health").json()["model"]
        assert (model["repo_id"], model["revision"]) == (REPO, commit)
        online = _predict(app, film)
    assert online["prediction"] == expected["prediction"]
    assert online["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    assert online["warnings"] == expected["warnings"]

    own_hub.close()
    with _app(environment, tmp_path) as app:
        assert app.get("/health").json()["model"] == model
        offline = _predict(app, film)
    assert offline["prediction"] == online["prediction"]
    assert offline["probabilities"] == pytest.approx(online["probabilities"], abs=1e-4)
    warning, *others = offline["warnings"]
    assert others == online["warnings"]
    for said in (REPO, TAG, "the Hub cannot be reached", commit):
        assert said in warning


def test_app_goes_on_with_the_commit_before_when_the_newest_does_not_load(
    own_hub: LocalHub, environment: dict[str, str], tiny_snapshot: Path, tmp_path: Path
) -> None:
    environment = environment | {"PNEUMONET_REVISION": "main"}
    good = own_hub.commit(REPO, files_of(tiny_snapshot))
    with _app(environment, tmp_path):
        pass
    spoilt = tmp_path / "spoilt"
    shutil.copytree(tiny_snapshot, spoilt)
    poison(spoilt, WEIGHTS, float("nan"))
    bad = own_hub.commit(REPO, files_of(spoilt))

    with _app(environment, tmp_path) as app:
        assert app.get("/health").json()["model"]["revision"] == good
        warning = _predict(app, encoded(phantom()))["warnings"][0]
    assert warning in (tmp_path / "said").read_text()
    for said in (bad, "is not used", WEIGHTS, "not finite", good):
        assert said in warning

    # The pinned commit is never exchanged for another, and the operator reads which file it is.
    ended = _ended_app(environment | {"PNEUMONET_REVISION": bad}, tmp_path)
    assert (ended.returncode, WEIGHTS in ended.stderr, "not finite" in ended.stderr) == (1, True, True)


def test_app_does_not_start_from_a_bad_commit_with_nothing_good_cached(
    own_hub: LocalHub, environment: dict[str, str], tiny_snapshot: Path, tmp_path: Path
) -> None:
    files = files_of(tiny_snapshot)
    own_hub.commit(REPO, {**files, WEIGHTS: bytes(len(files[WEIGHTS]))})
    ended = _ended_app(environment | {"PNEUMONET_REVISION": "main"}, tmp_path)
    assert ended.returncode == 1
    assert f"{WEIGHTS} of {REPO} at revision main is damaged" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_start_without_hub_and_cache_ends_with_one_sentence(
    own_hub: LocalHub, environment: dict[str, str], tmp_path: Path
) -> None:
    own_hub.close()
    done = _ended_app(environment, tmp_path)
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert len(told) == 1, done.stderr
    assert f"The model {REPO} at revision {TAG} cannot be pulled: the Hub cannot be reached." in told[0]
    assert "HF_ENDPOINT" in told[0]
    assert "Traceback" not in done.stderr + done.stdout
