"""One worker process as its pool sees it: the films that it owes, since when, and what it says."""

import io
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pneumonet.batch.job import Job

_PATIENCE_SECONDS: Final = 5
_ROOT: Final = str(Path(__file__).resolve().parents[2])

Film = tuple[str, str]
# Films that share a pass.
Group = tuple[Film, ...]
Message = dict[str, Any]


class WorkerProcess:
    """One process, and the thread that listens to it: pipes can be waited for together on few systems.

    Attributes:
        owed: The groups of films that it was sent and has not answered, in that order.
        is_ready: Whether it has loaded the model.
        since: When it began the first group that it owes, or to load the model, on the monotonic clock.
    """

    def __init__(self, job: Job, inbox: "queue.Queue[tuple[WorkerProcess, Message | None]]") -> None:
        self.owed: deque[Group] = deque()
        self.is_ready = False
        self.since = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pneumonet.batch.worker", *(["--force"] if job.force else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=_environment(job),
        )
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def send(self, group: Group) -> None:
        """Hand films over."""
        if self.is_ready and not self.owed:
            self.since = time.monotonic()
        self.owed.append(group)
        assert self._process.stdin is not None
        # That a worker is dead is for its listener to say.
        with suppress(OSError):
            self._process.stdin.write(json.dumps(group).encode() + b"\n")

    def become_ready(self) -> None:
        """Begin with the films that were sent while the model was loaded."""
        self.is_ready, self.since = True, time.monotonic()

    def settle(self) -> Group:
        """Return the first group that it owes, which it owes no more, and begin the next."""
        self.since = time.monotonic()
        return self.owed.popleft()

    def close(self, *, at_once: bool) -> int | None:
        """End the process.

        Returns:
            Its exit code; None where the system cannot end it, such as one that waits for a file server that is gone.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        if at_once:
            self._process.kill()
        for _ in range(2):
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(_PATIENCE_SECONDS)
            self._process.kill()
        return None

    def _listen(self, inbox: "queue.Queue[tuple[WorkerProcess, Message | None]]") -> None:
        assert self._process.stdout is not None
        try:
            with io.BufferedReader(self._process.stdout) as lines:  # type: ignore[type-var]
                for line in lines:
                    if (message := _message(line)) is not None:
                        inbox.put((self, message))
        finally:
            # Whatever ends the listening: the batch would wait for ever for a worker that it does not hear.
            inbox.put((self, None))


def _message(line: bytes) -> Message | None:
    """Return what a line says; None for half a line, which a death leaves, and for what a library printed."""
    try:
        message = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _environment(job: Job) -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(job.threads))
    path = os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **job.environment, **threads, "PYTHONPATH": path}
