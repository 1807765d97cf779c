"""What a connection may cost before it has asked anything: how long, how many of one address, and how many in all."""

import asyncio
import sys
from collections import Counter
from typing import Any, Final

import h11
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

if sys.platform != "win32":
    import resource

# In a request's `state`: it came by a connection beyond the bound, and is only told so.
SURPLUS: Final = "is_surplus"
_HEAD_SECONDS: Final = 20
# So many connections beyond the bound are told that the server is full; what comes then is hung up on.
_TOLD: Final = 100
# As many are taken from the system at one time: asyncio has three times as many open before it closes those refused.
TAKEN_AT_ONCE: Final = 64
# What the process has open beside its connections: weights, libraries, threads' events, a log, a cache.
_OTHER_FILES: Final = 300


def connections_allowed(wanted: int) -> int:
    """Return how many connections the process's limit on open files allows, which is raised as far as need be."""
    if sys.platform == "win32":
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = _TOLD + _OTHER_FILES
    if resource.RLIM_INFINITY != soft < wanted + others:
        soft = wanted + others if hard == resource.RLIM_INFINITY else min(hard, wanted + others)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # Where less is left than the others may need, they are not all there at once.
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(soft - others, soft // 4))


class Bounds:
    """How many connections a server holds. Used on the event loop alone."""

    def __init__(self, most: int, most_of_one: int, proxies: list[str] | str) -> None:
        """Set the bounds.

        Args:
            most: Connections in all.
            most_of_one: Connections of one address; 0 for no bound.
            proxies: Addresses and networks that speak for many visitors, as uvicorn's `forwarded_allow_ips`; these
                have no bound of their own.
        """
        self.most, self._most_of_one = most, most_of_one
        self._proxies = ProxyHeadersMiddleware(_nothing, proxies).trusted_hosts
        self._of: Counter[str] = Counter()

    def add(self, address: str) -> bool:
        """Count a connection, if it may stay; returns whether it may."""
        is_crowd = self._most_of_one and self._of[address] >= self._most_of_one and address not in self._proxies
        if is_crowd or self._of.total() >= self.most + _TOLD:
            return False
        self._of[address] += 1
        return True

    def is_full(self) -> bool:
        """Return whether there are more connections than may be served."""
        return self._of.total() > self.most

    def remove(self, address: str) -> None:
        """Count a connection no more."""
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]


class BoundedProtocol(H11Protocol):
    """uvicorn's, which holds a connection only so long without a request, and only so many.

    By itself uvicorn waits for ever for a connection's first request, for the rest of a head of which it has a byte,
    and for the rest of a body that was answered before its end; beyond its `limit_concurrency`, which counts these
    too, it answers every visitor with a bare 503.
    """

    def __init__(self, bounds: Bounds, **options: Any) -> None:
        """Make the protocol of a connection, with uvicorn's own options."""
        super().__init__(**options)
        self._bounds, self._is_counted, self._is_surplus = bounds, False, False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or hang up on it."""
        super().connection_made(transport)
        self._is_counted = self._bounds.add(self._address)
        if not self._is_counted:
            transport.abort()
            return
        if self._bounds.is_full():
            self._is_surplus, self.app_state = True, self.app_state | {SURPLUS: True}
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        is_idle = self.conn.their_state is h11.IDLE
        is_answered = self.cycle is not None and self.cycle.response_complete
        if self._is_surplus and self.cycle is not None:
            self._part(is_idle and is_answered)
        if not (is_idle or is_answered):
            self._wait_no_more()
        elif self._patience is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._wait_no_more()
        if self._is_counted:
            self._bounds.remove(self._address)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _part(self, is_done: bool) -> None:
        # Where the rest of a body is under way, hanging up would take the answer back before it is read.
        if is_done:
            self.timeout_keep_alive_handler()
        elif not self.cycle.more_body:
            self.cycle.keep_alive = False

    def _wait(self) -> None:
        self._patience = self.loop.call_later(_HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


async def _nothing(*_: object) -> None:
    raise NotImplementedError("It is asked for its list alone.")
