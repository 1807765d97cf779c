"""What a batch's SOURCE names: a folder, a glob, a CSV of paths, a DICOM directory or one film -> a list of films."""

import csv
import glob
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pneumonet.errors import ConfigError
from pneumonet.reading import is_dicom_directory, pictures_of

DICOM_DIRECTORY: Final = "DICOMDIR"
_PATH_COLUMNS: Final = ("path", "file")


@dataclass(frozen=True)
class Films:
    """Films in the order of their source, each once.

    Attributes:
        root: The folder that relative names start from; absolute.
        names: Each film's path as the source gives it: below a folder or a DICOM directory, as a glob matches it, as a
            CSV writes it.
    """

    root: Path
    names: Sequence[str]

    def location(self, name: str) -> str:
        """Return a film's absolute path."""
        return os.path.join(self.root, name)


def find_films(source: str, ignored: Collection[Path] = ()) -> Films:
    """List the films that a source names; none is opened.

    Args:
        source: A folder (its files at any depth, hidden ones left out, links to folders followed), a folder with a
            DICOMDIR or the DICOMDIR itself (its IMAGE records), a file that ends in .csv (its column `path` or `file`,
            or its only column; relative paths start from its folder), any other file, or a pattern such as
            `films/**/*.dcm`.
        ignored: Real paths (`os.path.realpath`) of files and folders that are no films, such as the results'.

    Raises:
        ConfigError: If the source is not there, cannot be read or names no film.
    """
    path = Path(source)
    try:
        if path.is_dir():
            directory = path / DICOM_DIRECTORY
            films = _of_dicom_directory(directory) if directory.is_file() else _of_folder(path, ignored)
        elif path.is_file():
            films = _of_file(path)
        elif glob.escape(source) != source:
            films = _of_pattern(source, ignored)
        else:
            raise ConfigError(f"There is no file or folder {source!r}.", hint="Check the path.")
    except OSError as error:
        raise ConfigError(f"{source!r} cannot be read: {error.strerror}.") from error
    if not films.names:
        raise ConfigError(f"{source!r} names no film.", hint="Give a folder, a pattern, a CSV of paths or a DICOMDIR.")
    return films


def csv_rows(path: Path) -> list[list[str]]:
    """Return the rows of a CSV that are not empty, cells stripped.

    Raises:
        ConfigError: If it cannot be read or is no CSV in UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path.name} is no CSV in UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}.") from error
    return [row for row in rows if any(row)]


def column_of(header: Sequence[str], names: Iterable[str]) -> int | None:
    """Return the index of the first of some names in a CSV's header, in any case; None where it has none of them."""
    lowered = [cell.lower() for cell in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def paths_of(path: Path, rows: Sequence[Sequence[str]]) -> tuple[int, Sequence[Sequence[str]]]:
    """Return which column of a CSV's rows holds paths, and the rows without their header.

    Raises:
        ConfigError: If there are several columns and none is named `path` or `file`.
    """
    column = column_of(rows[0], _PATH_COLUMNS) if rows else 0
    if column is not None:
        return column, rows[1:]
    if any(len(row) > 1 for row in rows):
        raise ConfigError(f"{path.name} has several columns, and none is named path.", hint="Name the column of paths.")
    return 0, rows


def _of_file(path: Path) -> Films:
    if path.suffix.lower() == ".csv":
        column, rows = paths_of(path, csv_rows(path))
        return _each_once(path.parent, (row[column] for row in rows if len(row) > column and row[column]))
    return _of_dicom_directory(path) if is_dicom_directory(path) else _each_once(Path.cwd(), [str(path)])


def _of_dicom_directory(path: Path) -> Films:
    return _each_once(path.parent, pictures_of(path))


def _of_folder(folder: Path, ignored: Collection[Path]) -> Films:
    return _each_once(folder, sorted(_files_below(folder), key=lambda name: name.split(os.sep)), ignored)


def _files_below(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error

    # Links last: a folder that is reached by both keeps its own name. Each is gone through once, which ends a loop.
    tops, seen = deque([str(folder)]), set[str]()
    while tops:
        # A folder that cannot be listed is told of: its films would be missing without a word.
        for parent, folders, files in os.walk(tops.popleft(), onerror=fail):
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
            tops.extend(place for name in folders if os.path.islink(place := os.path.join(parent, name)))
            below = os.path.relpath(parent, folder)
            yield from (os.path.normpath(os.path.join(below, name)) for name in files if not name.startswith("."))


def _of_pattern(pattern: str, ignored: Collection[Path]) -> Films:
    # The least deep of a film's paths is its name: a pattern goes round a loop of links some forty times.
    found = sorted(glob.iglob(pattern, recursive=True), key=lambda name: (name.count(os.sep), name))
    films = _each_once(Path.cwd(), filter(os.path.isfile, found), ignored)
    return Films(films.root, sorted(films.names))


def _each_once(root: Path, names: Iterable[str], ignored: Collection[Path] = ()) -> Films:
    root = root.absolute()
    outside = [str(path) for path in ignored]
    real_folder = cache(os.path.realpath)
    seen: set[str] = set()
    kept = []
    for name in names:
        folder, base = os.path.split(os.path.join(root, name))
        # A film that is a link is a film of its own: one picture may stand under two labels.
        place = os.path.join(real_folder(folder), base)
        if place in seen or any(place == path or place.startswith(path + os.sep) for path in outside):
            continue
        seen.add(place)
        kept.append(name)
    return Films(root, kept)
