"""The benchmark's parts, on tiny backbones: what it calls a whole request is one, and its ratios are of one run."""

import base64
import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pneumonet.engines.graph import open_graph
from pneumonet.engines.openvino import OpenVinoEngine
from pneumonet.model import PneumoNet
from pneumonet.reading import read_radiograph
from pneumonet.settings import Settings
from pneumonet.snapshot import SnapshotConfig
from scripts import benchmark, compare_engines, timed, usual_way
from scripts.usual_way import UsualWay
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, serving


def _picture(answer: dict) -> np.ndarray:
    data = base64.b64decode(answer["gradcam_image"].removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope="module")
def running(tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(requests_per_minute=0)
    with serving(settings, lambda: tiny_model, tmp_path_factory.mktemp("benchmark")) as running:
        yield running


def test_a_whole_request_is_what_the_door_answers(tiny_model: PneumoNet, running: Running) -> None:
    film = encoded(phantom())
    for maps, fields in ((True, {}), (False, {"disable_cam": "true"})):
        ours = json.loads(timed.whole_request(tiny_model, film, maps))
        theirs = running.post(film, **fields).json()
        assert ours.keys() == theirs.keys()
        assert ours["timings"].keys() == theirs["timings"].keys()
        assert ours["probabilities"] == theirs["probabilities"]
        assert ours["gradcam_image"] == theirs["gradcam_image"]


def test_the_models_alone_give_the_probabilities_and_the_maps_of_an_answer(tiny_model: PneumoNet) -> None:
    film = read_radiograph(encoded(phantom()))
    finding = tiny_model.predict(film, force=True)
    for maps, member in zip(timed.explained(tiny_model, [film]), finding.member_probabilities, strict=True):
        np.testing.assert_array_equal(maps[0], list(finding.saliency[member].values()))


def test_every_stop_of_a_request_is_timed(tiny_model: PneumoNet) -> None:
    taken = timed.stops(tiny_model, [encoded(phantom())], rounds=2)
    assert list(taken) == ["read", "admission", "forward", "saliency", "overlay", "png", "json"]
    assert all(value > 0 for value in taken.values())


def test_the_usual_way_answers_too() -> None:
    usual = UsualWay(64)
    answer = json.loads(usual.answer(encoded(phantom())))
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert _picture(answer).shape == (64, 64, 3)
    images = [usual.read(encoded(phantom(seed=seed))) for seed in range(2)]
    together = usual.explained(images)
    np.testing.assert_allclose(together[1], usual.explained(images[1:])[0], atol=1e-3)


def test_calls_take_turns_on_every_film_and_the_first_round_does_not_count() -> None:
    order: list[tuple[str, bytes]] = []

    def call(name: str, seconds: float):
        def timed(film: bytes) -> None:
            order.append((name, film))
            time.sleep(seconds)

        return timed

    taken = timed.side_by_side([b"a", b"b"], {"slow": call("slow", 0.02), "fast": call("fast", 0)}, rounds=3)
    assert order[:6] == [("slow", b"a"), ("fast", b"a")] * 2 + [("slow", b"b"), ("fast", b"b")]
    assert (len(taken["slow"]), len(taken["fast"])) == (6, 6)
    assert min(taken["slow"]) >= 20
    assert timed.figures(taken["slow"])["p50_ms"] >= 20


def test_throughput_has_each_batch_and_as_many_films_as_it_says() -> None:
    seen: list[int] = []
    rates = timed.throughput(lambda batch: seen.append(len(batch)), ["a", "b", "c"], (1, 8), films=16)
    assert list(rates) == ["1", "8"]
    assert seen == [1] * 17 + [8] * 3, "one batch of each size does not count"


def test_many_clients_are_counted(running: Running) -> None:
    def answered() -> float:
        registry = running.service.metrics.registry
        return registry.get_sample_value("pneumonet_answers_total", {"door": "rest", "code": "ok"}) or 0

    before = answered()
    seen = timed.many_clients(running.url, [encoded(phantom())], clients=4, seconds=1)
    assert seen["films_per_second"] == pytest.approx(answered() - before, rel=0.5)
    assert seen["p95_seconds"] < 4 * seen["fair_seconds"]


@pytest.fixture
def stubbed(tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that starts a process, and tiny backbones in place of each way's."""
    rates = {1: 5.0, 4: 10.0, 16: 8.0, 64: 10.0}

    @contextlib.contextmanager
    def started(cache_dir: Path, film: bytes, **settings: str) -> Iterator[tuple[str, int, float]]:
        yield "http://nowhere", os.getpid(), 1.5

    def many_clients(address: str, films: list[bytes], clients: int, seconds: float) -> dict[str, float]:
        rate = rates[clients]
        return {"films_per_second": rate, "p95_seconds": 10.0, "fair_seconds": clients / rate}

    class Usual(UsualWay):
        def __init__(self, size: int) -> None:
            self.size = size

        def answer(self, data: bytes) -> str:
            return ""

        def explained(self, images: Sequence[Any]) -> np.ndarray:
            return np.zeros((len(images), 1, 1))

    monkeypatch.setattr(
        benchmark, "engines", lambda cache, is_whole: {"torch, float32": tiny_model, "openvino, x": tiny_model}
    )
    monkeypatch.setattr(benchmark, "started", started)
    monkeypatch.setattr(benchmark, "many_clients", many_clients)
    monkeypatch.setattr(benchmark, "ask", lambda address, film: None)
    monkeypatch.setattr(benchmark, "usual_start", lambda size, film: {"start_seconds": 3.0, "peak_memory_mib": 900.0})
    monkeypatch.setattr(usual_way, "UsualWay", Usual)


TOP_LEVEL = {
    "speedup_whole_request", "explain_over_predict", "warm_start_seconds", "peak_memory_mib", "films_per_second",
    "command_seconds", "provenance", "bars",
}  # fmt: skip
SLOW_ARMS = {
    "cold_start_seconds", "cold_peak_memory_mib", "usual_start", "whole_request_large_film", "same_film_again",
    "films_per_second_by_batch", "peak_memory_with_largest_film_mib", "request_with_maps_over_disable_cam",
    "speedup_every_map_drawn", "model_alone", "stops_ms",
}  # fmt: skip


@pytest.mark.usefixtures("stubbed")
class TestReport:
    def test_the_quick_one_has_every_figure_that_others_read_and_no_slow_arm(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(benchmark, "QUICK", replace(benchmark.QUICK, rounds=1))
        benchmark.main(["--quick", "--json", str(tmp_path / "out.json")])
        report = json.loads((tmp_path / "out.json").read_text())
        assert report.keys() >= TOP_LEVEL
        assert not report.keys() & SLOW_ARMS
        made = report["provenance"]
        assert made["command"] == "python scripts/benchmark.py --quick --json out.json"
        assert made.keys() >= {"model", "versions", "date", "cpu", "threads", "engine"}
        assert made["versions"].keys() >= {"pneumonet", "python", "torch", "openvino"}
        out = capsys.readouterr().out
        assert f"| speedup_whole_request | {report['speedup_whole_request']:.2f} |" in out
        assert "| png |" not in out

    def test_the_whole_one_has_the_slow_arms_too_and_hides_no_fall(self) -> None:
        effort = benchmark.Effort(films=4, rounds=1, clients=(1, 4, 16, 64), seconds=0, batches=(1, 2), is_whole=True)
        report = benchmark.measure(effort, [])
        assert report.keys() >= TOP_LEVEL | SLOW_ARMS
        assert report["films_per_second"] == 5, "that of one client, the least"
        assert set(report["clients"]) == {"one by one", "gathered for 10 ms"}
        assert set(report["model_alone"]) == {
            "the usual way", "torch, float32", "torch, float32, features alone", "openvino, x",
            "openvino, x, features alone",
        }  # fmt: skip
        every = "openvino, x, every map drawn"
        assert report["films_per_second_by_batch"].keys() == report["whole_request"].keys() - {every}
        assert every in report["whole_request"]
        assert set(report["stops_ms"]) == {"films", "large film"}
        shown = benchmark.tables(report)
        assert "png" in [row[0] for row in shown["stops of a request, median ms"]]
        assert ["the usual way: start_seconds", "3.00"] in shown["figures"]
        met = {row["bar"]: row["met"] for row in report["bars"]}
        assert met["warm_start_seconds"]
        assert not met["speedup_whole_request"], "a usual way that does nothing is not beaten"
        assert not met["p95 of 16 clients, one by one, s"], "10 s against twice 16 / 8"
        assert met["p95 of 64 clients, one by one, s"]
        assert met["films a second of 4 clients, one by one"]
        assert not met["films a second of 16 clients, one by one"], "8 against 10 of 4 clients, though 5 of one"
        assert met["films a second of 64 clients, one by one"]
        asked = "at least 10.00, the most of fewer clients"
        assert ["films a second of 16 clients, one by one", asked, "8.00", "missed"] in shown["bars"]


@pytest.mark.parametrize(("precision", "names"), [
    ("float32", ["torch, float32", "openvino, float32"]),
    ("bfloat16", ["torch, float32", "openvino, float32", "openvino, bfloat16"]),
])  # fmt: skip
def test_float32_is_measured_too_where_another_precision_is_chosen(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, names: list[str]
) -> None:
    def chosen(path: Path, config: SnapshotConfig, cache_dir: Path) -> OpenVinoEngine:
        return OpenVinoEngine(open_graph(path, config, cache_dir), precision)

    monkeypatch.setattr(OpenVinoEngine, "open", chosen)
    monkeypatch.setattr(benchmark, "Settings", partial(Settings, model=str(tiny_snapshot)))
    models = benchmark.engines(tmp_path, is_whole=True)
    assert list(models) == names
    assert {name: model.ensemble.engine.precision for name, model in models.items()} == {
        name: name.split(", ")[1] for name in names
    }


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
