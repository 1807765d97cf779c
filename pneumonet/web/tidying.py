"""Nothing of a request outlives it: the private folder, and what sweeps it and Gradio's memory."""

import asyncio
import atexit
import contextlib
import functools
import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from gradio.server_messages import ProcessCompletedMessage

from pneumonet.web.metrics import HELD_BYTES
from pneumonet.web.uploads import UPLOAD_SECONDS, outputs, uploads

logger = logging.getLogger("pneumonet.tidying")

# Files of Gradio's are at most this old when they go: its own empty ones, and whatever a page may write.
_FILE_SECONDS: Final = 4.0
_TIDY_EVERY_SECONDS: Final = 1.0
# Of answers that nobody has fetched yet, over all sessions. One with each of its maps is some megabytes.
_UNREAD_BYTES: Final = 200_000_000
# What a message of few words takes all the same.
_MESSAGE_BYTES: Final = 1_000
_GAUGE: Final = HELD_BYTES.labels("answers")


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
    is_failing = False
    while True:
        await asyncio.sleep(_TIDY_EVERY_SECONDS)
        try:
            uploads.tidy()
            outputs.tidy()
            unread = drop_unread(page._queue, unread)
            await asyncio.to_thread(sweep, folder, keep)
            is_failing = False
        except Exception as error:
            # The next round is to come all the same. Its message may hold what a caller sent; and once is enough.
            if not is_failing:
                place = "".join(traceback.format_tb(error.__traceback__))
                logger.error("sweeping failed with %s at\n%s", type(error).__name__, place)
            is_failing = True


def drop_unread(queue: Any, unread: dict[str, float], seconds: float = UPLOAD_SECONDS) -> dict[str, float]:
    """Forget the answers that nobody fetches, which Gradio keeps for the last 2000 sessions, and the sessions.

    Gradio keeps each session that ever asked among those that have events, also when all of them have been answered, or
    when whoever asked has hung up. Those that wait too long go, and beyond 200 MB over all sessions the oldest.

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
    # Whoever has an event on its way is told things before there is an answer: those wait for nobody's sake.
    waiting |= {session for session in messages if any(map(_is_answer, messages[session]._queue))}
    unread = {session: unread.get(session, now) for session in waiting}
    late = {session for session, since in unread.items() if now - since > seconds}
    for session in late | _beyond_the_bytes(messages, unread, now):
        unread.pop(session, None)
        if session in running and _forget_answers(messages[session], events.get(session, set())):
            # Gradio looks it up when the event ends.
            continue
        messages.pop(session, None)
        events.pop(session, None)
    return unread


def _beyond_the_bytes(messages: Any, unread: dict[str, float], now: float) -> set[str]:
    """Return the sessions whose answers find no place: the last that came have it first."""
    total, beyond = 0, set()
    for session in sorted(messages, key=lambda session: unread.get(session, now), reverse=True):
        size = sum(_MESSAGE_BYTES + _size(getattr(message, "output", "")) for message in messages[session]._queue)
        if total + size > _UNREAD_BYTES:
            beyond.add(session)
        else:
            total += size
    _GAUGE.set(total)
    return beyond


def _size(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else len(value) if isinstance(value, str) else 0


def _is_answer(message: Any) -> bool:
    return getattr(message, "output", None) is not None


def _forget_answers(messages: asyncio.Queue[Any], ids: set[str]) -> set[str]:
    """Empty a session's messages, and take the ids of events that these end from those whose end is to be told.

    Gradio ends a stream when no id is left, and takes one out only as it sends the message.

    Returns:
        The ids that are left.
    """
    while not messages.empty():
        message = messages.get_nowait()
        if isinstance(message, ProcessCompletedMessage):
            ids.discard(message.event_id or "")
    return ids


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
