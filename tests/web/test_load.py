"""A server under load, in short: the whole measurement is scripts/load_test.py."""

import os
import signal
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from scripts import load_test
from tests.support.films import encoded, phantom

ROOT = Path(__file__).resolve().parents[2]


def _films() -> list[bytes]:
    return [encoded(phantom(300, 260, (0.2 + 0.06 * i, 0.3))) for i in range(8)]


def test_many_clients_get_the_answers_that_they_get_alone(tiny_snapshot: Path) -> None:
    with load_test.server(str(tiny_snapshot)) as (address, pid):
        report = load_test.load(address, pid, _films(), clients=16, seconds=8)
    assert report["answers"]["ok"] > 50
    assert report["answers"]["unreadable_image"] > 0
    assert report["answers"]["ok by Gradio"] > 0
    # Memory over so few seconds is the allocator's mood, and the time of /health the machine's: the script's minute
    # judges both.
    faults = {what for what in report["faults"] if "MiB" not in what and not what.startswith("/health took")}
    assert faults == set()


def test_a_server_that_answers_wrongly_does_not_pass(tiny_snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load_test.what_is_said
    answers = iter(range(10_000))
    monkeypatch.setattr(load_test, "what_is_said", lambda answer: asked(answer) | {"turn": next(answers) > 40})
    with load_test.server(str(tiny_snapshot)) as (address, pid):
        report = load_test.load(address, pid, _films(), clients=2, seconds=3)
    assert any("another answer" in what for what in report["faults"])


def test_a_server_killed_while_it_answers_leaves_no_film_and_starts_again(tiny_snapshot: Path, tmp_path: Path) -> None:
    film = encoded(phantom(3000, 3000))
    environment = os.environ | {
        "PNEUMONET_PORT": "0", "PNEUMONET_MODEL": str(tiny_snapshot), "GRADIO_TEMP_DIR": str(tmp_path / "gradio"),
        "TMPDIR": str(tmp_path / "tmp"), "PNEUMONET_REQUESTS_PER_MINUTE": "0",
    }  # fmt: skip
    (tmp_path / "tmp").mkdir()
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        address = process.stdout.readline().rsplit(" ", 1)[-1].strip()
        load_test.wait_until_healthy(address)
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(load_test.ask, address, film) for _ in range(12)]
            # One answered, and at least eight behind it: the kill falls into the middle of an answer.
            wait(asked, return_when=FIRST_COMPLETED)
            process.send_signal(signal.SIGKILL)
            process.wait()
            cut = [future for future in asked if isinstance(future.exception(), httpx.HTTPError)]
        assert cut
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path for path in left if path.stat().st_size > 1000] == []
