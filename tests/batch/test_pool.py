"""Worker processes that die, hang, babble, or cannot be ended."""

import os
import queue
import signal
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pneumonet.batch import pool as pool_module
from pneumonet.batch.job import Job
from pneumonet.batch.pool import WorkerPool
from pneumonet.batch.process import Film, Group, WorkerProcess
from pneumonet.errors import ModelUnavailableError
from tests.batch.conftest import HANG_ONCE, film, harm

_HANG = "import time\ntime.sleep(600)\n"


def _job(snapshot: Path, film_seconds: float = 120) -> Job:
    environment = {"PNEUMONET_MODEL": str(snapshot), "PNEUMONET_DEVICE": "cpu"}
    return Job(environment, "local-1", False, 1, film_seconds)


def _before_loading(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have every worker run code before its own."""
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Film]:
    """Three films, the second of which comes back late, once."""
    monkeypatch.setenv("PYTHONPATH", str(harm(tmp_path)))
    monkeypatch.setenv("ENDED_ONCE", str(tmp_path / "once"))
    monkeypatch.setenv("RELEASED", str(tmp_path / "released"))
    for name, data in (("a", film(1)), ("b", film(2, HANG_ONCE)), ("c", film(3))):
        (tmp_path / name).write_bytes(data)
    return [(name, str(tmp_path / name)) for name in "abc"]


def test_a_model_that_cannot_be_loaded_is_told_as_the_worker_tells_it(tiny_snapshot: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no snapshot folder"), WorkerPool(_job(tiny_snapshot / "none"), 1):
        pass


def test_workers_that_die_while_they_load_are_given_up(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _before_loading(tmp_path, monkeypatch, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(ModelUnavailableError, match="exit code -9") as raised, WorkerPool(_job(tiny_snapshot), 2):
        pass
    assert "--workers" in raised.value.hint


def test_workers_that_hang_while_they_load_are_given_up(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _before_loading(tmp_path, monkeypatch, _HANG)
    monkeypatch.setattr(pool_module, "_LOADING_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(ModelUnavailableError, match="within 1 seconds") as raised, WorkerPool(_job(tiny_snapshot), 2):
        pass
    assert time.monotonic() - started < 60
    assert "Hub" in raised.value.hint


def test_a_worker_that_hangs_while_it_loads_costs_no_film(
    scripted: "type[_Scripted]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_LOADING_SECONDS", 0)
    monkeypatch.setattr(scripted, "silent", {2, 3})
    codes: list[str] = []

    def answer() -> None:
        with WorkerPool(_job(tmp_path), 2) as pool:
            codes.extend(_codes(pool, *"abcdef"))

    # In a thread that may be left: a pool that waits for the silent ones does so for ever.
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    thread.join(30)
    assert sorted(codes) == list("abcdef")
    assert scripted.started == 4, "the second worker, started anew twice"


def test_films_that_are_sent_while_the_model_is_loaded_buy_no_time(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _before_loading(tmp_path, monkeypatch, _HANG)
    process = WorkerProcess(_job(tiny_snapshot), queue.Queue())
    try:
        begun = process.since
        time.sleep(0.01)
        process.send((("a", "a"),))
        assert process.since == begun
        process.become_ready()
        assert process.since > begun, "the films' own time begins"
    finally:
        process.close(at_once=True)


def test_a_film_that_hung_once_is_answered_the_second_time(tiny_snapshot: Path, films: list[Film]) -> None:
    with WorkerPool(_job(tiny_snapshot, 3), 1) as pool:
        started = time.monotonic()
        rows = list(pool.answer(films))
    assert time.monotonic() - started < 60
    assert sorted((row["path"], row["error_code"]) for row in rows) == [("a", None), ("b", None), ("c", None)]


def test_a_process_that_cannot_be_ended_is_left_and_not_listened_to(
    tiny_snapshot: Path, tmp_path: Path, films: list[Film], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, close = [], WorkerProcess.close

    def leave(process: WorkerProcess, *, at_once: bool) -> int | None:
        left.append(process)
        return None

    with WorkerPool(_job(tiny_snapshot, 3), 1) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(WorkerProcess, "close", leave)
            rows = list(pool.answer(films))
        # Its film comes back at last: the pool has the next answers of others by then.
        assert left[0]._process.poll() is None
        inbox = pool._inbox.qsize()
        (tmp_path / "released").touch()
        end = time.monotonic() + 60
        while pool._inbox.qsize() == inbox:
            assert time.monotonic() < end
            time.sleep(0.005)
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


def test_what_a_library_prints_before_the_model_is_loaded_is_noise(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = [b"Loading a library\n", b'{"an": "object"}\n[1]\n\xff\n', b"[" * 100_000 + b"\n", b"half a line"]
    (tmp_path / "printed").write_bytes(b"".join(noise))
    printing = f"import os\nfor line in open({str(tmp_path / 'printed')!r}, 'rb'):\n    os.write(1, line)\n"
    _before_loading(tmp_path, monkeypatch, printing)
    (tmp_path / "film.jpg").write_bytes(film(1))
    with WorkerPool(_job(tiny_snapshot)) as pool:
        assert pool.device == "cpu"
        [row] = pool.answer([("film.jpg", str(tmp_path / "film.jpg"))])
    assert row["error_code"] is None


class _Stub:
    """A process that is ready at once."""

    device = "cpu"

    def __init__(self, job: Job, inbox: Any) -> None:
        self.owed, self.is_ready, self.since = deque[Group](), False, 0.0
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


class _Scripted(_Stub):
    """A process that is told what to answer: rows of the codes that its films' names are, and it ends with `end`.

    The `silent` ones say nothing, as if they hung while they load.
    """

    sent: ClassVar[list[tuple[int, list[str]]]] = []
    silent: ClassVar[set[int]] = set()
    started = 0

    def __init__(self, job: Job, inbox: Any) -> None:
        _Scripted.started += 1
        self._number = _Scripted.started
        self._inbox = queue.Queue[Any]() if self._number in self.silent else inbox
        super().__init__(job, self._inbox)

    def send(self, group: Group) -> None:
        self.owed.append(group)
        self.sent.append((self._number, [path for path, _ in group]))
        paths = [path for path, _ in group]
        codes = [path.partition("-")[0] for path in paths]
        answered = codes[: codes.index("internal_error") + 1] if "internal_error" in codes else codes
        rows = [{"path": path, "error_code": code} for path, code in zip(paths, answered, strict=False)]
        self._inbox.put((self, None if "end" in paths else {"rows": rows}))

    def settle(self) -> Group:
        return self.owed.popleft()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[_Scripted]:
    monkeypatch.setattr(pool_module, "WorkerProcess", _Scripted)
    monkeypatch.setattr(_Scripted, "sent", [])
    monkeypatch.setattr(_Scripted, "started", 0)
    return _Scripted


def _codes(pool: WorkerPool, *names: str) -> list[str]:
    return [row["error_code"] for row in pool.answer((name, "place") for name in names)]


def test_a_process_in_which_a_film_failed_as_nobody_foresaw_answers_no_other(
    scripted: type[_Scripted], tmp_path: Path
) -> None:
    with WorkerPool(_job(tmp_path), 1) as pool:
        assert _codes(pool, "a", "internal_error", "b") == ["a", "internal_error", "b"]
    assert scripted.started == 2
    assert (2, ["b"]) in scripted.sent


def test_films_of_an_accelerator_go_in_groups_and_one_that_ends_its_process_costs_no_other(
    scripted: type[_Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripted, "device", "cuda")
    names = ["a", "b", "end", *"cdefg", "internal_error", *"hi"]
    with WorkerPool(_job(tmp_path)) as pool:
        codes = _codes(pool, *names)
    assert sorted(codes) == sorted({*names, "worker_died"} - {"end"})
    # The second group was not begun when its process ended. Whoever shared a pass with what failed is alone after it.
    assert [sent for _, sent in scripted.sent if len(sent) > 1] == [names[:8], names[8:], names[8:]]
    assert all([name] in [sent for _, sent in scripted.sent] for name in names if name != "internal_error")


@pytest.mark.parametrize(("stop_after", "answered"), [(3, 8), (4, 9), (0, 9)])
def test_failures_in_a_row_for_no_fault_of_the_films_stop_the_pool(
    scripted: type[_Scripted], tmp_path: Path, stop_after: int, answered: int
) -> None:
    away, slow, bad = "file_unavailable", "took_too_long", "unreadable_image"
    names = [f"{code}-{i}" for i, code in enumerate([away, away, bad, bad, bad, away, slow, away, "good"])]
    with WorkerPool(replace(_job(tmp_path), stop_after=stop_after), 1) as pool:
        assert len(_codes(pool, *names)) == answered
        assert pool.is_stopped == (answered < 9)
        assert len(_codes(pool, "another")) == (not pool.is_stopped)
