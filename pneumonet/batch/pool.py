"""A pool of worker processes that no film ends: one that kills its process is told from the others and given up.

`concurrent.futures` breaks the whole pool with the first process that dies, and does not say of which task.
"""

import io
import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pneumonet.batch.job import Job
from pneumonet.batch.rows import Row, failed
from pneumonet.errors import ModelUnavailableError, WorkerDiedError

# A worker has its next film at hand when it is done with one; more would only be lost time when it dies.
_FILMS_AT_A_WORKER: Final = 2
_MOST_DEATHS_OF_A_FILM: Final = 2
_MOST_FAILED_STARTS: Final = 3
_PATIENCE_SECONDS: Final = 5
_ROOT: Final = str(Path(__file__).resolve().parents[2])

Film = tuple[str, str]


class WorkerPool:
    """Worker processes, each with a model of its own. Enter it to start the first, leave it to end all.

    A film whose process dies gets a second one; if that dies too, its row says `worker_died`. Since a worker answers
    one film after the other, the first that it owes an answer is the one that it died of.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self._job, self._most = job, workers
        self._inbox: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def __enter__(self) -> "WorkerPool":
        """Start the first worker and wait for it, so that a model that cannot be loaded is told at once.

        Raises:
            ModelUnavailableError: If the model cannot be loaded.
        """
        # The others find what it cached of the model, where they would all have converted it.
        self._start()
        try:
            while not self._workers[0].is_ready:
                self._take(*self._inbox.get(), deque(), Counter())
        except BaseException:
            self.close(at_once=True)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End the workers, after the film that they are at where nothing went wrong."""
        self.close(at_once=kind is not None)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close(at_once=at_once)
        self._workers.clear()

    def answer(self, films: Iterable[Film]) -> Iterator[Row]:
        """Yield the row of each film, in the order in which they are answered.

        Args:
            films: Each film's path as its row has it, and the place to read it from; taken as workers have room.

        Raises:
            ModelUnavailableError: If workers die, again and again, before they have loaded the model.
        """
        source, again, deaths = iter(films), deque[Film](), Counter[Film]()
        self._fill(source, again)
        while any(worker.owed for worker in self._workers):
            if (row := self._take(*self._inbox.get(), again, deaths)) is not None:
                yield row
            self._fill(source, again)

    def _fill(self, source: Iterator[Film], again: deque[Film]) -> None:
        # One film for each before a second for any, so that the last films are shared out.
        for room in range(1, _FILMS_AT_A_WORKER + 1):
            for index in range(self._most):
                if index < len(self._workers) and len(self._workers[index].owed) >= room:
                    continue
                film = again.popleft() if again else next(source, None)
                if film is None:
                    return
                if index == len(self._workers):
                    self._start()
                self._workers[index].send(film)

    def _start(self) -> None:
        self._workers.append(_Worker(self._job, self._inbox))

    def _take(
        self, worker: "_Worker", message: dict[str, Any] | None, again: deque[Film], deaths: Counter[Film]
    ) -> Row | None:
        """Take in a worker's message, None for its end; return the row where it is one."""
        if message is None:
            return self._bury(worker, again, deaths)
        if "failure" in message:
            raise ModelUnavailableError(message["failure"], hint=message["hint"])
        if "ready" in message:
            worker.is_ready = True
            self._failed_starts = 0
            return None
        worker.owed.popleft()
        return message

    def _bury(self, worker: "_Worker", again: deque[Film], deaths: Counter[Film]) -> Row | None:
        if worker not in self._workers:
            return None
        code = worker.close(at_once=True)
        row = None
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts == _MOST_FAILED_STARTS:
                raise ModelUnavailableError(
                    f"The processes that load the model end before they have it, with exit code {code}.",
                    hint="Fewer --workers need less memory.",
                )
        elif worker.owed:
            film = worker.owed.popleft()
            deaths[film] += 1
            if deaths[film] < _MOST_DEATHS_OF_A_FILM:
                again.append(film)
            else:
                error = WorkerDiedError(f"The process that answered this film ended twice, with exit code {code}.")
                row = failed(film[0], None, self._job.revision, error)
        again.extend(worker.owed)
        self._workers[self._workers.index(worker)] = _Worker(self._job, self._inbox)
        return row


class _Worker:
    """One process, and the thread that listens to it: pipes can be waited for together on few systems."""

    def __init__(self, job: Job, inbox: "queue.Queue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        self.owed: deque[Film] = deque()
        self.is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pneumonet.batch.worker", *(["--force"] if job.force else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=_environment(job),
        )
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def send(self, film: Film) -> None:
        """Hand a film over."""
        self.owed.append(film)
        assert self._process.stdin is not None
        # That a worker is dead is for its listener to say.
        with suppress(OSError):
            self._process.stdin.write(json.dumps(film).encode() + b"\n")

    def close(self, *, at_once: bool) -> int:
        """End the process; return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if at_once:
            self._process.kill()
        try:
            return self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _listen(self, inbox: "queue.Queue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        assert self._process.stdout is not None
        with io.BufferedReader(self._process.stdout) as lines:  # type: ignore[type-var]
            for line in lines:
                # A process that dies while it writes leaves half a line.
                if line.endswith(b"\n"):
                    inbox.put((self, json.loads(line)))
        inbox.put((self, None))


def _environment(job: Job) -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(job.threads))
    path = os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **job.environment, **threads, "PYTHONPATH": path}
