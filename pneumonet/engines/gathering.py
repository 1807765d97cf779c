"""Films of concurrent requests gathered into one pass, where that is faster than one after the other."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pneumonet.engines import Engine
from pneumonet.heads import Head

Features = dict[str, NDArray[np.float32]]


@dataclass(eq=False)
class _Asked:
    batch: NDArray[np.float32]
    answered: threading.Event = field(default_factory=threading.Event)
    features: Features | None = None
    failure: BaseException | None = None


class GatheringEngine:
    """An engine whose callers, each in a thread of its own, share passes.

    The first who finds nobody waiting leads: when the pass before has ended, and the bound is over, one pass answers
    everybody who has come by then.
    """

    def __init__(self, engine: Engine, *, wait_seconds: float = 0.010, max_films: int = 16) -> None:
        """Wrap an engine.

        Args:
            engine: What runs the passes.
            wait_seconds: How long a film may wait for others to come while nothing else runs.
            max_films: How many films are enough to wait no longer.
        """
        self.engine, self.wait_seconds, self.max_films = engine, wait_seconds, max_films
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.heads: Mapping[str, Head] = engine.heads
        self._waiting: list[_Asked] = []
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    def features(self, batch: NDArray[np.float32]) -> Features:
        """Return each member's last feature map, as `Engine` has it."""
        mine, deadline = _Asked(batch), time.monotonic() + self.wait_seconds
        with self._changed:
            leads = not self._waiting
            self._waiting.append(mine)
            self._changed.notify_all()
        if leads:
            # Who comes while another pass runs costs no wait of its own, and shares the next.
            with self._turn:
                self._run(self._gather(deadline))
        mine.answered.wait()
        if mine.failure is not None:
            raise mine.failure
        assert mine.features is not None
        return mine.features

    def _gather(self, deadline: float) -> list[_Asked]:
        with self._changed:
            while sum(len(asked.batch) for asked in self._waiting) < self.max_films:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            # Who comes after this leads the next pass.
            gathered, self._waiting = self._waiting, []
        return gathered

    def _run(self, gathered: list[_Asked]) -> None:
        try:
            films = np.concatenate([asked.batch for asked in gathered])
            features = self.engine.features(films)
            first = 0
            for asked in gathered:
                last = first + len(asked.batch)
                asked.features = {name: of_all[first:last] for name, of_all in features.items()}
                first = last
        except BaseException as error:
            for asked in gathered:
                asked.failure = error
        finally:
            for asked in gathered:
                asked.answered.set()
