"""Films of concurrent callers share passes, none waits past the bound, and a failure reaches everybody it concerns."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from pneumonet.engines.gathering import GatheringEngine


class Recording:
    """An engine whose feature of a film is the film's own first number."""

    name, device, precision, heads = "recording", "cpu", "float32", {}

    def __init__(self, before: Callable[[int], None] = lambda films: None) -> None:
        self.before, self.passes = before, []

    def features(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.passes.append(len(batch))
        self.before(len(batch))
        return {"one": batch[:, :1], "two": 2 * batch[:, :1]}


def _film(value: float, count: int = 1) -> np.ndarray:
    return np.full((count, 3, 4, 4), value, dtype=np.float32)


def _ask_all(engine: GatheringEngine, values: list[float]) -> list[dict[str, np.ndarray] | BaseException]:
    answers: list[dict[str, np.ndarray] | BaseException] = [{} for _ in values]

    def work(i: int) -> None:
        try:
            answers[i] = engine.features(_film(values[i]))
        except BaseException as error:
            answers[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(values))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return answers


def test_concurrent_films_share_passes_and_each_gets_its_own_features() -> None:
    inner = Recording(lambda films: time.sleep(0.02))
    engine = GatheringEngine(inner, wait_seconds=0.05, max_films=8)
    answers = _ask_all(engine, [float(i) for i in range(40)])
    for i, answer in enumerate(answers):
        assert isinstance(answer, dict)
        assert answer["one"].shape == (1, 1, 4, 4)
        assert (answer["one"] == i).all()
        assert (answer["two"] == 2 * i).all()
    assert sum(inner.passes) == 40
    assert len(inner.passes) < 20


def test_films_that_come_during_a_pass_share_the_next_without_waiting() -> None:
    first_runs, go = threading.Event(), threading.Event()

    def before(films: int) -> None:
        if not first_runs.is_set():
            first_runs.set()
            assert go.wait(10)

    inner = Recording(before)
    engine = GatheringEngine(inner, wait_seconds=0.01, max_films=100)
    leader = threading.Thread(target=engine.features, args=(_film(0),))
    leader.start()
    assert first_runs.wait(10)
    others = [threading.Thread(target=engine.features, args=(_film(i),)) for i in range(5)]
    for thread in others:
        thread.start()
    while len(engine._waiting) < 5:
        time.sleep(0.001)
    go.set()
    for thread in (leader, *others):
        thread.join(10)
    assert inner.passes == [1, 5]


def test_a_film_alone_waits_no_longer_than_the_bound() -> None:
    engine = GatheringEngine(Recording(), wait_seconds=0.2)
    started = time.monotonic()
    engine.features(_film(1))
    assert 0.15 < time.monotonic() - started < 5


def test_enough_films_wait_no_longer() -> None:
    engine = GatheringEngine(Recording(), wait_seconds=60, max_films=4)
    assert all(isinstance(answer, dict) for answer in _ask_all(engine, [1.0, 2.0, 3.0, 4.0]))


def test_a_failed_pass_fails_its_own_films_and_no_later_one() -> None:
    def before(films: int) -> None:
        if len(inner.passes) == 1:
            raise RuntimeError("out of memory")

    inner = Recording(before)
    engine = GatheringEngine(inner, wait_seconds=0.3, max_films=3)
    answers = _ask_all(engine, [1.0, 2.0, 3.0])
    assert all(isinstance(answer, RuntimeError) for answer in answers)
    assert isinstance(engine.features(_film(4, 3)), dict)


def test_a_batch_of_one_caller_stays_together() -> None:
    engine = GatheringEngine(Recording(), wait_seconds=0)
    np.testing.assert_array_equal(engine.features(_film(7, 5))["two"], np.full((5, 1, 4, 4), 14, dtype=np.float32))


@pytest.mark.parametrize("wait_ms", [0, 10])
def test_the_service_gathers_where_it_is_told_to(wait_ms: int, tiny_model, tmp_path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from pneumonet.settings import Settings
    from tests.support.films import encoded, phantom
    from tests.web.conftest import serving

    films = [encoded(phantom(200 + 10 * i, 240)) for i in range(8)]
    alone = [tiny_model.predict(film).probabilities for film in films]
    with serving(Settings(batch_wait_ms=wait_ms), lambda: tiny_model, tmp_path) as running:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda film: running.post(film).json()["probabilities"], films))
        passes = running.service.metrics.registry.get_sample_value("pneumonet_batch_size_count")
    for expected, got in zip(alone, answers, strict=True):
        assert got == pytest.approx(expected, abs=1e-4)
    assert (passes < 8) is bool(wait_ms)
