"""The results on disk: parts while a batch runs, one Parquet file in the source's order when it is done."""

import json
import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pneumonet.batch.rows import Row, printable_path
from pneumonet.batch.schema import SCHEMA, table_of
from pneumonet.errors import ConfigError, InternalError

_MAGIC: Final = b"PAR1"
_METADATA: Final = b"pneumonet"
_TEMPORARY: Final = ".partial-"
_PART: Final = re.compile(r"part-[0-9a-f]{32}-[0-9]+\.parquet")
# How many rows are put in order at a time: they bound the memory, and are gone over once for each.
_WINDOW: Final = 50_000
# The most rows and seconds of work that a kill can cost.
_MOST_ROWS: Final = 64
_MOST_SECONDS: Final = 5.0
# A short batch is kept in several parts too.
_PARTS_A_WORKER: Final = 4


@dataclass(frozen=True)
class Parts:
    """A folder of Parquet files beside the output, each whole from the moment that it has its name.

    Attributes:
        out: The file that they become.
        fingerprint: Of the job; parts of another are not taken.
        provenance: What the output's metadata says of the model and the options.
    """

    out: Path
    fingerprint: str
    provenance: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return folder_of(self.out)

    def open(self) -> None:
        """Clear away what a kill left half written in the folder, which `only_run` has made.

        Raises:
            ConfigError: If the output is a file of another kind, or its folder cannot be written.
        """
        with writing(self.out):
            if self.out.exists() and not _is_parquet(self.out):
                raise ConfigError(
                    f"{self.out.name} is there already and is no Parquet file.", hint="Give --out another name."
                )
            for left in self.folder.glob(f"{_TEMPORARY}*"):
                left.unlink(missing_ok=True)

    def answered(self, names: Sequence[str]) -> set[str]:
        """Return which of some films have a row of this job."""
        order = {printable_path(name): name for name in names}
        return {order[path] for part in self._whole() for path in _paths(part) if path in order}

    def rows(self) -> int:
        """Return how many rows the parts have, those of other jobs and doubles included; reads names alone."""
        return sum(int(part.stem.rpartition("-")[2]) for part in self._files())

    def write(self, table: pa.Table) -> None:
        """Add a part."""
        metadata = {_METADATA: json.dumps(self.provenance | {"fingerprint": self.fingerprint})}
        path = self.folder / f"part-{uuid.uuid4().hex}-{table.num_rows}.parquet"
        temporary = path.with_name(f"{_TEMPORARY}{path.name}")
        pq.write_table(table.cast(SCHEMA).replace_schema_metadata(metadata), temporary)
        temporary.replace(path)

    def merge(self, names: Sequence[str]) -> Counter[str | None]:
        """Make the parts one file, a row a film in the order of `names`, and remove them.

        Args:
            names: The films' names in their source.

        Returns:
            How many films have each error code, None for those that were answered.

        Raises:
            InternalError: If a film has no row.
            ConfigError: If the output cannot be written.
        """
        codes: Counter[str | None] = Counter()
        temporary = self.out.with_name(f"{_TEMPORARY}{self.out.name}")
        metadata = {_METADATA: json.dumps(self.provenance)}
        with writing(self.out):
            with pq.ParquetWriter(temporary, SCHEMA.with_metadata(metadata)) as writer:
                for table in self._in_order(names):
                    codes.update(table["error_code"].to_pylist())
                    writer.write_table(table)
            if codes.total() != len(names):
                raise InternalError(f"{len(names) - codes.total()} films have no row.", hint="Run the command again.")
            _to_disk(temporary)
            temporary.replace(self.out)
            for part in self._files():
                part.unlink(missing_ok=True)
        return codes

    def _in_order(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of films in the order of their names, `_WINDOW` at a time."""
        order = {printable_path(name): index for index, name in enumerate(names)}
        places = {
            part: np.array([order.get(path, -1) for path in _paths(part)], dtype=np.int64) for part in self._whole()
        }
        for start in range(0, len(names), _WINDOW):
            tables, indices = [SCHEMA.empty_table()], [np.empty(0, dtype=np.int64)]
            for part, own in places.items():
                within = (own >= start) & (own < start + _WINDOW)
                if within.any():
                    tables.append(pq.read_table(part, schema=SCHEMA).filter(pa.array(within)))
                    indices.append(own[within])
            # A film answered twice, by a process that was taken for dead say, keeps one of its rows.
            _, first = np.unique(np.concatenate(indices), return_index=True)
            yield pa.concat_tables(tables).take(pa.array(first)).replace_schema_metadata(None)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("part-*") if _PART.fullmatch(path.name))

    def _whole(self) -> Iterator[Path]:
        """Yield the parts of this job that can be read."""
        for part in self._files():
            with suppress(OSError, pa.ArrowException, ValueError):
                told = (pq.read_schema(part).metadata or {}).get(_METADATA, b"{}")
                if json.loads(told).get("fingerprint") == self.fingerprint:
                    yield part


class PartWriter:
    """Gathers rows into parts, so that a kill costs few of them. Leave it to write the last."""

    def __init__(self, parts: Parts, rows_a_part: int) -> None:
        self._parts, self._rows_a_part = parts, rows_a_part
        self._rows: list[Row] = []
        self._written = time.monotonic()

    def __enter__(self) -> "PartWriter":
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is left, whatever ended the batch."""
        self._write()

    def add(self, row: Row) -> None:
        """Take in a row."""
        self._rows.append(row)
        if len(self._rows) >= self._rows_a_part or time.monotonic() - self._written >= _MOST_SECONDS:
            self._write()

    def _write(self) -> None:
        if self._rows:
            self._parts.write(table_of(self._rows))
            self._rows.clear()
        self._written = time.monotonic()


def folder_of(out: Path) -> Path:
    """Return the folder that holds an output's parts."""
    return out.with_name(f"{out.name}.parts")


def rows_a_part(films: int, workers: int) -> int:
    """Return how many films' rows make a part.

    >>> rows_a_part(20_000, 2), rows_a_part(40, 2), rows_a_part(3, 2)
    (64, 5, 1)
    """
    return max(1, min(_MOST_ROWS, films // (_PARTS_A_WORKER * workers)))


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn a failure to write results into a sentence.

    Raises:
        ConfigError: If the disk is full, the folder is not there, or the like.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"The results {out.name} cannot be written: {error.strerror or type(error).__name__}.",
            hint="What is answered so far is kept: run the same command again when there is room.",
        ) from error


def _paths(part: Path) -> list[str]:
    paths: list[str] = pq.read_table(part, columns=["path"])["path"].to_pylist()
    return paths


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
