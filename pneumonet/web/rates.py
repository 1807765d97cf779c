"""How often one client may ask, and how many of its requests may be open."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pneumonet.errors import TooManyRequestsError
from pneumonet.language import said

_TOO_MANY: Final = said("Too many requests came from your address.")
_MOST_CLIENTS: Final = 10_000
_BURST_SHARE: Final = 0.25


class RateLimit:
    """A token bucket for each client: a minute's requests, of which a quarter may come at once.

    Clients are told apart by their address, which never leaves this object.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Set the limit.

        Args:
            per_minute: Requests of one client in a minute; 0 for no limit.
            clock: Seconds, rising.
        """
        self._per_second, self._burst = per_minute / 60, max(1.0, per_minute * _BURST_SHARE)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, client: str) -> None:
        """Count a request of a client.

        Raises:
            TooManyRequestsError: If it has none left; says after how many seconds it will.
        """
        if not self._per_second:
            return
        now = self._clock()
        with self._lock:
            tokens = self._tokens(client, now)
            allowed = tokens >= 1
            self._buckets.pop(client, None)
            # Put back last, the dict goes from the client unheard of for the longest to the latest.
            self._buckets[client] = (tokens - 1 if allowed else tokens, now)
            while len(self._buckets) > _MOST_CLIENTS:
                del self._buckets[next(iter(self._buckets))]
        if not allowed:
            raise self._none_left(tokens)

    def check(self, client: str) -> None:
        """Look whether a client has a request left, and count none.

        Raises:
            TooManyRequestsError: If it has none left; says after how many seconds it will.
        """
        if not self._per_second:
            return
        with self._lock:
            tokens = self._tokens(client, self._clock())
        if tokens < 1:
            raise self._none_left(tokens)

    def _tokens(self, client: str, now: float) -> float:
        tokens, since = self._buckets.get(client, (self._burst, now))
        return min(self._burst, tokens + (now - since) * self._per_second)

    def _none_left(self, tokens: float) -> TooManyRequestsError:
        wait = max(1, math.ceil((1 - tokens) / self._per_second))
        return TooManyRequestsError(_TOO_MANY, retry_after_seconds=wait)


class OpenRequests:
    """How many requests of each client are open. Used on the event loop alone.

    Each costs a connection, a task and what it holds in memory, for as long as its sender cares to read.
    """

    def __init__(self, most: int) -> None:
        """Set the limit for one client; 0 for none."""
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def another(self, client: str) -> Iterator[None]:
        """Count a request of a client for as long as the block lasts.

        Raises:
            TooManyRequestsError: If as many as may are open.
        """
        if self._most and self._open[client] >= self._most:
            raise TooManyRequestsError(_TOO_MANY)
        self._open[client] += 1
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
