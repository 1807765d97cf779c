"""A process that answers films: JSON lines of [[path, place], ...] on standard input, of rows on standard output.

    python -m pneumonet.batch.worker [--force]

Its first message says where the model runs, or why there is none. It ends with its input, so that none outlives a batch
that was killed.
"""

import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from pneumonet.batch.process import Film
from pneumonet.batch.rows import Row, answered, failed
from pneumonet.errors import FileUnavailableError, InternalError, PneumoNetError, UnreadableImageError
from pneumonet.model import PneumoNet
from pneumonet.radiograph import Radiograph
from pneumonet.reading import read_bytes, read_radiograph
from pneumonet.settings import Settings

_log = logging.getLogger(__name__)


def answer(model: PneumoNet, path: str, place: str, *, force: bool) -> Row:
    """Return a film's row, whatever happens.

    Args:
        model: The model.
        path: The film's path as its row has it.
        place: Where the film is.
        force: Answer a film that admission refuses.
    """
    sha256 = None
    try:
        film = _bytes_of(model, place)
        sha256 = hashlib.sha256(film).hexdigest()
        return answered(path, sha256, model.predict(film, force=force, saliency=False))
    except PneumoNetError as error:
        return failed(path, sha256, model.info.revision, error)
    except Exception:
        # The hash tells which film it was to whoever has the film, and to nobody else.
        _log.exception("A film failed as nobody foresaw; its SHA-256 is %s.", sha256)
        return failed(path, sha256, model.info.revision, InternalError("The film could not be answered: our fault."))


def answer_group(model: PneumoNet, films: Sequence[Film], *, force: bool) -> list[Row]:
    """Return the rows of films in their order, answered in one pass.

    None where several fail together as nobody foresaw: what the process answers after that is not to be trusted, so
    each film is to be asked about alone, in another.

    Args:
        model: The model.
        films: Each film's path as its row has it, and where it is.
        force: Answer films that admission refuses.
    """
    if len(films) == 1:
        [(path, place)] = films
        return [answer(model, path, place, force=force)]
    try:
        return _in_one_pass(model, films, force)
    except Exception:
        _log.exception("A pass of %d films failed; each is answered alone.", len(films))
        return []


def _in_one_pass(model: PneumoNet, films: Sequence[Film], force: bool) -> list[Row]:
    with ThreadPoolExecutor(len(films)) as readers:
        read = list(readers.map(lambda film: _read(model, film[1]), films))
    radiographs = [film for _, film in read if isinstance(film, Radiograph)]
    findings = iter(model.predict_batch(radiographs, force=force, saliency=False))
    rows = []
    for (path, _), (sha256, film) in zip(films, read, strict=True):
        told = next(findings) if isinstance(film, Radiograph) else film
        if isinstance(told, PneumoNetError):
            rows.append(failed(path, sha256, model.info.revision, told))
        else:
            assert sha256 is not None
            rows.append(answered(path, sha256, told))
    return rows


def _read(model: PneumoNet, place: str) -> tuple[str | None, Radiograph | PneumoNetError]:
    """Return the SHA-256 of a film's bytes and the film, or the error that says why there is none."""
    sha256 = None
    try:
        film = _bytes_of(model, place)
        sha256 = hashlib.sha256(film).hexdigest()
        return sha256, read_radiograph(film, limits=model.limits)
    except PneumoNetError as error:
        return sha256, error


def _bytes_of(model: PneumoNet, place: str) -> bytes:
    try:
        return read_bytes(place, model.limits)
    except UnreadableImageError as error:
        if not os.path.exists(place) and _has_files(Path(place).resolve().parent):
            raise
        # Nothing was decoded yet: the film may be a good one, on a share that is away.
        raise FileUnavailableError(error.message) from error


def _has_files(folder: Path) -> bool:
    """Return whether a folder is there and not empty, as where a share is to be mounted."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def main(argv: Sequence[str]) -> None:
    """Load the model of the environment's settings, then answer films until the input ends."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # A Ctrl+C goes to every process of the terminal; it is the batch that decides when its workers stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = _claim_standard_output()
    try:
        model = PneumoNet.from_pretrained(settings=Settings.from_environment())
    except PneumoNetError as error:
        _say(out, {"failure": error.message, "hint": error.hint})
        return
    engine = model.ensemble.engine
    _say(out, {"ready": engine.device})
    told = {"engine": f"{engine.name}, {engine.precision}, {engine.device}"}
    for line in sys.stdin:
        rows = answer_group(model, json.loads(line), force="--force" in argv)
        _say(out, {"rows": [row | told for row in rows]})


def _claim_standard_output() -> TextIO:
    """Return standard output for rows alone: what a library prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # What was printed before this point may lack its line's end.
    print(file=out, flush=True)
    return out


def _say(out: TextIO, message: dict[str, Any]) -> None:
    try:
        print(json.dumps(message), file=out, flush=True)
    except BrokenPipeError:
        # The batch was killed: nobody is left to tell.
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
