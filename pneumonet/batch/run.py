"""One batch from its source to its Parquet file."""

import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tqdm import tqdm

from pneumonet import __version__
from pneumonet.batch.cores import CORES_A_WORKER, threads_of
from pneumonet.batch.job import FILM_SECONDS, STOP_AFTER, Job
from pneumonet.batch.lock import only_run
from pneumonet.batch.parts import Parts, folder_of
from pneumonet.batch.rows import OUR_FAILURES
from pneumonet.batch.sources import Films, find_films
from pneumonet.errors import AdmissionError, BatchStoppedError, ConfigError, FileTooLargeError
from pneumonet.finding import DISCLAIMER
from pneumonet.hub import open_snapshot
from pneumonet.settings import Settings

_MOST_FILM_SECONDS: Final = 86_400


@dataclass(frozen=True)
class Batch:
    """What is asked of a batch.

    Attributes:
        source: As `find_films` takes it.
        out: The Parquet file to write.
        workers: How many processes, or Ray actors; None for one for every two cores, or one an accelerator.
        force: Answer films that admission refuses.
        ray: None for this machine's processes, `local` for Ray on this machine, else a Ray cluster's address.
        labels: As `read_labels` takes them, None for no figures. Refused films are then answered all the same, as
            `scripts/evaluate.py` does: figures are not made better by what is left out.
        film_seconds: How long one film may take; after a second try without an answer its row says `took_too_long`.
        stop_after: After how many films in a row that fail for no fault of theirs to stop, 0 for never; of each actor
            on Ray.
        anew: Throw away what an earlier run has answered.
    """

    source: str
    out: Path
    workers: int | None = None
    force: bool = False
    ray: str | None = None
    labels: str | None = None
    film_seconds: int = FILM_SECONDS
    stop_after: int = STOP_AFTER
    anew: bool = False


class Outcome(NamedTuple):
    """What to tell the user, and how many films failed for no fault of theirs."""

    told: str
    to_retry: int


def run_batch(batch: Batch, settings: Settings) -> Outcome:
    """Answer every film of a source that has no row yet, then write them all.

    Raises:
        ConfigError: If the source, the labels or the output cannot be used, another run is at the output, or rows of
            other options are.
        ModelUnavailableError: If the model cannot be loaded.
        BatchStoppedError: If too many films in a row failed for no fault of theirs.
    """
    _check_numbers(batch)
    # Links and `..` resolved: the results are not to be taken for films by another road that leads to them.
    out = Path(os.path.realpath(batch.out))
    if str(out) == os.path.realpath(batch.source):
        raise ConfigError("The results would take the place of the source.", hint="Give --out another name.")
    films = find_films(batch.source, ignored=(out, Path(os.path.realpath(folder_of(out)))))
    labels = None
    if batch.labels is not None:
        from pneumonet.batch.figures import figures_of
        from pneumonet.batch.labels import read_labels

        labels = read_labels(batch.labels, films)
    snapshot = open_snapshot(settings.model, settings.revision)
    force = batch.force or labels is not None
    job = Job.of(
        settings,
        snapshot,
        force=force,
        threads=_threads(batch),
        film_seconds=batch.film_seconds,
        stop_after=batch.stop_after,
    )
    model = {"repo_id": snapshot.repo_id, "revision": snapshot.revision, "version": snapshot.config.version}
    provenance = {"model": model, "force": force, "pneumonet": __version__}
    parts = Parts(out, job.fingerprint(batch.source), provenance, force)
    with only_run(out):
        parts.open(anew=batch.anew)
        _answer(batch, films, job, parts)
        codes = parts.merge(films.names)
    to_retry = sum(codes[code] for code in OUR_FAILURES)
    told = _summary(codes, out, job)
    if to_retry:
        told.append(f"{to_retry} films failed for no fault of theirs: {_again(batch)} tries them once more.")
    if labels is not None:
        if without := len(films.names) - len(labels.classes):
            told.append(f"{without} of {len(films.names)} films have no label and are not scored.")
        told += ["", figures_of(out, labels, snapshot.config), ""]
    return Outcome("\n".join([*told, DISCLAIMER]), to_retry)


def _check_numbers(batch: Batch) -> None:
    if batch.workers is not None and batch.workers < 1:
        raise ConfigError(f"Expected --workers to be at least 1, got {batch.workers}.")
    if batch.stop_after < 0:
        raise ConfigError(f"Expected --stop-after to be at least 0, got {batch.stop_after}.")
    if not 1 <= batch.film_seconds <= _MOST_FILM_SECONDS:
        raise ConfigError(f"Expected --film-seconds from 1 to {_MOST_FILM_SECONDS}, got {batch.film_seconds}.")


def _answer(batch: Batch, films: Films, job: Job, parts: Parts) -> None:
    """Answer the films that have no row yet."""
    done, to_retry = parts.standing(films.names)
    # Films that failed go last: where they fail again and stop the run, all others have had their turn.
    waiting = sorted((name for name in films.names if name not in done), key=to_retry.__contains__)
    if done:
        print(f"{len(done)} of {len(films.names)} films are answered already.", file=sys.stderr)
    if not waiting:
        return
    # A progress bar is for somebody who watches: without a terminal it would fill a log.
    with tqdm(total=len(films.names), initial=len(done), unit="film", disable=None) as bar:
        if batch.ray is None:
            from pneumonet.batch.local import answer_here

            answer_here(films, waiting, job, parts, batch.workers, bar.update)
        else:
            from pneumonet.batch.on_ray import answer_on_ray

            answer_on_ray(films, waiting, job, parts, batch.workers, batch.ray, bar.update)
    _check_whole(batch, films, parts)


def _check_whole(batch: Batch, films: Films, parts: Parts) -> None:
    """See that each film has a row."""
    settled, to_retry = parts.standing(films.names)
    if to_retry and (left := len(films.names) - len(settled) - len(to_retry)):
        codes = _listed(Counter(to_retry.values()))
        raise BatchStoppedError(
            f"The batch stopped: film after film failed for no fault of its own ({codes}), and {left} of "
            f"{len(films.names)} have no row yet.",
            hint=f"See that the films' disk is there, that memory is left and that the accelerator works; "
            f"{_again(batch)} goes on from here. --stop-after says how many failures in a row are too many.",
        )


def _again(batch: Batch) -> str:
    return "the same command" + (" without --anew" if batch.anew else "")


def _threads(batch: Batch) -> int:
    is_elsewhere = batch.ray not in (None, "local")
    return CORES_A_WORKER if is_elsewhere else threads_of(batch.workers)


def _summary(codes: Counter[str | None], out: Path, job: Job) -> list[str]:
    total, answered, refused = codes.total(), codes.pop(None, 0), codes.pop(AdmissionError.code, 0)
    words = [f"{answered} answered", f"{refused} refused by admission"]
    words.append(f"{codes.total()} without an answer" + (f" ({_listed(codes)})" if codes else ""))
    told = [f"{total} films: {', '.join(words)}. Rows in {out.name}."]
    if codes[FileTooLargeError.code]:
        told.append(f"A film may have {job.largest_film_mb} MB; to change that, set PNEUMONET_MAX_UPLOAD_MB.")
    return told


def _listed(codes: Mapping[str | None, int]) -> str:
    return ", ".join(f"{code} {n}" for code, n in sorted(codes.items(), key=str))
