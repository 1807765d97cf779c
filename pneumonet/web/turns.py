"""Turns at work that is done in threads: so many pieces at once, so many that wait, each for a time."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

from pneumonet.errors import BusyError, TookTooLongError
from pneumonet.language import said
from pneumonet.reading.decoding import CALLER, Caller

Result = TypeVar("Result")


class Turns:
    """A queue before some threads. Used on the event loop alone.

    Attributes:
        present: How many pieces of work wait or are being done.
        most: How many may, before the answer is "busy".
    """

    def __init__(self, at_once: int, most: int, seconds: int) -> None:
        """Open the queue.

        Args:
            at_once: How many pieces are done at one time.
            most: How many may be present, those that are being done among them.
            seconds: How long one may wait and be done before its caller is told that it took too long.
        """
        self.present, self.most, self._seconds = 0, most, seconds
        self._places = asyncio.Semaphore(at_once)
        self._begun: dict[asyncio.Event, float] = {}

    @property
    def oldest_seconds(self) -> float:
        """For how long the oldest piece has been done, whether or not anybody still waits for it; 0 for none."""
        return time.monotonic() - min(self._begun.values()) if self._begun else 0.0

    async def run(self, work: Callable[[], Result], *, deadline: float | None = None) -> Result:
        """Do a piece of work in a thread when its turn comes, and return what it returns.

        Args:
            work: The piece.
            deadline: A `time.monotonic()` at which it has taken too long, where that is before its own time is over.

        Raises:
            BusyError: If as many pieces as may are present.
            TookTooLongError: If it is not done in time.
        """
        if self.present >= self.most:
            raise BusyError(
                said("Films that are being analysed or wait: {films}; the queue is full.", films=self.present)
            )
        begun = asyncio.Event()
        seconds = self._seconds if deadline is None else min(self._seconds, deadline - time.monotonic())
        caller = Caller(time.monotonic() + seconds)
        self.present += 1
        turn = asyncio.create_task(self._turn(work, begun, caller))
        turn.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.shield(turn), seconds)
        except asyncio.TimeoutError:
            message = said("The film was not answered within {seconds} s.", seconds=self._seconds)
            raise TookTooLongError(message) from None
        finally:
            # Work that waits gives up its place. A thread cannot be stopped: what is being done keeps its place until
            # it looks at its caller, or to the end, though nobody hears of it.
            caller.has_left = True
            if not begun.is_set():
                turn.cancel()

    async def _turn(self, work: Callable[[], Result], begun: asyncio.Event, caller: Caller) -> Result:
        CALLER.set(caller)  # in this task's context, which the thread gets a copy of
        async with self._places:
            begun.set()
            self._begun[begun] = time.monotonic()
            try:
                return await anyio.to_thread.run_sync(work)
            finally:
                del self._begun[begun]

    def _leave(self, turn: "asyncio.Task[Result]") -> None:
        self.present -= 1
        if not turn.cancelled():
            turn.exception()  # looked at, so that asyncio does not log what nobody waited for
