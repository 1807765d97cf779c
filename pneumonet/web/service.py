"""The one place where requests of every door wait, are answered, timed and logged."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

import anyio.to_thread

from pneumonet.errors import BusyError, InternalError, ModelUnavailableError, PneumoNetError, TookTooLongError
from pneumonet.finding import Finding
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.answers import unforeseen

logger = logging.getLogger("pneumonet.service")

Status = Literal["starting", "healthy", "unhealthy"]
# One film at a time: a pass already uses every core, and two at once only make both slower.
_AT_ONCE: Final = 1


class Service:
    """The model that every door shares, and the queue before it.

    Films are held in memory only; the log gets a request id, the door, a duration and a code, and no file name.
    """

    def __init__(self, settings: Settings, load: Callable[[], PneumoNet]) -> None:
        """Prepare the service; `start` loads the model.

        Args:
            settings: Limits of the queue and of uploads.
            load: Returns the model; may take minutes, and may raise `PneumoNetError`.
        """
        self.settings = settings
        self.status: Status = "starting"
        self.failure: PneumoNetError | None = None
        self._load = load
        self._model: PneumoNet | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._present = 0

    @property
    def model(self) -> PneumoNet:
        """The loaded model.

        Raises:
            ModelUnavailableError: If it is not loaded yet, or could not be.
        """
        if self._model is None:
            if self.failure is not None:
                raise ModelUnavailableError("The model could not be loaded.", hint="Ask whoever runs this server.")
            raise ModelUnavailableError("The model is still being loaded.")
        return self._model

    def start(self, on_failure: Callable[[], None] | None = None) -> threading.Thread:
        """Load the model in a thread, so that the server answers "starting" meanwhile.

        Args:
            on_failure: Called where loading fails, after the log has the reason.
        """
        thread = threading.Thread(target=self._start, args=(on_failure,), name="load-model", daemon=True)
        thread.start()
        return thread

    def _start(self, on_failure: Callable[[], None] | None) -> None:
        started = time.perf_counter()
        try:
            self._model = self._load()
        except Exception as error:
            known = isinstance(error, PneumoNetError)
            self.failure = error if isinstance(error, PneumoNetError) else InternalError("The model failed to load.")
            self.status = "unhealthy"
            logger.error("%s %s", self.failure.message, self.failure.hint, exc_info=None if known else error)
            if on_failure is not None:
                on_failure()
            return
        self.status = "healthy"
        logger.info("model %s ready after %.1f s", self._model.info.revision, time.perf_counter() - started)

    async def answer(
        self,
        data: bytes,
        *,
        request_id: str,
        door: str,
        frame: int | None = None,
        force: bool = False,
        saliency: bool = True,
    ) -> Finding:
        """Answer a film when its turn comes.

        Args:
            data: The file's bytes.
            request_id: From `new_request_id`; stands in the log.
            door: Which door asks; stands in the log.
            frame: As in `PneumoNet.predict`.
            force: As in `PneumoNet.predict`.
            saliency: As in `PneumoNet.predict`.

        Raises:
            PneumoNetError: Whatever went wrong; an unforeseen failure is an `InternalError`, its traceback in the log.
        """
        started = time.perf_counter()
        code = "cancelled"
        try:
            model = self.model
            finding = await self._in_turn(lambda: model.predict(data, frame=frame, force=force, saliency=saliency))
            code = "ok"
            return finding
        except PneumoNetError as error:
            code = error.code
            raise
        except Exception as error:
            code = InternalError.code
            raise unforeseen(error, request_id) from error
        finally:
            duration = (time.perf_counter() - started) * 1000
            logger.info("request=%s door=%s code=%s duration_ms=%.1f", request_id, door, code, duration)

    async def _in_turn(self, work: Callable[[], Finding]) -> Finding:
        if self._present >= self.settings.max_waiting + _AT_ONCE:
            raise BusyError(f"{self._present} films are being analysed or wait; the queue is full.")
        begun = asyncio.Event()
        self._present += 1
        turn = asyncio.create_task(self._turn(work, begun))
        turn.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.shield(turn), self.settings.request_seconds)
        except asyncio.TimeoutError:
            message = f"The film was not answered within {self.settings.request_seconds} s."
            raise TookTooLongError(message) from None
        finally:
            # A film that waits gives up its place. A thread cannot be stopped: one that is being analysed keeps its
            # place to the end, though nobody hears of it.
            if not begun.is_set():
                turn.cancel()

    async def _turn(self, work: Callable[[], Finding], begun: asyncio.Event) -> Finding:
        async with self._turns:
            begun.set()
            return await anyio.to_thread.run_sync(work)

    def _leave(self, turn: "asyncio.Task[Finding]") -> None:
        self._present -= 1
        if not turn.cancelled():
            turn.exception()  # looked at, so that asyncio does not log what nobody waited for
