"""A batch by the processes of this machine."""

from collections.abc import Callable, Sequence

from pneumonet.batch.job import Job
from pneumonet.batch.parts import Parts, PartWriter, rows_a_part, writing
from pneumonet.batch.pool import WorkerPool
from pneumonet.batch.rows import printable_path
from pneumonet.batch.sources import Films


def answer_here(
    films: Films, waiting: Sequence[str], job: Job, parts: Parts, workers: int | None, advance: Callable[[int], object]
) -> None:
    """Answer films and write their rows as parts.

    Args:
        films: The source.
        waiting: The names that have no row yet.
        job: What is asked.
        parts: Where the rows go.
        workers: How many processes; None for as many as `usual_workers` says.
        advance: Told how many films were answered since it was last told.

    Raises:
        ModelUnavailableError: If the model cannot be loaded.
        ConfigError: If the rows cannot be written.
    """
    places = ((printable_path(name), films.location(name)) for name in waiting)
    with (
        WorkerPool(job, workers) as pool,
        writing(parts.out),
        PartWriter(parts, rows_a_part(len(waiting), pool.workers)) as writer,
    ):
        for row in pool.answer(places):
            writer.add(row)
            advance(1)
