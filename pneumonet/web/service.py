"""The one place where requests of every door wait, are answered, timed and logged."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

import anyio.to_thread

from pneumonet.engines.gathering import GatheringEngine
from pneumonet.ensemble import Ensemble
from pneumonet.errors import (
    AdmissionError,
    BusyError,
    InternalError,
    ModelUnavailableError,
    PneumoNetError,
    TookTooLongError,
)
from pneumonet.finding import Finding
from pneumonet.model import PneumoNet
from pneumonet.reading import read_radiograph
from pneumonet.settings import Settings
from pneumonet.web.answers import milliseconds_since, unforeseen
from pneumonet.web.cache import AnswerCache, Outcome, open_cache
from pneumonet.web.logs import log_request
from pneumonet.web.metrics import Metrics
from pneumonet.web.tracing import Tracing

logger = logging.getLogger("pneumonet.service")

Status = Literal["starting", "healthy", "unhealthy"]
# One pass uses every core, so that more films at once only wait; but one is decoded while the other is passed.
_AT_ONCE: Final = 2
_AT_ONCE_GATHERED: Final = 16
_GATHERING_WAIT_MS: Final = 10


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
        self.metrics = Metrics()
        self.present = 0
        self._cache: AnswerCache | None = None
        self._tracing = Tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None
        self._at_once = _AT_ONCE
        self._turns = asyncio.Semaphore(_AT_ONCE)

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
            self._model = self._ready(self._load())
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

    def close(self) -> None:
        """Send what is to be sent at the end; the server stops."""
        if self._tracing is not None:
            self._tracing.close()

    def _ready(self, model: PneumoNet) -> PneumoNet:
        engine = model.ensemble.engine
        self._cache = open_cache(self.settings, model.info, f"{engine.name} {engine.precision}")
        self.metrics.loaded(model.info, engine.name, engine.precision, engine.device)
        wait_ms = self.settings.batch_wait_ms
        if wait_ms is None:
            # On a CPU a shared pass is a seventh faster at best, and an answer's last digit goes with who shares it.
            wait_ms = 0 if engine.device == "cpu" else _GATHERING_WAIT_MS
        if not wait_ms:
            return model
        self._at_once = _AT_ONCE_GATHERED
        self._turns = asyncio.Semaphore(_AT_ONCE_GATHERED)
        gathering = GatheringEngine(
            engine,
            wait_seconds=wait_ms / 1000,
            max_films=_AT_ONCE_GATHERED,
            on_pass=self.metrics.batch_size.observe,
        )
        ensemble = Ensemble(model.ensemble.configs, model.ensemble.input_config, gathering)
        return PneumoNet(model.snapshot, ensemble, model.admission, model.limits)

    @property
    def engine(self) -> dict[str, str]:
        """What runs the backbones: its name, device and precision.

        Raises:
            ModelUnavailableError: If no model is loaded.
        """
        engine = self.model.ensemble.engine
        return {"name": engine.name, "device": engine.device, "precision": engine.precision}

    @property
    def most_present(self) -> int:
        """How many films may wait or be analysed before the answer is "busy"."""
        return self.settings.max_waiting + self._at_once

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
        outcome: Finding | PneumoNetError | None = None
        try:
            outcome = await self._outcome(data, frame=frame, force=force, saliency=saliency)
            if isinstance(outcome, PneumoNetError):
                raise outcome
            return outcome
        except PneumoNetError as error:
            outcome = error
            raise
        except Exception as error:
            outcome = unforeseen(error, request_id)
            raise outcome from error
        finally:
            duration = milliseconds_since(started)
            code = "cancelled" if outcome is None else outcome.code if isinstance(outcome, PneumoNetError) else "ok"
            log_request(request_id, door, code, duration)
            if self._tracing is not None:
                timings = outcome.timings if isinstance(outcome, Finding) else None
                self._tracing.answered(request_id, door, code, duration, timings)
            self.metrics.answered(door, code, outcome, duration / 1000)

    async def _outcome(self, data: bytes, *, frame: int | None, force: bool, saliency: bool) -> Outcome:
        """Return a finding or admission's refusal: kept from the same film before, else in turn."""
        model, cache = self.model, self._cache
        if cache is None:
            return await self._in_turn(lambda: model.predict(data, frame=frame, force=force, saliency=saliency))
        key = cache.key(data, frame=frame, force=force, saliency=saliency)
        kept = await anyio.to_thread.run_sync(cache.get, key)
        (self.metrics.cache_misses if kept is None else self.metrics.cache_hits).inc()
        if kept is not None:
            # Decoding too waits its turn: it is what is left to do, and takes the memory of a film.
            return await self._in_turn(lambda: kept(read_radiograph(data, frame=frame, limits=model.limits)))
        outcome: Outcome
        try:
            outcome = await self._in_turn(lambda: model.predict(data, frame=frame, force=force, saliency=saliency))
        except AdmissionError as error:
            outcome = error
        await anyio.to_thread.run_sync(cache.put, key, outcome)
        return outcome

    async def _in_turn(self, work: Callable[[], Outcome]) -> Outcome:
        if self.present >= self.most_present:
            raise BusyError(f"{self.present} films are being analysed or wait; the queue is full.")
        begun = asyncio.Event()
        self._come_and_go(+1)
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

    async def _turn(self, work: Callable[[], Outcome], begun: asyncio.Event) -> Outcome:
        async with self._turns:
            begun.set()
            if self._at_once == _AT_ONCE:
                self.metrics.batch_size.observe(1)
            return await anyio.to_thread.run_sync(work)

    def _come_and_go(self, change: int) -> None:
        self.present += change
        self.metrics.queue_length.set(self.present)

    def _leave(self, turn: "asyncio.Task[Outcome]") -> None:
        self._come_and_go(-1)
        if not turn.cancelled():
            turn.exception()  # looked at, so that asyncio does not log what nobody waited for
