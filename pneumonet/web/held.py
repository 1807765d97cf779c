"""The films that the page holds for its visitors, in memory, until they go."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pneumonet.errors import AdmissionError, BusyError
from pneumonet.finding import Finding
from pneumonet.language import said
from pneumonet.web.metrics import HELD_BYTES

HELD_MINUTES: Final = 10
# So many visitors' films may wait in memory together; beyond it newcomers are refused, and nobody loses a film.
_HELD_BYTES: Final = 256_000_000
# What a film of no bytes takes all the same.
_ENTRY_BYTES: Final = 1_000
_GAUGE: Final = HELD_BYTES.labels("page")


@dataclass(frozen=True)
class HeldFilm:
    """A film that waits to be analysed: the path that stood for its upload, its bytes, and an example's title."""

    path: str
    data: bytes
    title: str = ""


@dataclass(frozen=True, eq=False)
class Answered:
    """What was said of a held film, so that reports of it can be made.

    Attributes:
        data: The film's file.
        outcome: The finding without the film's pixels, or the refusal.
        request_id: As in the log.
        created: When it was said.
        duration_ms: How long the answer took.
    """

    data: bytes
    outcome: Finding | AdmissionError
    request_id: str
    created: datetime
    duration_ms: float = 0.0


def new_token() -> str:
    """Return a token that nobody can guess: an answer may name it before it is offered."""
    return secrets.token_hex(20)


class Offers:
    """The answers that pages show, each under a token that nobody can guess, so that their reports can be asked for."""

    def __init__(self) -> None:
        self._answers: dict[str, Answered] = {}

    def add(self, answered: Answered, token: str | None = None) -> str:
        """Offer an answer, under a token that `new_token` gave; returns the token."""
        token = token or new_token()
        self._answers[token] = answered
        return token

    def get(self, token: str) -> Answered | None:
        """Return an answer; None where its film is no longer held."""
        return self._answers.get(token)

    def take_back(self, token: str | None) -> None:
        """Forget an answer."""
        self._answers.pop(token or "", None)


# One a process, as the shelves of uploads and outputs are: the page knows no app.
offers = Offers()


@dataclass
class _Held:
    film: HeldFilm
    timer: asyncio.TimerHandle
    runs: int = 0
    asked: bool = False
    expired: bool = False
    token: str | None = None

    @property
    def size(self) -> int:
        """How many bytes it takes of the memory that all share."""
        return len(self.film.data) + _ENTRY_BYTES


class HeldFilms:
    """One film for each visitor, in memory only, until ten minutes after it was chosen or answered at the latest.

    Used on the event loop alone.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, visitor: str, film: HeldFilm) -> None:
        """Hold a film in place of the visitor's last one.

        Raises:
            BusyError: If too many bytes are held already.
        """
        self.drop(visitor)
        waiting = sum(held.size for held in self._held.values())
        if self._held and waiting + len(film.data) + _ENTRY_BYTES > _HELD_BYTES:
            raise BusyError(
                said("Too many films wait to be analysed."), hint=said("Choose yours again in a few minutes.")
            )
        self._held[visitor] = _Held(film, self._timer(visitor))
        _GAUGE.inc(self._held[visitor].size)

    def get(self, visitor: str) -> HeldFilm | None:
        """Return the visitor's film."""
        return self._held[visitor].film if visitor in self._held else None

    def drop(self, visitor: str) -> None:
        """Forget the visitor's film."""
        if visitor in self._held:
            held = self._held.pop(visitor)
            held.timer.cancel()
            _GAUGE.dec(held.size)
            offers.take_back(held.token)

    def answered(self, visitor: str, film: HeldFilm, answered: Answered, token: str | None = None) -> str | None:
        """Hold what was said of a film for as long as the film, whose time begins anew; the answer before it goes.

        Args:
            visitor: Whose film.
            film: The film that was answered.
            answered: What was said of it.
            token: As in `Offers.add`.

        Returns:
            The token under which `offers` has it; None where the film is gone.
        """
        held = self._held.get(visitor)
        if held is None or held.film is not film:
            return None
        offers.take_back(held.token)
        held.token = offers.add(answered, token)
        held.timer.cancel()
        held.timer, held.expired = self._timer(visitor), False
        return held.token

    def last_answer(self, visitor: str) -> tuple[str, Answered] | None:
        """Return the token and the answer that the visitor sees; None where there is none."""
        token = self._held[visitor].token if visitor in self._held else None
        answered = offers.get(token) if token else None
        return (token, answered) if token and answered else None

    def asked(self, visitor: str) -> bool:
        """Return whether an answer to the visitor's film was asked for."""
        return visitor in self._held and self._held[visitor].asked

    @contextmanager
    def kept(self, visitor: str) -> Iterator[None]:
        """Keep the visitor's film, whose answer is awaited, although its time runs out."""
        held = self._held.get(visitor)
        if held is None:
            yield
            return
        held.runs, held.asked = held.runs + 1, True
        try:
            yield
        finally:
            held.runs -= 1
            if held.expired and self._held.get(visitor) is held:
                self._expire(visitor)

    def _timer(self, visitor: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(HELD_MINUTES * 60, self._expire, visitor)

    def _expire(self, visitor: str) -> None:
        held = self._held[visitor]
        held.expired = True
        if not held.runs:
            self.drop(visitor)
