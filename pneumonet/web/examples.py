"""The example pictures that the page offers: a folder of files and an examples.json that names each."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumonet.errors import PneumoNetError
from pneumonet.reading import read_radiograph
from pneumonet.rendering import data_uri, film_image

FOLDER: Final = Path(__file__).parent / "examples"
INDEX_FILE: Final = "examples.json"
_THUMBNAIL_SIDE: Final = 112


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
