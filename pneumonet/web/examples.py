"""The films of the page: the examples that it offers, and those that it holds for its visitors until they go."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumonet.errors import BusyError, PneumoNetError
from pneumonet.reading import read_radiograph
from pneumonet.rendering import data_uri, film_image

FOLDER: Final = Path(__file__).parent / "examples"
INDEX_FILE: Final = "examples.json"
_THUMBNAIL_SIDE: Final = 112

HELD_MINUTES: Final = 10
# So many visitors' films may wait in memory together; beyond it newcomers are refused, and nobody loses a film.
_HELD_BYTES: Final = 256_000_000
# What a film of no bytes takes all the same.
_ENTRY_BYTES: Final = 1_000


@dataclass(frozen=True)
class Example:
    """A picture that a visitor without a film can try.

    Attributes:
        path: The file.
        title: What it is, in a few words.
        note: What to expect of it, in a short sentence.
    """

    path: Path
    title: str
    note: str

    def read(self) -> bytes:
        """Return the file's bytes."""
        return self.path.read_bytes()

    def thumbnail(self) -> str | None:
        """Return a small picture of it as a PNG data URI, None where the file cannot be read."""
        try:
            return data_uri(film_image(read_radiograph(self.read()), _THUMBNAIL_SIDE))
        except PneumoNetError:
            return None


def load_examples(folder: Path = FOLDER) -> tuple[Example, ...]:
    """Return the examples of a folder, in the order of its examples.json; none where there is no such file."""
    try:
        entries = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    examples = (Example(folder / entry["file"], entry["title"], entry["note"]) for entry in entries)
    return tuple(example for example in examples if example.path.is_file())


@dataclass(frozen=True)
class HeldFilm:
    """A film that waits to be analysed: the path that stood for its upload, its bytes, and an example's title."""

    path: str
    data: bytes
    title: str = ""


@dataclass
class _Held:
    film: HeldFilm
    timer: asyncio.TimerHandle
    runs: int = 0
    asked: bool = False
    expired: bool = False


class HeldFilms:
    """One film for each visitor, in memory only and for ten minutes at most. Used on the event loop alone."""

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
        waiting = sum(len(held.film.data) + _ENTRY_BYTES for held in self._held.values())
        if self._held and waiting + len(film.data) + _ENTRY_BYTES > _HELD_BYTES:
            raise BusyError("Too many films wait to be analysed.", hint="Choose yours again in a few minutes.")
        timer = asyncio.get_running_loop().call_later(HELD_MINUTES * 60, self._expire, visitor)
        self._held[visitor] = _Held(film, timer)

    def get(self, visitor: str) -> HeldFilm | None:
        """Return the visitor's film."""
        return self._held[visitor].film if visitor in self._held else None

    def drop(self, visitor: str) -> None:
        """Forget the visitor's film."""
        if visitor in self._held:
            self._held.pop(visitor).timer.cancel()

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

    def _expire(self, visitor: str) -> None:
        held = self._held[visitor]
        held.expired = True
        if not held.runs:
            self.drop(visitor)
