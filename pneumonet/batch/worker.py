"""A process that answers films: JSON lines of [path, place] on standard input, of {"row": ...} on standard output.

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
from typing import Any, TextIO

from pneumonet.batch.rows import Row, answered, failed
from pneumonet.errors import InternalError, PneumoNetError
from pneumonet.model import PneumoNet
from pneumonet.reading import read_bytes
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
        film = read_bytes(place, model.limits)
        sha256 = hashlib.sha256(film).hexdigest()
        return answered(path, sha256, model.predict(film, force=force, saliency=False))
    except PneumoNetError as error:
        return failed(path, sha256, model.info.revision, error)
    except Exception:
        # The hash tells which film it was to whoever has the film, and to nobody else.
        _log.exception("A film failed as nobody foresaw; its SHA-256 is %s.", sha256)
        return failed(path, sha256, model.info.revision, InternalError("The film could not be answered: our fault."))


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
    _say(out, {"ready": model.ensemble.engine.device})
    for line in sys.stdin:
        path, place = json.loads(line)
        _say(out, {"row": answer(model, path, place, force="--force" in argv)})


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
