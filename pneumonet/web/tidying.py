"""Nothing of a request outlives it: the private folder, and what sweeps it and Gradio's memory."""

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from pneumonet.web.uploads import UPLOAD_SECONDS, outputs, uploads

# Files of Gradio's are at most this old when they go: its own empty ones, and whatever a page may write.
_FILE_SECONDS: Final = 4.0
_TIDY_EVERY_SECONDS: Final = 1.0


@functools.cache
def private_folder() -> Path:
    """Return a fresh folder for Gradio's files that only this process uses, inside GRADIO_TEMP_DIR where it is set."""
    parent = os.environ.get("GRADIO_TEMP_DIR") or None
    if parent is not None:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pneumonet-", dir=parent)).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def tidying(folder: Path, page: Any) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    """Return an app's lifespan, during which a folder and a page's memory are swept every second."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # What is there before the first request is the page's own.
        task = asyncio.create_task(_tidy(folder, frozenset(_files(folder)), page))
        try:
            yield
        finally:
            task.cancel()

    return lifespan


async def _tidy(folder: Path, keep: frozenset[Path], page: Any) -> None:
    unread: dict[str, float] = {}
    while True:
        await asyncio.sleep(_TIDY_EVERY_SECONDS)
        uploads.tidy()
        outputs.tidy()
        unread = drop_unread(page._queue, unread)
        await asyncio.to_thread(sweep, folder, keep)


def drop_unread(queue: Any, unread: dict[str, float], seconds: float = UPLOAD_SECONDS) -> dict[str, float]:
    """Forget the answers that nobody fetches, which Gradio keeps for the last 2000 sessions, and the sessions.

    Gradio keeps each session that ever asked among those that have events, also when all of them have been answered, or
    when whoever asked has hung up.

    Args:
        queue: Gradio's queue of a page.
        unread: Since when each session has answers that wait, as the last call returned it.
        seconds: How long they may.
    """
    running = {event.session_hash for event in queue.event_ids_to_events.values()}
    messages, events = queue.pending_messages_per_session, queue.pending_event_ids_session
    now = time.monotonic()
    for session in [session for session, ids in events.items() if not ids and session not in running]:
        del events[session]
    waiting = {*events, *(session for session in messages if not messages[session].empty())} - running
    unread = {session: unread.get(session, now) for session in waiting}
    for session in [session for session, since in unread.items() if now - since > seconds]:
        messages.pop(session, None)
        events.pop(session, None)
        del unread[session]
    return unread


def _files(folder: Path) -> Iterable[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def sweep(folder: Path, keep: frozenset[Path], max_age: float = _FILE_SECONDS) -> None:
    """Remove the files under a folder that are too old, but for some to keep, and the folders that are then empty."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            elif path not in keep and time.time() - path.lstat().st_ctime > max_age:
                path.unlink()
