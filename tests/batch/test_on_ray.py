"""The command on a real local Ray cluster, one of whose workers is killed in the middle."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.batch.conftest import BAD_FILMS, command, rows_of, write_films

FILMS = 24


@dataclass(frozen=True)
class Runs:
    folder: Path
    here: list[dict[str, Any]]
    on_ray: list[dict[str, Any]]
    killed: str
    left_when_killed: int
    told: str
    outlived: list[psutil.Process]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Runs:
    """The same films answered by this machine's processes, and on Ray while a worker of it is killed."""
    tmp = tmp_path_factory.mktemp("ray")
    folder = write_films(tmp / "films", FILMS, BAD_FILMS)

    def start(out: Path, *more: str, seconds_a_film: str) -> "subprocess.Popen[str]":
        own = {"ENDED_ONCE": f"{out}.ended-once", "SECONDS_A_FILM": seconds_a_film}
        return command(folder, "--out", out, *more, environment=environment | own)

    here, on_ray = tmp / "here.parquet", tmp / "ray.parquet"
    first = start(here, seconds_a_film="0")
    assert first.wait(120) == 0, first.communicate()
    # Ray takes seconds to write the first part, by when all films would have been answered.
    process = start(on_ray, "--ray", "--workers", "1", seconds_a_film="0.4")
    parts = tmp / "ray.parquet.parts"
    _until(process, lambda: any(parts.glob("part-*")))
    family = psutil.Process(process.pid).children(recursive=True)
    # The title of an actor is that of whatever it does just now; what it started tells it for sure.
    actor = next(p for p in family if "pneumonet.batch.worker" in _name_of(p)).parent()
    assert actor is not None
    name = _name_of(actor)
    actor.kill()
    left = FILMS + len(BAD_FILMS) - sum(int(part.stem.rpartition("-")[2]) for part in parts.glob("part-*"))
    _, told = process.communicate(timeout=180)
    assert process.returncode == 0, told
    _, outlived = psutil.wait_procs(family, timeout=10)
    return Runs(folder, rows_of(here), rows_of(on_ray), name, left, told, outlived)


def _name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # Ray ends the processes that it has too many of
        return ""


def _until(process: "subprocess.Popen[str]", done: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not done():
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_a_worker_was_killed_with_films_still_to_answer_and_no_row_is_lost(runs: Runs) -> None:
    assert runs.killed.startswith("ray::")
    assert runs.left_when_killed > 0
    assert [row["path"] for row in runs.on_ray] == sorted(path.name for path in runs.folder.iterdir())


def test_rows_are_those_of_this_machine_s_processes(runs: Runs) -> None:
    assert runs.on_ray == runs.here
    codes = {row["path"]: row["error_code"] for row in runs.on_ray}
    assert {name: codes[name] for name in BAD_FILMS} == {name: code for name, (code, _) in BAD_FILMS.items()}


def test_nothing_is_told_but_that_a_worker_died_and_nothing_is_left_running(runs: Runs) -> None:
    assert "Traceback" not in runs.told
    assert "film-0" not in runs.told
    assert runs.outlived == []
