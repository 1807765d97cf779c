"""A batch on Ray Data: the films' paths -> a pool of actors that hold the model -> Parquet parts."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.data.block import Block, BlockAccessor

from pneumonet.batch.cluster import LOCAL, actors_of, cluster, knock
from pneumonet.batch.job import Job
from pneumonet.batch.parts import Parts, rows_a_part, writing
from pneumonet.batch.pool import WorkerPool
from pneumonet.batch.rows import printable_path
from pneumonet.batch.schema import SCHEMA, table_of
from pneumonet.batch.sources import Films
from pneumonet.errors import ModelUnavailableError

_SECONDS_BETWEEN_COUNTS: Final = 0.5
_PATHS: Final = pa.schema([("path", pa.string()), ("place", pa.binary())])


def answer_on_ray(
    films: Films,
    waiting: Sequence[str],
    job: Job,
    parts: Parts,
    workers: int | None,
    address: str,
    advance: Callable[[int], object],
) -> None:
    """Answer films on a Ray cluster, whose machines see films, results and PneumoNet at the same paths.

    Args:
        films: The source.
        waiting: The names that have no row yet.
        job: What is asked.
        parts: Where the rows go.
        workers: How many actors; by default as many as have `job.threads` cores each, or a GPU each.
        address: `local` for a cluster of this machine alone, that ends with the batch; else a cluster's address.
        advance: Told how many films were answered since it was last told.

    Raises:
        ModelUnavailableError: If the model cannot be loaded, or the cluster gives up.
        ConfigError: If no cluster answers, or the rows cannot be written.
    """
    knock(address)
    # Told in words here, where an actor's failure would be a page of Ray's; it also fills the engine's cache.
    with WorkerPool(job, 1) as pool:
        on_gpu = _on_gpu(job, address, pool.device)
    with cluster(address, job, workers) as resources:
        count = actors_of(resources, job, workers, on_gpu=on_gpu)
        size = rows_a_part(len(waiting), count)
        tables = [_table(films, waiting[start : start + size]) for start in range(0, len(waiting), size)]
        rows = ray.data.from_arrow(tables).map_batches(
            _Answerer,
            fn_constructor_args=(job,),
            batch_size=None,
            batch_format="pyarrow",
            concurrency=count,
            num_cpus=job.threads,
            num_gpus=int(on_gpu),
        )
        with writing(parts.out), _counted(parts, advance):
            try:
                # A part is written in no time: it needs no core of its own, and would wait for one in vain.
                rows.write_datasink(_PartsSink(parts), ray_remote_args={"num_cpus": 0}, concurrency=1)
            except ray.exceptions.RayError as error:
                if isinstance(error, OSError):
                    raise
                raise ModelUnavailableError(
                    f"The Ray cluster gave up: {type(error).__name__}.",
                    hint="What is answered so far is kept: run the same command again.",
                ) from error


def _on_gpu(job: Job, address: str, device_here: str) -> bool:
    # Other machines may lack what this one has: they get a GPU where one is asked for by name.
    asked = job.environment["PNEUMONET_DEVICE"]
    return (device_here if address == LOCAL and asked == "auto" else asked).startswith("cuda")


class _Answerer:
    """An actor: one worker process, which holds the model.

    Ray gives a task whose actor died to the next one, for ever: a film that ends its process would end every actor,
    and the batch would never. The process of its own is what such a film ends, and what ends with one that takes too
    long.
    """

    def __init__(self, job: Job) -> None:
        self._pool = WorkerPool(job, 1)
        self._pool.__enter__()

    def __call__(self, films: pa.Table) -> pa.Table:
        places = zip(films["path"].to_pylist(), map(os.fsdecode, films["place"].to_pylist()), strict=True)
        # Once the pool is stopped this is empty, films have no row, and it is `run_batch` that tells why.
        return table_of(list(self._pool.answer(places)))


class _PartsSink(ray.data.Datasink[None]):  # type: ignore[misc]
    """Writes each block as a part: with Ray's own Parquet sink a kill leaves half a file under the name of a whole."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def write(self, blocks: Iterable[Block], ctx: Any) -> None:
        """Write blocks."""
        for block in blocks:
            table = BlockAccessor.for_block(block).to_arrow()
            if table.num_rows:
                self._parts.write(table.select(SCHEMA.names))


def _table(films: Films, names: Sequence[str]) -> pa.Table:
    # A place as bytes: a file's name need not be Unicode.
    rows = [{"path": printable_path(name), "place": os.fsencode(films.location(name))} for name in names]
    return pa.Table.from_pylist(rows, _PATHS)


@contextmanager
def _counted(parts: Parts, advance: Callable[[int], object]) -> Iterator[None]:
    """Tell of the rows that the cluster has written, while it writes them."""
    told, done = parts.rows(), threading.Event()

    def tell() -> None:
        nonlocal told
        now = parts.rows()
        advance(now - told)
        told = now

    def watch() -> None:
        while not done.wait(_SECONDS_BETWEEN_COUNTS):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        tell()
