"""Worker processes that die, hang, babble, or cannot be ended."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pneumonet.batch import pool as pool_module
from pneumonet.batch.job import Job
from pneumonet.batch.pool import WorkerPool
from pneumonet.batch.process import Film, WorkerProcess
from pneumonet.errors import ModelUnavailableError
from tests.batch.conftest import HANG_ONCE, film, harm


def _job(snapshot: Path, film_seconds: float = 120) -> Job:
    environment = {"PNEUMONET_MODEL": str(snapshot), "PNEUMONET_DEVICE": "cpu"}
    return Job(environment, "local-1", False, 1, film_seconds)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Film]:
    """Three films, the second of which comes back late, once."""
    monkeypatch.setenv("PYTHONPATH", str(harm(tmp_path)))
    monkeypatch.setenv("ENDED_ONCE", str(tmp_path / "once"))
    monkeypatch.setenv("SECONDS_LATE", "600")
    for name, data in (("a", film(1)), ("b", film(2, HANG_ONCE)), ("c", film(3))):
        (tmp_path / name).write_bytes(data)
    return [(name, str(tmp_path / name)) for name in "abc"]


def test_a_model_that_cannot_be_loaded_is_told_as_the_worker_tells_it(tiny_snapshot: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no snapshot folder"), WorkerPool(_job(tiny_snapshot / "none"), 1):
        pass


def test_workers_that_die_while_they_load_are_given_up(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelUnavailableError, match="exit code -9") as raised, WorkerPool(_job(tiny_snapshot), 2):
        pass
    assert "--workers" in raised.value.hint


def test_a_film_that_hung_once_is_answered_the_second_time(tiny_snapshot: Path, films: list[Film]) -> None:
    with WorkerPool(_job(tiny_snapshot, 3), 1) as pool:
        started = time.monotonic()
        rows = list(pool.answer(films))
    assert time.monotonic() - started < 60
    assert sorted((row["path"], row["error_code"]) for row in rows) == [("a", None), ("b", None), ("c", None)]


def test_a_process_that_cannot_be_ended_is_left_and_not_listened_to(
    tiny_snapshot: Path, films: list[Film], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS_LATE", "8")
    left, close = [], WorkerProcess.close

    def leave(process: WorkerProcess, *, at_once: bool) -> int | None:
        left.append(process)
        return None

    with WorkerPool(_job(tiny_snapshot, 4), 1) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(WorkerProcess, "close", leave)
            rows = list(pool.answer(films))
        # Its film comes back at last: the pool has the next answers of others by then.
        assert left[0]._process.poll() is None
        time.sleep(6)
        rows += pool.answer(films[:1])
    close(left[0], at_once=True)
    assert sorted(row["path"] for row in rows) == ["a", "a", "b", "c"]
    assert {row["error_code"] for row in rows} == {None}


def test_a_process_that_the_system_does_not_end_is_not_waited_for(
    tiny_snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumonet.batch.process._PATIENCE_SECONDS", 0.05)
    with WorkerPool(_job(tiny_snapshot), 1) as pool:
        process = pool._processes[0]._process
        with monkeypatch.context() as patched:
            patched.setattr(process, "kill", lambda: None)
            os.kill(process.pid, signal.SIGSTOP)
            assert pool._processes[0].close(at_once=True) is None
        pool._processes.clear()
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "printed",
    [b"Loading a library\n", b"half a line", b'{"an": "object"}\n[1]\n\xff\n', b"[" * 100_000 + b"\n"],
    ids=["a line", "no line's end", "what is no message", "too deep"],
)
def test_what_a_library_prints_before_the_model_is_loaded_is_noise(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: bytes
) -> None:
    (tmp_path / "printed").write_bytes(printed)
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\nos.write(1, open({str(tmp_path / 'printed')!r}, 'rb').read())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "film.jpg").write_bytes(film(1))
    with WorkerPool(_job(tiny_snapshot), 1) as pool:
        [row] = pool.answer([("film.jpg", str(tmp_path / "film.jpg"))])
    assert row["error_code"] is None


class _Stub:
    """A process that is ready at once."""

    device = "cpu"

    def __init__(self, job: Job, inbox: Any) -> None:
        self.owed, self.is_ready = (), False
        inbox.put((self, {"ready": self.device}))

    def become_ready(self) -> None:
        self.is_ready = True

    def close(self, *, at_once: bool) -> int:
        return 0


@pytest.mark.parametrize(
    ("device", "asked", "workers"),
    [("cpu", None, 4), ("cpu", 3, 3), ("cuda", None, 1), ("mps", None, 1), ("cuda", 2, 2)],
)
def test_an_accelerator_has_one_worker_where_nobody_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, asked: int | None, workers: int
) -> None:
    monkeypatch.setattr(_Stub, "device", device)
    monkeypatch.setattr(pool_module, "WorkerProcess", _Stub)
    monkeypatch.setattr("pneumonet.batch.cores.usable_cores", lambda: 8)
    with WorkerPool(_job(tmp_path), asked) as pool:
        assert (pool.device, pool.workers) == (device, workers)


def test_a_ready_worker_says_where_the_model_runs(tiny_snapshot: Path) -> None:
    with WorkerPool(_job(tiny_snapshot)) as pool:
        assert pool.device == "cpu"
