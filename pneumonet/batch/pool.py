"""A pool of worker processes that no film ends: one that kills its process is told from the others and given up.

`concurrent.futures` breaks the whole pool with the first process that dies, and does not say of which task.
"""

import queue
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final

from pneumonet.batch.cores import usual_workers
from pneumonet.batch.job import Job
from pneumonet.batch.process import Film, Message, WorkerProcess
from pneumonet.batch.rows import Row, failed
from pneumonet.errors import ModelUnavailableError, PneumoNetError, TookTooLongError, WorkerDiedError

# A worker has its next film at hand when it is done with one; more would only be lost time when it dies.
_FILMS_AT_A_WORKER: Final = 2
_MOST_DEATHS_OF_A_FILM: Final = 2
_MOST_FAILED_STARTS: Final = 3


class WorkerPool:
    """Worker processes, each with a model of its own. Enter it to start the first, leave it to end all.

    A film whose process dies, or takes longer than `Job.film_seconds` for it and is ended, gets a second one; after
    that its row says `worker_died` or `took_too_long`. Since a worker answers one film after the other, the first that
    it owes an answer is the one that it is at.

    Attributes:
        workers: How many processes; where none is given, known from the first that is ready.
        device: Where the model runs, such as cpu; known from then on too.
    """

    def __init__(self, job: Job, workers: int | None = None) -> None:
        self._job = job
        self._inbox: queue.Queue[tuple[WorkerProcess, Message | None]] = queue.Queue()
        self._processes: list[WorkerProcess] = []
        self._failed_starts = 0
        self.workers, self.device = workers or 1, ""
        self._is_usual = workers is None

    def __enter__(self) -> "WorkerPool":
        """Start the first worker and wait for it, so that a model that cannot be loaded is told at once.

        Raises:
            ModelUnavailableError: If the model cannot be loaded.
        """
        # The others find what it cached of the model, where they would all have converted it.
        self._start()
        try:
            while not self._processes[0].is_ready:
                self._next(deque(), Counter())
        except BaseException:
            self.close(at_once=True)
            raise
        if self._is_usual:
            self.workers = usual_workers(self.device)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End the workers, after the film that they are at where nothing went wrong."""
        self.close(at_once=kind is not None)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers."""
        for process in self._processes:
            process.close(at_once=at_once)
        self._processes.clear()

    def answer(self, films: Iterable[Film]) -> Iterator[Row]:
        """Yield the row of each film, in the order in which they are answered.

        Args:
            films: Each film's path as its row has it, and the place to read it from; taken as workers have room.

        Raises:
            ModelUnavailableError: If workers die, again and again, before they have loaded the model.
        """
        source, again, deaths = iter(films), deque[Film](), Counter[Film]()
        self._fill(source, again)
        while any(process.owed for process in self._processes):
            if (row := self._next(again, deaths)) is not None:
                yield row
            self._fill(source, again)

    def _fill(self, source: Iterator[Film], again: deque[Film]) -> None:
        # One film for each before a second for any, so that the last films are shared out.
        for room in range(1, _FILMS_AT_A_WORKER + 1):
            for index in range(self.workers):
                if index < len(self._processes) and len(self._processes[index].owed) >= room:
                    continue
                film = again.popleft() if again else next(source, None)
                if film is None:
                    return
                if index == len(self._processes):
                    self._start()
                self._processes[index].send(film)

    def _start(self) -> None:
        self._processes.append(WorkerProcess(self._job, self._inbox))

    def _next(self, again: deque[Film], deaths: Counter[Film]) -> Row | None:
        """Take in what a worker says, or end one that is at its film for too long; return the row that comes of it."""
        at_work = [process for process in self._processes if process.is_ready and process.owed]
        slowest = min(at_work, key=lambda process: process.since, default=None)
        until = slowest.since + self._job.film_seconds if slowest else None
        try:
            process, message = self._inbox.get(timeout=until and max(0.0, until - time.monotonic()))
        except queue.Empty:
            assert slowest is not None
            return self._bury(slowest, again, deaths, is_overdue=True)
        # One that was given up may have its say after all.
        return self._take(process, message, again, deaths) if process in self._processes else None

    def _take(
        self, process: WorkerProcess, message: Message | None, again: deque[Film], deaths: Counter[Film]
    ) -> Row | None:
        """Take in a worker's message, None for its end; return the row where it is one."""
        if message is None:
            return self._bury(process, again, deaths)
        if "failure" in message:
            raise ModelUnavailableError(message["failure"], hint=message["hint"])
        if "ready" in message:
            process.become_ready()
            self.device = message["ready"]
            self._failed_starts = 0
            return None
        if "row" not in message:
            return None
        process.settle()
        row: Row = message["row"]
        return row

    def _bury(
        self, process: WorkerProcess, again: deque[Film], deaths: Counter[Film], *, is_overdue: bool = False
    ) -> Row | None:
        code = process.close(at_once=True)
        row = None
        if not process.is_ready:
            self._count_failed_start(code)
        elif process.owed:
            film = process.settle()
            deaths[film] += 1
            if deaths[film] < _MOST_DEATHS_OF_A_FILM:
                again.append(film)
            else:
                row = failed(film[0], None, self._job.revision, self._reason(code, is_overdue))
        again.extend(process.owed)
        self._processes[self._processes.index(process)] = WorkerProcess(self._job, self._inbox)
        return row

    def _count_failed_start(self, code: int | None) -> None:
        self._failed_starts += 1
        if self._failed_starts == _MOST_FAILED_STARTS:
            raise ModelUnavailableError(
                f"The processes that load the model end before they have it, with exit code {code}.",
                hint="Fewer --workers need less memory.",
            )

    def _reason(self, code: int | None, is_overdue: bool) -> PneumoNetError:
        if is_overdue:
            return TookTooLongError(f"The film was not answered within {self._job.film_seconds:g} seconds.")
        return WorkerDiedError(f"The process that answered this film ended twice, with exit code {code}.")
