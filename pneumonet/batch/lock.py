"""One run at a time for one output: two would clear away and merge each other's parts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from pneumonet.batch.parts import folder_of, writing
from pneumonet.errors import ConfigError

if sys.platform != "win32":
    import fcntl

_LOCK: Final = ".lock"


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Make the folder of an output's parts and keep other runs away; at the end, remove it where it is empty.

    The lock ends with its process, whatever ends that. Windows and some file systems have no such locks; nobody is kept
    away there.

    Raises:
        ConfigError: If another run is at this output, or the folder cannot be made.
    """
    path = folder_of(out) / _LOCK
    with writing(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        if not _is_ours(file, path):
            raise ConfigError(
                f"Another run is writing {out.name}.", hint="Wait until it has ended, or give --out another name."
            )
        try:
            yield
        finally:
            # While it is still ours: who has opened it meanwhile sees that it is the lock no more.
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()


def _is_ours(file: IO[Any], path: Path) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
