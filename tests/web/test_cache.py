"""The same film again: answered alike, without a pass, without a pixel kept, and without Redis where that is away."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from pneumonet.errors import BusyError, ConfigError
from pneumonet.model import PneumoNet
from pneumonet.reading import read_radiograph
from pneumonet.settings import Settings
from pneumonet.web import service
from pneumonet.web.cache import AnswerCache, MemoryStore, RedisStore, open_cache
from pneumonet.web.service import Service
from tests.support.films import encoded, phantom
from tests.support.net import free_port
from tests.web.conftest import Running, serving
from tests.web.silent import Silent

FILM = encoded(phantom(321, 284))
BLANK = encoded(np.full((200, 200), 90, dtype=np.uint8))
_OF_THE_REQUEST = ("request_id", "duration_ms", "timings")


class Counting:
    """An engine that counts its passes."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.passes = engine, 0
        self.name, self.device, self.precision, self.heads = engine.name, "cpu", engine.precision, engine.heads

    def features(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.passes += 1
        return self.engine.features(batch)


@pytest.fixture
def counted(tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting(tiny_model.ensemble.engine)
    monkeypatch.setattr(tiny_model.ensemble, "engine", counting)
    return counting


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A real Redis server of its own."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine")
    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["memory", "redis"])
def settings(request: pytest.FixtureRequest) -> Settings:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    if url is not None:
        _wait_for(url)
    return Settings(cache_seconds=60, redis_url=url)


def _wait_for(url: str) -> None:
    import redis

    client = redis.Redis.from_url(url)
    for _ in range(100):
        try:
            client.ping()
            return
        except redis.RedisError:
            time.sleep(0.05)
    raise AssertionError("redis-server did not start")


def _said(running: Running, film: bytes, **fields: str) -> dict[str, Any]:
    answer = running.post(film, **fields).json()
    return {key: value for key, value in answer.items() if key not in _OF_THE_REQUEST}


def test_the_same_film_again_is_answered_alike_and_without_a_pass(
    settings: Settings, tiny_model: PneumoNet, counted: Counting, tmp_path: Path
) -> None:
    with serving(settings, lambda: tiny_model, tmp_path) as running:
        first = _said(running, FILM)
        assert counted.passes == 1
        assert _said(running, FILM) == first
        assert first["gradcam_image"].startswith("data:image/png;base64,")
        assert counted.passes == 1
        # By another door too, with the maps of every class.
        finding, _ = running.ask_client(FILM)
        assert finding["probabilities"] == first["probabilities"]
        assert counted.passes == 1
        # Other options and other films are other questions.
        _said(running, FILM, disable_cam="true")
        _said(running, encoded(phantom(320, 284)))
        assert counted.passes == 3
        hits = running.service.metrics.registry.get_sample_value
        assert (hits("pneumonet_cache_hits_total"), hits("pneumonet_cache_misses_total")) == (2, 3)


def test_a_refusal_is_kept_too_and_force_asks_anew(
    settings: Settings, tiny_model: PneumoNet, counted: Counting, tmp_path: Path
) -> None:
    with serving(settings, lambda: tiny_model, tmp_path) as running:
        refused = [_said(running, BLANK) for _ in range(2)]
        assert refused[0] == refused[1]
        assert refused[0]["code"] == "not_admitted"
        assert refused[0]["reasons"][0]["code"] == "blank"
        assert "prediction" in _said(running, BLANK, force="true")


def test_where_nothing_is_drawn_a_film_that_is_known_is_not_read_again(
    tiny_model: PneumoNet, counted: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def reading(data: bytes, **options: Any) -> Any:
        read.append(len(data))
        return read_radiograph(data, **options)

    # The model's own reading, of a film that is not known, is another.
    monkeypatch.setattr(service, "read_radiograph", reading)
    with serving(Settings(cache_seconds=60), lambda: tiny_model, tmp_path) as running:
        for fields in ({"disable_cam": "true"}, {"disable_cam": "true", "force": "true"}):
            first = _said(running, FILM, **fields)
            assert _said(running, FILM, **fields) == first
            assert first["gradcam_image"] is None
        assert _said(running, BLANK)["code"] == _said(running, BLANK)["code"] == "not_admitted"
        assert read == []
        assert _said(running, FILM) == _said(running, FILM)
        assert read == [len(FILM)]
    assert counted.passes == 3


def test_by_default_nothing_is_kept(tiny_model: PneumoNet, counted: Counting, tmp_path: Path) -> None:
    with serving(Settings(), lambda: tiny_model, tmp_path) as running:
        _said(running, FILM)
        _said(running, FILM)
    assert counted.passes == 2


def test_two_servers_share_redis_and_it_holds_no_pixel_for_the_time_set(
    redis_url: str, tiny_model: PneumoNet, counted: Counting, tmp_path: Path
) -> None:
    import redis

    _wait_for(redis_url)
    settings = Settings(cache_seconds=60, redis_url=redis_url)
    with (
        serving(settings, lambda: tiny_model, tmp_path / "a") as one,
        serving(settings, lambda: tiny_model, tmp_path / "b") as other,
    ):
        assert _said(one, FILM, disable_cam="false") == _said(other, FILM, disable_cam="false")
    assert counted.passes == 1
    client = redis.Redis.from_url(redis_url)
    (key,) = client.keys()
    assert 0 < client.ttl(key) <= 60
    kept = json.loads(client.get(key))
    # What is long in it are the maps: of 3 x 3 cells, for three classes and three sources. A film has 90,000 pixels.
    maps = [m for of_source in kept.pop("saliency").values() for m in of_source.values()]
    assert len(maps) == 9
    assert all(len(base64.b64decode(m["float32"])) == 4 * 9 for m in maps)
    assert len(json.dumps(kept)) < 3000


def test_where_redis_is_away_films_are_answered_and_the_log_says_so_once(
    tiny_model: PneumoNet, counted: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(cache_seconds=60, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    with serving(settings, lambda: tiny_model, tmp_path) as running:
        assert "prediction" in _said(running, FILM)
        assert "prediction" in _said(running, FILM)
    assert counted.passes == 2
    assert sum("Redis cannot be reached" in message for message in caplog.messages) == 1


def test_where_redis_never_answers_films_are_answered_all_the_same(
    tiny_model: PneumoNet, counted: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Silent() as redis:
        settings = Settings(cache_seconds=60, redis_url=f"redis://127.0.0.1:{redis.port}/0")
        with serving(settings, lambda: tiny_model, tmp_path) as running, running.http() as http:
            http.timeout = httpx.Timeout(20)
            for _ in range(4):
                assert http.post("/predict", files={"file": ("film.png", FILM)}).status_code == 200
        # They were answered while it still held what it was asked first.
        assert redis.asked
    assert counted.passes == 4
    assert sum("Redis cannot be reached" in message for message in caplog.messages) == 1


def test_a_server_that_is_away_is_not_asked_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now, calls, is_away = [100.0], [], True

    def asked(*arguments: Any, **options: Any) -> bytes:
        calls.append(now[0])
        if is_away:
            raise OSError
        return b"kept"

    caplog.set_level("INFO")
    store = RedisStore("redis://127.0.0.1:1/0", 60, clock=lambda: now[0])
    store._client.get = store._client.set = asked
    assert store.get("a") is None
    store.put("a", b"x")
    now[0] += 4
    assert store.get("a") is None
    assert calls == [100.0]
    # One finds out whether it is back, and whoever asks meanwhile goes without.
    now[0] += 2
    assert store.get("a") is None
    assert store.get("b") is None
    assert calls == [100.0, 106.0]
    now[0], is_away = now[0] + 6, False
    assert (store.get("a"), store.get("b")) == (b"kept", b"kept")
    assert calls == [100.0, 106.0, 112.0, 112.0]
    assert [message for message in caplog.messages if "Redis" in message] == [
        "Redis cannot be reached (OSError): films are answered without it.",
        "Redis can be reached again.",
    ]


def test_a_full_queue_asks_nothing_of_redis(tiny_model: PneumoNet) -> None:
    asked: list[str] = []

    class Store(MemoryStore):
        def get(self, key: str) -> bytes | None:
            asked.append(key)
            return super().get(key)

    async def ask() -> None:
        own = Service(Settings(cache_seconds=60, max_waiting=0), lambda: tiny_model)
        own.start().join()
        own._cache = AnswerCache(Store(60), tiny_model.info, "torch float32")
        own.films.present = own.films.most
        with pytest.raises(BusyError):
            await own.answer(FILM, draw=str, request_id="x", door="rest")

    asyncio.run(ask())
    assert asked == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"label": "NORMAL"}',
        b'{"refused": 3}',
        b"\xff\xfe",
        b'{"probabilities": []}',
        b"[" * 100_000,
        b'{"probabilities": {"NORMAL": 1.0}, "label": "NORMAL"}',
    ],
)
def test_a_kept_answer_that_makes_no_sense_is_none(value: bytes, tiny_model: PneumoNet) -> None:
    store = MemoryStore(60)
    store.put("key", value)
    cache = AnswerCache(store, tiny_model.info, "torch float32")
    assert cache.get("key") is None
    # And one that is ours is told from it.
    cache.put("key", tiny_model.predict(FILM, force=True))
    assert cache.get("key") is not None


def test_the_key_tells_weights_precision_and_options_apart(tiny_model: PneumoNet) -> None:
    store, info = MemoryStore(60), tiny_model.info
    options = {"frame": None, "force": False, "saliency": True}
    one = AnswerCache(store, info, "float32")
    keys = {
        one.key(FILM, **options),
        one.key(FILM + b"x", **options),
        *(one.key(FILM, **{**options, **change}) for change in ({"frame": 0}, {"force": True}, {"saliency": False})),
        AnswerCache(store, info, "bfloat16").key(FILM, **options),
        AnswerCache(store, type(info)(None, "local-other", "1"), "float32").key(FILM, **options),
    }
    assert len(keys) == 7


def test_limits_that_differ_share_no_answer(tiny_model: PneumoNet) -> None:
    caches = [open_cache(Settings(cache_seconds=60, max_pixels=most), tiny_model.info, "float32") for most in (1, 2)]
    assert len({cache.key(FILM, frame=None, force=False, saliency=False) for cache in caches if cache}) == 2


def test_memory_is_bounded_in_time_and_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    store = MemoryStore(10, clock=lambda: now[0])
    monkeypatch.setattr("pneumonet.web.cache._MOST_ENTRIES", 3)
    for name in "abc":
        store.put(name, name.encode())
    assert store.get("a") == b"a"
    store.put("d", b"d")
    assert [store.get(name) for name in "abcd"] == [b"a", None, b"c", b"d"]
    now[0] = 10.1
    assert [store.get(name) for name in "abcd"] == [None] * 4
    store.put("e", b"e")
    assert list(store._kept) == ["e"]


def test_an_address_that_is_none_is_a_clear_error_without_it() -> None:
    with pytest.raises(ConfigError, match="PNEUMONET_REDIS_URL") as raised:
        RedisStore("http://user:secret@host", 10)
    assert "secret" not in str(raised.value)
