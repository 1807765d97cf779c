"""What the server counts, for Prometheus at GET /metrics. Nothing of a film or its sender is in it."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pneumonet.errors import AdmissionError, PneumoNetError
from pneumonet.finding import Finding, ModelInfo

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
# As they are scraped.
NAMES: Final = (
    "pneumonet_requests_total",
    "pneumonet_request_seconds",
    "pneumonet_answers_total",
    "pneumonet_answer_seconds",
    "pneumonet_queue_length",
    "pneumonet_batch_size",
    "pneumonet_refusals_total",
    "pneumonet_turned_away_total",
    "pneumonet_held_bytes",
    "pneumonet_labels_total",
    "pneumonet_cache_hits_total",
    "pneumonet_cache_misses_total",
    "pneumonet_model_info",
)
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_ROUTES: Final = ("/predict", "/health", "/api", "/metrics", "/openapi.json", "/schema/report.json")
_GRADIO_ROUTES: Final = ("upload", "call", "queue", "file=", "run", "mcp")


_DOORS: Final = ("rest", "gradio", "mcp", "page")
# They exist from the start: an increase over a series that first appears at 1 is 0, and its alert stays silent.
_ALERTED: Final = ("internal_error", "busy", "took_too_long")
_TURNED_AWAY: Final = (*_ALERTED, "too_many_requests")

# One of each a process: what turns requests away, or holds films, knows no service.
TURNED_AWAY: Final = Counter(
    "pneumonet_turned_away", "Requests that reached no film's answer, by stable code", ["code"], registry=None
)
HELD_BYTES: Final = Gauge(
    "pneumonet_held_bytes",
    "Bytes held in memory: films on the page, in bodies that arrive, in uploads; overlays in outputs, answers unread",
    ["where"],
    registry=None,
)
for _code in _TURNED_AWAY:
    TURNED_AWAY.labels(_code)


def route_of(path: str) -> str:
    """Return the route that a path belongs to: one of a few, whatever strangers ask for.

    >>> route_of("/predict"), route_of("/gradio_api/call/predict/8f3a"), route_of("/"), route_of("/wp-login.php")
    ('/predict', '/gradio_api/call', '/', 'other')
    """
    if path in ("/", *_ROUTES):
        return path
    if path.startswith("/gradio_api/"):
        asked = path.removeprefix("/gradio_api/")
        return next((f"/gradio_api/{name}" for name in _GRADIO_ROUTES if asked.startswith(name)), "/gradio_api")
    # What follows is a visitor's own token.
    return "/report" if path.startswith("/report/") else "other"


class Metrics:
    """One service's counters."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(TURNED_AWAY)
        registry.register(HELD_BYTES)
        self._requests = Counter(
            "pneumonet_requests", "Requests by route and HTTP status", ["route", "code"], registry=registry
        )
        self._request_seconds = Histogram(
            "pneumonet_request_seconds", "Until a response began", ["route"], registry=registry, buckets=_SECONDS
        )
        self._answers = Counter(
            "pneumonet_answers", "Films by door and stable code, ok or an error's", ["door", "code"], registry=registry
        )
        for door in _DOORS:
            for code in _ALERTED:
                self._answers.labels(door, code)
        self._answer_seconds = Histogram(
            "pneumonet_answer_seconds",
            "From a film to its answer",
            ["door"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.queue_length = Gauge("pneumonet_queue_length", "Films that wait or are being analysed", registry=registry)
        self.batch_size = Histogram(
            "pneumonet_batch_size",
            "Films in one pass of the backbones",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )
        self._refusals = Counter("pneumonet_refusals", "Films refused, by reason", ["reason"], registry=registry)
        self._labels = Counter("pneumonet_labels", "Films answered, by class", ["label"], registry=registry)
        self.cache_hits = Counter("pneumonet_cache_hits", "Films answered from the cache", registry=registry)
        self.cache_misses = Counter("pneumonet_cache_misses", "Films not in the cache", registry=registry)
        self._model_info = Gauge(
            "pneumonet_model_info",
            "The weights and what runs them; always 1",
            ["version", "revision", "engine", "precision", "device"],
            registry=registry,
        )

    def responded(self, path: str, status: int, seconds: float) -> None:
        """Count a response."""
        route = route_of(path)
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def answered(self, door: str, code: str, outcome: Finding | PneumoNetError | None, seconds: float) -> None:
        """Count a film's answer, or the error it got, with the code that the log has; None for a caller who hung up."""
        self._answers.labels(door, code).inc()
        self._answer_seconds.labels(door).observe(seconds)
        if isinstance(outcome, Finding):
            self._labels.labels(outcome.label).inc()
        elif isinstance(outcome, AdmissionError):
            for reason in outcome.reasons:
                self._refusals.labels(reason.code).inc()

    def loaded(self, info: ModelInfo, engine: str, precision: str, device: str) -> None:
        """Say which weights answer, and what runs them."""
        self._model_info.labels(info.version, info.revision, engine, precision, device).set(1)

    def exposition(self) -> bytes:
        """Return every value in Prometheus' text format."""
        return generate_latest(self.registry)
