"""A pool of worker processes that no film ends: one that kills its process is told from the others and given up.

`concurrent.futures` breaks the whole pool with the first process that dies, and does not say of which task.
"""

import queue
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from pneumonet.batch.cores import films_a_pass, usual_workers
from pneumonet.batch.job import Job
from pneumonet.batch.process import Film, Group, Message, WorkerProcess
from pneumonet.batch.rows import OUR_FAILURES, Row, failed
from pneumonet.errors import InternalError, ModelUnavailableError, PneumoNetError, TookTooLongError, WorkerDiedError

# A worker has its next films at hand when it is done with some; more would only be lost time when it dies.
_GROUPS_AT_A_WORKER: Final = 2
_MOST_DEATHS_OF_A_FILM: Final = 2
_MOST_FAILED_STARTS: Final = 3
# Another machine of a cluster pulls the model first, up to a gigabyte over a slow line, and converts it.
_LOADING_SECONDS: Final = 1800


class WorkerPool:
    """Worker processes, each with a model of its own. Enter it to start the first, leave it to end all.

    A film whose process dies, or takes longer than `Job.film_seconds` for it and is ended, gets a second one; after
    that its row says `worker_died` or `took_too_long`. Since a worker answers one group of films after the other, the
    first that it owes is the one that it is at; of several films in it none is to blame yet, and each gets a second
    process alone. A process in which films failed as nobody foresaw is ended too.

    Attributes:
        workers: How many processes; where none is given, known from the first that is ready.
        device: Where the model runs, such as cpu; known from then on too.
        is_stopped: Whether `Job.stop_after` films in a row failed for no fault of theirs; no more are answered then.
    """

    def __init__(self, job: Job, workers: int | None = None) -> None:
        self._job = job
        self._inbox: queue.Queue[tuple[WorkerProcess, Message | None]] = queue.Queue()
        self._processes: list[WorkerProcess] = []
        self._failed_starts = 0
        self.workers, self.device = workers or 1, ""
        self._is_usual = workers is None
        self._films_a_pass = 1
        self._failures_in_a_row = 0
        self.is_stopped = False

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
        self._films_a_pass = films_a_pass(self.device)
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
        """Yield the row of each film, in the order in which they are answered, until too many in a row fail.

        Args:
            films: Each film's path as its row has it, and the place to read it from; taken as workers have room.

        Raises:
            ModelUnavailableError: If workers die or hang, again and again, before they have loaded the model.
        """
        source, again, deaths = iter(films), deque[Group](), Counter[Film]()
        while not self.is_stopped:
            self._fill(source, again)
            if not any(process.owed for process in self._processes):
                return
            for row in self._next(again, deaths):
                self._watch(row)
                yield row

    def _watch(self, row: Row) -> None:
        """Count failures in a row: many tell of a share that is away, of memory or of an accelerator, not of films."""
        self._failures_in_a_row = self._failures_in_a_row + 1 if row["error_code"] in OUR_FAILURES else 0
        self.is_stopped |= self._failures_in_a_row == self._job.stop_after != 0

    def _fill(self, source: Iterator[Film], again: deque[Group]) -> None:
        # One group for each before a second for any, so that the last films are shared out.
        for room in range(1, _GROUPS_AT_A_WORKER + 1):
            for index in range(self.workers):
                if index < len(self._processes) and len(self._processes[index].owed) >= room:
                    continue
                group = again.popleft() if again else tuple(islice(source, self._films_a_pass))
                if not group:
                    return
                if index == len(self._processes):
                    self._start()
                self._processes[index].send(group)

    def _start(self) -> None:
        self._processes.append(WorkerProcess(self._job, self._inbox))

    def _next(self, again: deque[Group], deaths: Counter[Film]) -> list[Row]:
        """Take in what a worker says, or end one that takes too long; return the rows that come of it."""
        at_work = [process for process in self._processes if process.owed or not process.is_ready]
        slowest = min(at_work, key=self._until)
        try:
            process, message = self._inbox.get(timeout=max(0.0, self._until(slowest) - time.monotonic()))
        except queue.Empty:
            return self._bury(slowest, again, deaths, is_overdue=True)
        # One that was given up may have its say after all.
        return self._take(process, message, again, deaths) if process in self._processes else []

    def _until(self, process: WorkerProcess) -> float:
        """Return when a worker has to be done with the films that it is at, or with loading the model."""
        return process.since + (self._job.film_seconds if process.is_ready else _LOADING_SECONDS)

    def _take(
        self, process: WorkerProcess, message: Message | None, again: deque[Group], deaths: Counter[Film]
    ) -> list[Row]:
        """Take in a worker's message, None for its end; return the rows where it has some."""
        if message is None:
            return self._bury(process, again, deaths)
        if "failure" in message:
            raise ModelUnavailableError(message["failure"], hint=message["hint"])
        if "ready" in message:
            process.become_ready()
            self.device = message["ready"]
            self._failed_starts = 0
            return []
        if "rows" not in message:
            return []
        group, rows = process.settle(), list[Row](message["rows"])
        if not rows or rows[-1]["error_code"] == InternalError.code:
            # An accelerator's context, say, that is broken stays so: every film after it would fail there.
            again.extend((film,) for film in group[len(rows) :])
            process.close(at_once=True)
            self._replace(process, again)
        return rows

    def _bury(
        self, process: WorkerProcess, again: deque[Group], deaths: Counter[Film], *, is_overdue: bool = False
    ) -> list[Row]:
        code = process.close(at_once=True)
        rows = []
        if not process.is_ready:
            self._count_failed_start(code, is_overdue)
        elif process.owed:
            group = process.settle()
            # Of several films any may have done it.
            if len(group) == 1:
                deaths.update(group)
            for film in group:
                if deaths[film] < _MOST_DEATHS_OF_A_FILM:
                    again.append((film,))
                else:
                    rows.append(failed(film[0], None, self._job.revision, self._reason(code, is_overdue)))
        self._replace(process, again)
        return rows

    def _replace(self, process: WorkerProcess, again: deque[Group]) -> None:
        again.extend(process.owed)
        self._processes[self._processes.index(process)] = WorkerProcess(self._job, self._inbox)

    def _count_failed_start(self, code: int | None, is_overdue: bool) -> None:
        self._failed_starts += 1
        if self._failed_starts < _MOST_FAILED_STARTS:
            return
        if is_overdue:
            raise ModelUnavailableError(
                f"The processes that load the model do not have it within {_LOADING_SECONDS} seconds.",
                hint="See whether its folder, or the Hub, can be read, and ask for fewer --workers.",
            )
        raise ModelUnavailableError(
            f"The processes that load the model end before they have it, with exit code {code}.",
            hint="Fewer --workers need less memory.",
        )

    def _reason(self, code: int | None, is_overdue: bool) -> PneumoNetError:
        if is_overdue:
            return TookTooLongError(f"The film was not answered within {self._job.film_seconds:g} seconds.")
        return WorkerDiedError(f"The process that answered this film ended twice, with exit code {code}.")
