"""The one place where requests of every door wait, are answered, timed and logged."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Literal, TypeVar

from pneumonet.engines import Engine
from pneumonet.engines.gathering import GatheringEngine
from pneumonet.errors import AdmissionError, InternalError, ModelUnavailableError, PneumoNetError
from pneumonet.finding import NO_FILM, Finding
from pneumonet.language import said
from pneumonet.model import PneumoNet
from pneumonet.reading import read_radiograph
from pneumonet.settings import Settings
from pneumonet.web.answers import milliseconds_since, stopping, unforeseen
from pneumonet.web.cache import AnswerCache, Outcome, open_cache
from pneumonet.web.logs import log_request
from pneumonet.web.metrics import Metrics
from pneumonet.web.passes import ObservedEngine, run_by
from pneumonet.web.tracing import Tracing
from pneumonet.web.turns import Turns

logger = logging.getLogger("pneumonet.service")

Drawn = TypeVar("Drawn")
Status = Literal["starting", "healthy", "unhealthy"]
# One pass uses every core, so that more films at once only wait; but one is decoded while the other is passed.
_AT_ONCE: Final = 2
AT_ONCE_GATHERED: Final = 16
_GATHERING_WAIT_MS: Final = 10
# Previews and reports decode a film as answers do, and keep none of them waiting.
_PREVIEWS_AT_ONCE: Final = 2
_PREVIEWS_WAITING: Final = 32
_REPORTS_AT_ONCE: Final = 2
_REPORTS_WAITING: Final = 16
# A thread that is still at a piece after so many times what a request may take will not return; but a server whose
# requests may take a second is not started anew for a film that takes four.
_STUCK_AFTER_REQUESTS: Final = 3
_STUCK_AFTER_SECONDS: Final = 60


class Service:
    """The model that every door shares, and the queues before it and what goes with it.

    Films are held in memory only; the log gets a request id, the door, a duration and a code, and no file name.

    Attributes:
        films: The turns of films to be answered.
        previews: The turns of previews to be drawn.
        reports: The turns of reports to be made.
        is_stopping: Whether the server stops: what is there is done, and nothing new is taken.
    """

    def __init__(self, settings: Settings, load: Callable[[], PneumoNet]) -> None:
        """Prepare the service; `start` loads the model.

        Args:
            settings: Limits of the queue and of uploads.
            load: Returns the model; may take minutes, and may raise `PneumoNetError`.
        """
        self.settings = settings
        self.status: Status = "starting"
        self.is_stopping = False
        self.failure: PneumoNetError | None = None
        self._load = load
        self._model: PneumoNet | None = None
        self._cache: AnswerCache | None = None
        self._tracing = Tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None
        seconds = settings.request_seconds
        self.films = self._film_turns(_AT_ONCE)
        self.previews = Turns(_PREVIEWS_AT_ONCE, _PREVIEWS_AT_ONCE + _PREVIEWS_WAITING, seconds)
        self.reports = Turns(_REPORTS_AT_ONCE, _REPORTS_AT_ONCE + _REPORTS_WAITING, seconds)
        self.metrics = Metrics()
        self.metrics.queue_length.set_function(lambda: self.films.present)

    @property
    def model(self) -> PneumoNet:
        """The loaded model.

        Raises:
            ModelUnavailableError: If it is not loaded yet, or could not be.
        """
        if self._model is None:
            if self.failure is not None:
                raise ModelUnavailableError(
                    said("The model could not be loaded."), hint=said("Ask whoever runs this server.")
                )
            raise ModelUnavailableError(said("The model is still being loaded."))
        return self._model

    @property
    def has_work(self) -> bool:
        """Whether films or reports wait or are in work."""
        return self.films.present + self.reports.present > 0

    def check_open(self) -> None:
        """Look whether new work is taken.

        Raises:
            ModelUnavailableError: If the server stops.
        """
        if self.is_stopping:
            raise stopping()

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
        logger.info("model %s ready after %.1f s", self._model.info.revision, time.perf_counter() - started)
        self.status = "healthy"

    def close(self) -> None:
        """Send what is to be sent at the end; the server stops."""
        if self._tracing is not None:
            self._tracing.close()

    def _ready(self, model: PneumoNet) -> PneumoNet:
        engine = model.ensemble.engine
        self._cache = open_cache(self.settings, model.info, f"{engine.name} {engine.precision}")
        self.metrics.loaded(model.info, engine.name, engine.precision, engine.device)
        observed = ObservedEngine(engine, self.metrics.batch_size.observe)
        wait_ms = self.settings.batch_wait_ms
        if wait_ms is None:
            # On a CPU OpenVINO answers a fifth more films at most by shared passes (docs/performance.md), for sixteen
            # films' memory, and an answer's last digit goes with who shares them.
            wait_ms = 0 if engine.device == "cpu" else _GATHERING_WAIT_MS
        return run_by(model, self._gathering(observed, wait_ms / 1000) if wait_ms else observed)

    def _gathering(self, engine: Engine, wait_seconds: float) -> Engine:
        self.films = self._film_turns(AT_ONCE_GATHERED)
        return GatheringEngine(engine, wait_seconds=wait_seconds, max_films=AT_ONCE_GATHERED)

    def _film_turns(self, at_once: int) -> Turns:
        return Turns(at_once, self.settings.max_waiting + at_once, self.settings.request_seconds)

    @property
    def oldest_seconds(self) -> float:
        """For how long the oldest film, preview or report has been at work."""
        return max(turns.oldest_seconds for turns in (self.films, self.previews, self.reports))

    @property
    def is_stuck(self) -> bool:
        """Whether a thread is held that will not return: only a new process frees its place."""
        allowed = max(_STUCK_AFTER_SECONDS, _STUCK_AFTER_REQUESTS * self.settings.request_seconds)
        return self.oldest_seconds > allowed

    @property
    def engine(self) -> dict[str, str]:
        """What runs the backbones: its name, device and precision.

        Raises:
            ModelUnavailableError: If no model is loaded.
        """
        engine = self.model.ensemble.engine
        return {"name": engine.name, "device": engine.device, "precision": engine.precision}

    async def answer(
        self,
        data: bytes,
        *,
        draw: Callable[[Finding], Drawn],
        request_id: str,
        door: str,
        frame: int | None = None,
        force: bool = False,
        saliency: bool = True,
        trace: Mapping[str, str] | None = None,
    ) -> tuple[Finding, Drawn]:
        """Answer a film when its turn comes, and draw what its door shows of it in the same turn and time.

        Args:
            data: The file's bytes.
            draw: What the door shows of the finding, called in the film's thread. Without `saliency` the finding may
                come from the cache, and without its film.
            request_id: From `new_request_id`; stands in the log.
            door: Which door asks; stands in the log.
            frame: As in `PneumoNet.predict`.
            force: As in `PneumoNet.predict`.
            saliency: As in `PneumoNet.predict`.
            trace: From `trace_of`: the caller's own trace.

        Returns:
            The finding without its film, whose pixels go with the turn, and what was drawn.

        Raises:
            PneumoNetError: Whatever went wrong; an unforeseen failure is an `InternalError`, its traceback in the log.
        """
        started = time.perf_counter()
        outcome: Finding | PneumoNetError | None = None
        try:
            self.check_open()
            model = self.model

            def work() -> tuple[Finding, Drawn] | AdmissionError:
                made = self._outcome(model, data, frame, force, saliency)
                return made if isinstance(made, AdmissionError) else (replace(made, film=NO_FILM), draw(made))

            answered = await self.films.run(work)
            if isinstance(answered, AdmissionError):
                raise answered
            outcome = answered[0]
            return answered
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
                self._tracing.answered(request_id, door, code, duration, timings, trace)
            self.metrics.answered(door, code, outcome, duration / 1000)

    def _outcome(self, model: PneumoNet, data: bytes, frame: int | None, force: bool, saliency: bool) -> Outcome:
        """Return a finding or admission's refusal, kept from the same film before or made now."""
        cache = self._cache
        if cache is None:
            return _made(model, data, frame, force, saliency)
        key = cache.key(data, frame=frame, force=force, saliency=saliency)
        kept = cache.get(key)
        (self.metrics.cache_misses if kept is None else self.metrics.cache_hits).inc()
        if isinstance(kept, Finding) and saliency:
            return replace(kept, film=read_radiograph(data, frame=frame, limits=model.limits))
        if kept is not None:
            return kept
        outcome = _made(model, data, frame, force, saliency)
        cache.put(key, outcome)
        return outcome


def _made(model: PneumoNet, data: bytes, frame: int | None, force: bool, saliency: bool) -> Outcome:
    try:
        return model.predict(data, frame=frame, force=force, saliency=saliency)
    except AdmissionError as error:
        # Its traceback holds the frames that read the film, with all its pixels, and the page holds the refusal.
        return error.with_traceback(None)
