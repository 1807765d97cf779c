"""The results on disk: parts while a batch runs, one Parquet file in the source's order when it is done.

Films that failed for no fault of theirs are tried again at the next start: while there are such, the parts stay.
"""

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
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pneumonet.batch.rows import OUR_FAILURES, Row, printable_path
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
# What a row is worth to a job: it is the film's, it is to be tried again, it was made for a job that asked otherwise.
_SETTLED, _TO_RETRY, _ASKED_OTHERWISE = range(3)


class Standing(NamedTuple):
    """How far a job is.

    Attributes:
        settled: The films that have their row.
        to_retry: The error codes of those that failed for no fault of theirs.
    """

    settled: set[str]
    to_retry: dict[str, str]


@dataclass(frozen=True)
class Parts:
    """A folder of Parquet files beside the output, each whole from the moment that it has its name.

    Attributes:
        out: The file that they become.
        fingerprint: Of the job; parts of another are not taken.
        provenance: What the output's metadata says of the model and the options.
        force: Whether the job has refused films answered: rows that say otherwise of such films are not taken.
    """

    out: Path
    fingerprint: str
    provenance: dict[str, Any]
    force: bool = False

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return folder_of(self.out)

    def open(self, *, anew: bool = False) -> None:
        """Clear away what a kill left half written in the folder, which `only_run` has made.

        Args:
            anew: Throw away all rows that are there.

        Raises:
            ConfigError: If the output is a file of another kind, its folder cannot be written, or rows of another job
                are in it.
        """
        with writing(self.out):
            if self.out.exists() and not _is_parquet(self.out):
                raise ConfigError(
                    f"{self.out.name} is there already and is no Parquet file.", hint="Give --out another name."
                )
            for left in [*self.folder.glob(f"{_TEMPORARY}*"), *(self._files() if anew else [])]:
                left.unlink(missing_ok=True)
        if others := sum(_rows_in(part) for part in self._files() if not self._is_own(part)):
            raise ConfigError(
                f"{others} rows of a run with other options, or of another PneumoNet, are not taken.",
                hint=f"They are in {self.folder.name}. Start that run again, give --out another name, or throw them "
                "away with --anew.",
            )

    def standing(self, names: Sequence[str]) -> Standing:
        """Return how far this job is with some films."""
        order = {printable_path(name): name for name in names}
        settled, to_retry = set[str](), dict[str, str]()
        for table in self._tables():
            rows = zip(table["path"].to_pylist(), table["error_code"].to_pylist(), self._worth(table), strict=True)
            for path, code, worth in rows:
                if path in order and worth == _SETTLED:
                    settled.add(order[path])
                elif path in order and worth == _TO_RETRY:
                    to_retry[order[path]] = code
        return Standing(settled, {name: code for name, code in to_retry.items() if name not in settled})

    def rows(self) -> int:
        """Return how many rows the parts have, those of other jobs and doubles included; reads names alone."""
        return sum(map(_rows_in, self._files()))

    def write(self, table: pa.Table) -> None:
        """Add a part."""
        metadata = {_METADATA: json.dumps(self.provenance | {"fingerprint": self.fingerprint})}
        path = self.folder / f"part-{uuid.uuid4().hex}-{table.num_rows}.parquet"
        temporary = path.with_name(f"{_TEMPORARY}{path.name}")
        table = table.cast(SCHEMA).replace_schema_metadata(metadata)
        pq.write_table(table, temporary, write_page_checksum=True)
        _to_disk(temporary)
        temporary.replace(path)

    def merge(self, names: Sequence[str]) -> Counter[str | None]:
        """Make the parts one file, a row a film in the order of `names`; remove them where no film is to be retried.

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
        with writing(self.out):
            metadata = {_METADATA: json.dumps(self.provenance | {"engines": self._engines()})}
            with pq.ParquetWriter(temporary, SCHEMA.with_metadata(metadata)) as writer:
                for table in self._in_order(names):
                    codes.update(table["error_code"].to_pylist())
                    writer.write_table(table)
            if codes.total() != len(names):
                raise InternalError(f"{len(names) - codes.total()} films have no row.", hint="Run the command again.")
            _to_disk(temporary)
            temporary.replace(self.out)
            if not OUR_FAILURES & codes.keys():
                for part in filter(self._is_own, self._files()):
                    part.unlink(missing_ok=True)
        return codes

    def _in_order(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of films in the order of their names, `_WINDOW` at a time."""
        order = {printable_path(name): index for index, name in enumerate(names)}
        places = {
            part: np.array([order.get(path, -1) for path in table["path"].to_pylist()], dtype=np.int64)
            for part in self._files()
            if (table := self._own(part)) is not None
        }
        for start in range(0, len(names), _WINDOW):
            tables, indices = [SCHEMA.empty_table()], [np.empty(0, dtype=np.int64)]
            for part, own in places.items():
                within = (own >= start) & (own < start + _WINDOW)
                if within.any() and (table := self._own(part)) is not None:
                    tables.append(table.filter(pa.array(within)))
                    indices.append(own[within])
            table, index = pa.concat_tables(tables), np.concatenate(indices)
            # A film tried twice, or answered by a process that was taken for dead, keeps the row that is worth most.
            best = np.lexsort((self._worth(table), index))
            _, first = np.unique(index[best], return_index=True)
            yield table.take(pa.array(best[first]))

    def _engines(self) -> list[str]:
        """Return what the rows were computed with, each once; a run may go on on another machine."""
        return sorted({engine for table in self._tables() for engine in table["engine"].drop_null().to_pylist()})

    def _tables(self) -> Iterator[pa.Table]:
        for part in self._files():
            if (table := self._own(part)) is not None:
                yield table

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("part-*") if _PART.fullmatch(path.name))

    def _worth(self, table: pa.Table) -> NDArray[np.int64]:
        """Return what each row is worth to this job, (N,)."""
        to_retry = pc.is_in(table["error_code"], pa.array(sorted(OUR_FAILURES)))
        is_refused = pc.fill_null(pc.invert(table["admitted"]), False)
        asked_otherwise = pc.and_(is_refused, pc.equal(pc.is_null(table["label"]), self.force))
        worth = pc.if_else(asked_otherwise, _ASKED_OTHERWISE, pc.if_else(to_retry, _TO_RETRY, _SETTLED))
        return np.asarray(worth.to_numpy(), dtype=np.int64)

    def _is_own(self, part: Path) -> bool:
        """Whether a part is this job's, or nobody's: one whose end cannot be read."""
        with suppress(OSError, pa.ArrowException, ValueError):
            told = (pq.read_schema(part).metadata or {}).get(_METADATA, b"{}")
            return bool(json.loads(told).get("fingerprint") == self.fingerprint)
        return True

    def _own(self, part: Path) -> pa.Table | None:
        """Return a part's rows; None where it is not this job's or is damaged anywhere: its films are answered anew."""
        if self._is_own(part):
            with (
                suppress(OSError, pa.ArrowException, ValueError),
                pq.ParquetFile(part, page_checksum_verification=True) as file,
            ):
                return file.read().cast(SCHEMA)
        return None


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


def _rows_in(part: Path) -> int:
    return int(part.stem.rpartition("-")[2])


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
