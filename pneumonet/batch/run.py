"""One batch from its source to its Parquet file."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pneumonet.batch.job import Job, usable_cores
from pneumonet.batch.parts import Parts, folder_of
from pneumonet.batch.sources import find_films
from pneumonet.errors import AdmissionError, ConfigError
from pneumonet.finding import DISCLAIMER
from pneumonet.hub import open_snapshot
from pneumonet.settings import Settings

_CORES_A_WORKER = 2


@dataclass(frozen=True)
class Batch:
    """What is asked of a batch.

    Attributes:
        source: As `find_films` takes it.
        out: The Parquet file to write.
        workers: How many processes, or Ray actors; None for one for every two cores.
        force: Answer films that admission refuses.
        ray: None for this machine's processes, `local` for Ray on this machine, else a Ray cluster's address.
        labels: As `read_labels` takes them, None for no figures. Refused films are then answered all the same, as
            `scripts/evaluate.py` does: figures are not made better by what is left out.
    """

    source: str
    out: Path
    workers: int | None = None
    force: bool = False
    ray: str | None = None
    labels: str | None = None


def run_batch(batch: Batch, settings: Settings) -> str:
    """Answer every film of a source that has no row yet, then write them all.

    Returns:
        What to tell the user: how many films were answered, the figures where there are labels.

    Raises:
        ConfigError: If the source, the labels or the output cannot be used.
        ModelUnavailableError: If the model cannot be loaded.
    """
    if batch.workers is not None and batch.workers < 1:
        raise ConfigError(f"Expected --workers to be at least 1, got {batch.workers}.")
    out = batch.out.absolute()
    if out == Path(batch.source).absolute():
        raise ConfigError("The results would take the place of the source.", hint="Give --out another name.")
    films = find_films(batch.source, ignored=(out, folder_of(out)))
    labels = None
    if batch.labels is not None:
        from pneumonet.batch.figures import figures_of, read_labels

        labels = read_labels(batch.labels, films)
    snapshot = open_snapshot(settings.model, settings.revision)
    force = batch.force or labels is not None
    job = Job.of(settings, snapshot, force=force, threads=_threads(batch))
    model = {"repo_id": snapshot.repo_id, "revision": snapshot.revision, "version": snapshot.config.version}
    parts = Parts(out, job.fingerprint(batch.source), {"model": model, "force": force})
    parts.open()
    done = parts.answered(films.names)
    waiting = [name for name in films.names if name not in done]
    if done:
        print(f"{len(done)} of {len(films.names)} films are answered already.", file=sys.stderr)
    if waiting:
        # A progress bar is for somebody who watches: without a terminal it would fill a log.
        with tqdm(total=len(films.names), initial=len(done), unit="film", disable=None) as bar:
            if batch.ray is None:
                from pneumonet.batch.local import answer_here

                workers = min(batch.workers or _workers(), len(waiting))
                answer_here(films, waiting, job, parts, workers, bar.update)
            else:
                from pneumonet.batch.on_ray import answer_on_ray

                answer_on_ray(films, waiting, job, parts, batch.workers, batch.ray, bar.update)
    told = [_summary(parts.merge(films.names), out)]
    if labels is not None:
        if without := len(films.names) - len(labels):
            told.append(f"{without} of {len(films.names)} films have no label and are not scored.")
        told += ["", figures_of(out, labels, snapshot.config), ""]
    return "\n".join([*told, DISCLAIMER])


def _workers() -> int:
    return max(1, usable_cores() // _CORES_A_WORKER)


def _threads(batch: Batch) -> int:
    is_elsewhere = batch.ray not in (None, "local")
    return _CORES_A_WORKER if is_elsewhere else max(1, usable_cores() // (batch.workers or _workers()))


def _summary(codes: Counter[str | None], out: Path) -> str:
    total, answered, refused = codes.total(), codes.pop(None, 0), codes.pop(AdmissionError.code, 0)
    failures = ", ".join(f"{code} {n}" for code, n in sorted(codes.items(), key=str))
    words = [f"{answered} answered", f"{refused} refused by admission"]
    words.append(f"{codes.total()} without an answer" + (f" ({failures})" if failures else ""))
    return f"{total} films: {', '.join(words)}. Rows in {out.name}."
