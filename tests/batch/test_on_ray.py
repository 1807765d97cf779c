"""The command on a real local Ray cluster, one of whose workers is killed in the middle."""

from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from pneumonet.batch.parts import folder_of
from tests.batch.conftest import BAD_FILMS, Run, command, of_harm, rows_of, until


@dataclass(frozen=True)
class Killed:
    rows: list[dict[str, Any]]
    code: int
    name: str
    left: int
    told: str
    outlived: list[psutil.Process]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], answered_here: Run) -> Killed:
    """The same films answered on Ray while a worker of it is killed."""
    tmp = tmp_path_factory.mktemp("ray")
    out = tmp / "ray.parquet"
    asked = (answered_here.folder, "--out", out, "--ray", "--workers", "1")
    process = command(*asked, environment=environment | of_harm(tmp))
    until(process, lambda: any(folder_of(out).glob("part-*")))
    family = psutil.Process(process.pid).children(recursive=True)
    # The title of an actor is that of whatever it does just now; what it started tells it for sure.
    actor = next(p for p in family if "pneumonet.batch.worker" in _name_of(p)).parent()
    assert actor is not None
    name = _name_of(actor)
    actor.kill()
    answered = sum(int(part.stem.rpartition("-")[2]) for part in folder_of(out).glob("part-*"))
    # The last film waits for this: some were left for certain.
    (tmp / "released").touch()
    _, told = process.communicate(timeout=180)
    _, outlived = psutil.wait_procs(family, timeout=10)
    films = len(list(answered_here.folder.iterdir()))
    return Killed(rows_of(out), process.returncode, name, films - answered, told, outlived)


def _name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # Ray ends the processes that it has too many of
        return ""


def test_a_worker_was_killed_with_films_still_to_answer_and_no_row_is_lost(killed: Killed, answered_here: Run) -> None:
    assert killed.name.startswith("ray::")
    assert killed.left > 0
    assert [row["path"] for row in killed.rows] == sorted(path.name for path in answered_here.folder.iterdir())


def test_rows_and_exit_code_are_those_of_this_machine_s_processes(killed: Killed, answered_here: Run) -> None:
    assert (killed.rows, killed.code) == (rows_of(answered_here.out), answered_here.code)
    codes = {row["path"]: row["error_code"] for row in killed.rows}
    assert {name: codes[name] for name in BAD_FILMS} == {name: code for name, (code, _) in BAD_FILMS.items()}


def test_nothing_is_told_but_that_a_worker_died_and_nothing_is_left_running(killed: Killed) -> None:
    assert "Traceback" not in killed.told
    assert "film-0" not in killed.told
    assert killed.outlived == []
