"""How many pixels are decoded at once: the whole process stands in one line, whichever door its films came in by.

A film takes many times its pixels while it is decoded, and a few bytes for each afterwards.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from pneumonet.errors import TookTooLongError
from pneumonet.language import said
from pneumonet.reading.limits import ReadingLimits


class Caller:
    """Who waits for what a thread does.

    Attributes:
        deadline: The `time.monotonic()` until which they do.
        has_left: Whether they have given up.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline, self.has_left = deadline, False


# Whose film a thread is at; None for one that nobody can give up, as in a batch.
CALLER: Final[ContextVar[Caller | None]] = ContextVar("caller", default=None)


def check_caller() -> None:
    """See that the work that comes next is still for somebody.

    Raises:
        TookTooLongError: If the caller has left; nobody hears of it.
    """
    caller = CALLER.get()
    if caller is not None and caller.has_left:
        raise TookTooLongError("Nobody waits for the film any more.")


class DecodingLine:
    """A line of threads that want to decode, in the order that they came: small films never overtake a large one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._pixels = 0
        self._of_thread = threading.local()

    @contextmanager
    def turn(self, pixels: int, limits: ReadingLimits) -> Iterator[None]:
        """Wait until so many pixels may be decoded beside those that are, and hold the place for them.

        A film of more pixels than may be decoded at once waits until it is alone. Within a turn, further ones of the
        same thread are part of it: they could wait for nobody but themselves.

        Args:
            pixels: What the film's header declares.
            limits: How many may be decoded at once, and for how long to wait.

        Raises:
            TookTooLongError: If the turn did not come in time, or came when the caller had left.
        """
        if getattr(self._of_thread, "has_turn", False):
            yield
            return
        self._wait(pixels, limits)
        self._of_thread.has_turn = True
        try:
            yield
        finally:
            self._of_thread.has_turn = False
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()

    def _wait(self, pixels: int, limits: ReadingLimits) -> None:
        place = object()
        most, seconds, caller = limits.max_pixels_at_once, limits.waiting_seconds, CALLER.get()
        left = seconds if caller is None else min(seconds, caller.deadline - time.monotonic())

        def has_room() -> bool:
            check_caller()
            return self._waiting[0] is place and (not self._pixels or self._pixels + pixels <= most)

        with self._changed:
            self._waiting.append(place)
            try:
                if not self._changed.wait_for(has_room, left):
                    raise TookTooLongError(said("The film was not answered within {seconds} s.", seconds=seconds))
                self._pixels += pixels
            finally:
                self._waiting.remove(place)
                # The next in line may have room beside this one, or in the place that this one gives up.
                self._changed.notify_all()


DECODING: Final = DecodingLine()
