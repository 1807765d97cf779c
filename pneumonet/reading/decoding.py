"""How many pixels are decoded at once: the whole process stands in one line, whichever door its films came in by.

A film takes many times its pixels while it is decoded, and a few bytes for each afterwards.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pneumonet.errors import TookTooLongError
from pneumonet.language import said
from pneumonet.reading.limits import ReadingLimits


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
            TookTooLongError: If the turn did not come in time.
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
        most, seconds = limits.max_pixels_at_once, limits.waiting_seconds

        def has_room() -> bool:
            return self._waiting[0] is place and (not self._pixels or self._pixels + pixels <= most)

        with self._changed:
            self._waiting.append(place)
            try:
                if not self._changed.wait_for(has_room, seconds):
                    raise TookTooLongError(said("The film was not answered within {seconds} s.", seconds=seconds))
                self._pixels += pixels
            finally:
                self._waiting.remove(place)
                # The next in line may have room beside this one, or in the place that this one gives up.
                self._changed.notify_all()


DECODING: Final = DecodingLine()
