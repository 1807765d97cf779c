"""The benchmark's parts, on tiny backbones: what it calls a whole request is one, and its ratios are of one run."""

import base64
import json
import time

import cv2
import numpy as np
import pytest

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from scripts import benchmark, compare_engines
from scripts.usual_way import UsualWay
from tests.support.films import encoded, phantom
from tests.web.conftest import serving


def _picture(answer: dict) -> np.ndarray:
    data = base64.b64decode(answer["gradcam_image"].removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_a_whole_request_is_what_the_door_answers(tiny_model: PneumoNet, tmp_path) -> None:
    film = encoded(phantom())
    ours = json.loads(benchmark.whole_request(tiny_model, film))
    with serving(Settings(), lambda: tiny_model, tmp_path) as running:
        theirs = running.post(film).json()
    assert ours.keys() == theirs.keys()
    assert ours["probabilities"] == theirs["probabilities"]
    assert ours["gradcam_image"] == theirs["gradcam_image"]


def test_the_usual_way_answers_too() -> None:
    answer = json.loads(UsualWay(64).answer(encoded(phantom())))
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert _picture(answer).shape == (64, 64, 3)


def test_calls_take_turns_on_every_film_and_the_first_round_does_not_count() -> None:
    order: list[tuple[str, bytes]] = []

    def call(name: str, seconds: float):
        def timed(film: bytes) -> None:
            order.append((name, film))
            time.sleep(seconds)

        return timed

    taken = benchmark.side_by_side([b"a", b"b"], {"slow": call("slow", 0.02), "fast": call("fast", 0)}, rounds=3)
    assert order[:6] == [("slow", b"a"), ("fast", b"a")] * 2 + [("slow", b"b"), ("fast", b"b")]
    assert (len(taken["slow"]), len(taken["fast"])) == (6, 6)
    assert min(taken["slow"]) >= 20
    assert benchmark.figures(taken["slow"])["p50_ms"] >= 20


def test_throughput_has_each_batch(tiny_model: PneumoNet) -> None:
    rates = benchmark.throughput(tiny_model, [encoded(phantom())], (1, 8, 32), rounds=4)
    assert list(rates) == ["1", "8", "32"]
    assert all(rate > 1 for rate in rates.values())


def test_many_clients_are_counted(tiny_model: PneumoNet, tmp_path) -> None:
    with serving(Settings(requests_per_minute=0), lambda: tiny_model, tmp_path) as running:
        seen = benchmark.many_clients(running.url, [encoded(phantom())], clients=4, seconds=1)
        answered = running.service.metrics.registry.get_sample_value(
            "pneumonet_answers_total", {"door": "rest", "code": "ok"}
        )
    assert seen["films_per_second"] == pytest.approx(answered, rel=0.5)
    assert seen["fair_seconds"] == pytest.approx(4 / seen["films_per_second"])
    assert seen["p95_seconds"] < 4 * seen["fair_seconds"]


def test_engines_are_compared_by_label_auroc_and_admission() -> None:
    labels = np.array([0, 1, 2, 0])
    p = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    q = p.copy()
    q[3] = [0.4, 0.5, 0.1]
    admitted = np.array([True, True, False, True])
    same = compare_engines.compared((p, admitted), (p, admitted), labels)
    assert (same["label_agreement"], same["auroc_lost"], same["keeps_the_answers"]) == (1, 0, True)
    other = compare_engines.compared((p, admitted), (q, ~admitted), labels)
    assert (other["label_agreement"], other["admission_agreement"], other["accuracy"]) == (0.75, 0, 0.75)
    assert other["largest_difference"] == pytest.approx(0.1)
    assert not other["keeps_the_answers"]
