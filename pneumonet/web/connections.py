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
        """Count a connection; returns whether it may stay."""
        self._of[address] += 1
        is_crowd = self._most_of_one and self._of[address] > self._most_of_one and address not in self._proxies
        return not is_crowd and self._of.total() <= self.most + _TOLD

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

    By itself uvicorn waits for ever for a connection's first request, and for the rest of a head of which it has a
    byte; beyond its `limit_concurrency`, which counts these too, it answers every visitor with a bare 503.
    """

    def __init__(self, bounds: Bounds, **options: Any) -> None:
        """Make the protocol of a connection, with uvicorn's own options."""
        super().__init__(**options)
        self._bounds, self._is_surplus = bounds, False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or hang up on it."""
        super().connection_made(transport)
        if not self._bounds.add(self._address):
            transport.abort()
            return
        if self._bounds.is_full():
            self._is_surplus, self.app_state = True, self.app_state | {SURPLUS: True}
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        if self._is_surplus and self.cycle is not None:
            self.cycle.keep_alive = False
        if self.conn.their_state is not h11.IDLE:
            self._wait_no_more()
        elif self._patience is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._wait_no_more()
        self._bounds.remove(self._address)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _wait(self) -> None:
        self._patience = self.loop.call_later(_HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


async def _nothing(*_: object) -> None:
    raise NotImplementedError("It is asked for its list alone.")
