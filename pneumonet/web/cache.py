"""Answers kept for a while, so that the same film again costs no pass of the backbones.

What is kept are numbers and sentences of the answer: no pixel of the film, no name. The key is a digest of the film's
bytes, of the weights and of the options.
"""

import base64
import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumonet import __version__
from pneumonet.admission import Admission
from pneumonet.errors import AdmissionError, ConfigError, Reason
from pneumonet.finding import NO_FILM, Finding, ModelInfo
from pneumonet.language import as_data, from_data
from pneumonet.settings import Settings
from pneumonet.taxonomy import CLASS_NAMES, Risk

_log = logging.getLogger(__name__)

_MOST_ENTRIES: Final = 1000
_PREFIX: Final = "pneumonet:answer:"
_REDIS_SECONDS: Final = 0.5
# For so long films are answered without a server that did not answer: each would wait for it in its turn.
_RESPITE_SECONDS: Final = 5.0
# Part of each key: an answer kept by a PneumoNet that wrote it in another way is not read.
_FORMAT: Final = 1

Outcome = Finding | AdmissionError


class Store(Protocol):
    """Where answers are kept, each for a time."""

    def get(self, key: str) -> bytes | None:
        """Return what is kept, None where nothing is."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Keep a value."""
        ...


class MemoryStore:
    """This process's memory: a thousand answers at most, the one unasked for the longest leaving first."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._lock = seconds, clock, threading.Lock()
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """Return what is kept, None where nothing is or its time is over."""
        with self._lock:
            until, value = self._kept.get(key, (0.0, b""))
            if until <= self._clock():
                self._kept.pop(key, None)
                return None
            self._kept.move_to_end(key)
            return value

    def put(self, key: str, value: bytes) -> None:
        """Keep a value; those whose time is over go."""
        with self._lock:
            now = self._clock()
            for old in [k for k, (until, _) in self._kept.items() if until <= now]:
                del self._kept[old]
            self._kept[key] = (now + self._seconds, value)
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_ENTRIES:
                self._kept.popitem(last=False)


class RedisStore:
    """A Redis server that several processes share. Where it is out of reach films are answered without it."""

    def __init__(self, url: str, seconds: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Connect at the first use.

        Args:
            url: Of the server.
            seconds: How long a value is kept.
            clock: Seconds, rising.

        Raises:
            ConfigError: If the address is none, or the redis package is missing.
        """
        try:
            import redis
        except ImportError as error:
            hint = "Install requirements-redis.txt."
            raise ConfigError("PNEUMONET_REDIS_URL is set, and the redis package is missing.", hint=hint) from error
        try:
            self._client = redis.Redis.from_url(
                url, socket_timeout=_REDIS_SECONDS, socket_connect_timeout=_REDIS_SECONDS
            )
        except ValueError as error:
            # The address may hold a password and stays out of the message.
            raise ConfigError("Expected PNEUMONET_REDIS_URL to be an address such as redis://host:6379/0.") from error
        self._seconds, self._failure, self._clock = seconds, redis.RedisError, clock
        self._is_down, self._asked_again = False, 0.0

    def get(self, key: str) -> bytes | None:
        """Return what is kept, None where nothing is or the server is out of reach."""
        value = self._tried(lambda: self._client.get(_PREFIX + key))
        return value if isinstance(value, bytes) else None

    def put(self, key: str, value: bytes) -> None:
        """Keep a value, or say in the log that the server is out of reach."""
        self._tried(lambda: self._client.set(_PREFIX + key, value, ex=self._seconds))

    def _tried(self, call: Callable[[], Any]) -> Any:
        if self._is_down:
            if self._clock() < self._asked_again:
                return None
            # One film finds out whether it is back; those beside it go without.
            self._rest()
        try:
            result = call()
        except (self._failure, OSError) as error:
            if not self._is_down:
                _log.warning("Redis cannot be reached (%s): films are answered without it.", type(error).__name__)
            self._rest()
            self._is_down = True
            return None
        if self._is_down:
            _log.info("Redis can be reached again.")
        self._is_down = False
        return result

    def _rest(self) -> None:
        self._asked_again = self._clock() + _RESPITE_SECONDS


class AnswerCache:
    """Findings and refusals of admission, kept without their film."""

    def __init__(self, store: Store, info: ModelInfo, engine: str) -> None:
        """Keep answers of some weights on an engine, named with its precision."""
        self._store, self._info = store, info
        self._of_weights = f"{_FORMAT} {__version__} {info.revision} {engine}"

    def key(self, data: bytes, *, frame: int | None, force: bool, saliency: bool) -> str:
        """Return the key of a film's bytes and options, for these weights."""
        digest = hashlib.sha256(data)
        digest.update(f"\0{self._of_weights} {frame} {force} {saliency}".encode())
        return digest.hexdigest()

    def get(self, key: str) -> Outcome | None:
        """Return what was answered, a finding without its film; None where nothing is kept or what is makes no sense.

        Args:
            key: From `key`.
        """
        value = self._store.get(key)
        if value is None:
            return None
        try:
            return _unpacked(json.loads(value), self._info)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            _log.warning("A kept answer cannot be understood; the film is analysed anew.")
            return None

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep an answer."""
        self._store.put(key, json.dumps(_packed(outcome)).encode())


def open_cache(settings: Settings, info: ModelInfo, engine: str) -> AnswerCache | None:
    """Return the cache that the settings ask for: Redis where it is named, else memory; None where none is wanted."""
    if not settings.cache_seconds:
        return None
    url = settings.redis_url
    store: Store = RedisStore(url, settings.cache_seconds) if url else MemoryStore(settings.cache_seconds)
    # A film that one server answered may be too large for another that shares the store.
    limits = f"{settings.max_upload_bytes} {settings.max_pixels}"
    return AnswerCache(store, info, f"{engine} {limits}")


def _packed(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, AdmissionError):
        return {"refused": _reasons(outcome.reasons)}
    return {
        "label": outcome.label,
        "probabilities": outcome.probabilities,
        "confidence": outcome.confidence,
        "prediction_set": outcome.prediction_set,
        "risk": outcome.risk.name,
        "accepted": outcome.admission.accepted,
        "reasons": _reasons(outcome.admission.reasons),
        "members": outcome.member_probabilities,
        "warnings": [as_data(warning) for warning in outcome.warnings],
        "saliency": {
            source: {label: _packed_map(m) for label, m in maps.items()} for source, maps in outcome.saliency.items()
        },
    }


def _unpacked(kept: dict[str, Any], info: ModelInfo) -> Outcome:
    if "refused" in kept:
        return AdmissionError(_kept_reasons(kept["refused"]))
    values = list(kept["probabilities"].values())
    if (
        tuple(kept["probabilities"]) != CLASS_NAMES
        or not abs(sum(values) - 1) < 1e-6
        or kept["label"] not in CLASS_NAMES
    ):
        raise ValueError("no probabilities of our classes")
    return Finding(
        label=kept["label"],
        probabilities=kept["probabilities"],
        confidence=kept["confidence"],
        prediction_set=tuple(kept["prediction_set"]),
        risk=Risk[kept["risk"]],
        admission=Admission(kept["accepted"], _kept_reasons(kept["reasons"])),
        model=info,
        film=NO_FILM,
        saliency={
            source: {label: _unpacked_map(m) for label, m in maps.items()} for source, maps in kept["saliency"].items()
        },
        member_probabilities=kept["members"],
        warnings=tuple(from_data(warning) for warning in kept["warnings"]),
    )


def _reasons(reasons: tuple[Reason, ...]) -> list[tuple[str, Any]]:
    return [(reason.code, as_data(reason.message)) for reason in reasons]


def _kept_reasons(kept: list[Any]) -> tuple[Reason, ...]:
    return tuple(Reason(code, from_data(message)) for code, message in kept)


def _packed_map(saliency_map: NDArray[np.float32]) -> dict[str, Any]:
    return {"shape": saliency_map.shape, "float32": base64.b64encode(saliency_map.tobytes()).decode("ascii")}


def _unpacked_map(kept: dict[str, Any]) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(kept["float32"], validate=True), dtype=np.float32)
    return values.reshape(kept["shape"])
