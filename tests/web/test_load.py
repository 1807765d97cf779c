"""A server under load, in short: the whole measurement is scripts/load_test.py."""

import os
import signal
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import numpy as np
import pytest

from scripts import load_test
from tests.support.films import encoded, phantom

ROOT = Path(__file__).resolve().parents[2]


def _films() -> list[bytes]:
    return [encoded(phantom(300, 260, (0.2 + 0.06 * i, 0.3))) for i in range(8)]


def test_many_clients_get_the_answers_that_they_get_alone(tiny_snapshot: Path) -> None:
    blank = encoded(np.full((300, 260), 128, np.uint8))
    with load_test.server(PNEUMONET_MODEL=str(tiny_snapshot)) as (address, pid):
        # By this seed two of the clients begin with a film cut short, however few answers there are in the time.
        report = load_test.load(address, pid, [*_films(), blank], clients=16, seconds=4, seed=12)
    answers = report["answers"]
    assert answers["ok"] >= 14
    assert answers["unreadable_image"] >= 2
    assert answers["ok by Gradio"] > 0
    assert answers.get("not_admitted", 0) <= 3, "what is refused is no film of the load, but one of the spoilt"
    # Memory over so few seconds is the allocator's mood, and one /health the machine's: the script's minute is strict.
    assert report["memory_after_mib"] < 1.5 * report["memory_before_mib"]
    assert report["median_health_seconds"] < 1
    faults = {what for what in report["faults"] if "MiB" not in what and not what.startswith("/health took")}
    assert faults == set()


def test_a_server_that_answers_wrongly_does_not_pass(tiny_snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the shell has set is no part of what is measured: with this it would not start.
    monkeypatch.setenv("PNEUMONET_ENGINE", "no such engine")
    asked = load_test.what_is_said
    answers = iter(range(10_000))
    monkeypatch.setattr(load_test, "what_is_said", lambda answer: asked(answer) | {"turn": next(answers) >= 16})
    with load_test.server(PNEUMONET_MODEL=str(tiny_snapshot)) as (address, pid):
        report = load_test.load(address, pid, _films(), clients=2, seconds=2)
    assert any("another answer" in what for what in report["faults"])


def _seen() -> load_test.Tally:
    tally = load_test.Tally(health_seconds=[0.1, 0.2, 0.3])
    for code, seconds in (("ok", 1.0), ("ok", 3.0), ("busy", 0.01), ("not_admitted", 0.01)):
        tally.add(code, seconds)
    tally.codes["ok by Gradio"] += 1
    return tally


def test_only_analysed_films_count_over_the_time_that_they_took() -> None:
    report = load_test.summary(_seen(), 100, 105, seconds=6)
    assert report["films_per_second"] == 0.5
    assert report["p50_seconds"] == 2
    assert report["median_health_seconds"] == 0.2
    assert report["faults"] == {}
    table = load_test.as_table(report)
    assert "| analysed films a second, with heatmaps | 0.5 |" in table
    assert "| faults | none |" in table


def test_a_slow_look_at_health_and_memory_that_grows_are_faults() -> None:
    tally = _seen()
    tally.health_seconds.append(1.5)
    report = load_test.summary(tally, 100 * 2**20, 111 * 2**20, seconds=6)
    assert list(report["faults"]) == ["/health took 1.50 s", "the server held 100 MiB before and 111 MiB afterwards"]


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
