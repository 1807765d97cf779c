"""The arithmetic of deploy/capacity.md, from the one figure that was measured."""

import math
import re

import yaml

from pneumonet.settings import Settings
from pneumonet.web import held, server, service
from tests.deploy.dockerfile import ROOT

PLAN = (ROOT / "deploy" / "capacity.md").read_text()
VISITORS, USE, VCPU, REST, PRICE = 10_000, 0.7, 2, 1, 0.05
# GiB of a worker; test_manifests.py adds it up and compares the manifests.
MEMORY = 4


def _rate() -> float:
    found = re.search(r"\*\*r = ([\d.]+)\*\*", PLAN)
    assert found is not None
    return float(found[1])


def _rows(width: int) -> list[list[float]]:
    lines = [line.strip().strip("|").split("|") for line in PLAN.splitlines() if line.strip().startswith("|")]
    return [[float(cell) for cell in cells] for cells in lines if len(cells) == width and re.match(r" *\d", cells[0])]


def _workers(seconds: float) -> list[float]:
    films = VISITORS / seconds
    for_films = math.ceil(films / (USE * _rate()))
    for_pages = math.ceil(VISITORS / server._SESSIONS_HELD)
    workers = max(for_films, for_pages)
    vcpu = workers * VCPU + REST
    return [seconds, round(films, 1), for_films, for_pages, workers, vcpu, vcpu * 24]


def test_the_workers_follow_from_the_rate() -> None:
    rows = _rows(7)
    assert len(rows) == 5
    assert rows == [_workers(row[0]) for row in rows]


def test_the_films_in_hand_follow_from_the_limit() -> None:
    rows = _rows(2)
    assert len(rows) == 5
    assert rows == [[size, math.ceil(VISITORS * size * 1e6 / held._HELD_BYTES)] for size, _ in rows]


def test_the_figures_in_the_text_follow_too() -> None:
    rate, (_, films, *_, workers, vcpu, hours) = _rate(), _workers(120)
    present = int(workers) * (Settings().max_waiting + service._AT_ONCE)
    two = 2 * VCPU + REST
    doublings = ["no", "one", "two", "three", "four", "five", "six"][math.ceil(math.log2(workers / 2))]
    for said in (
        f"= {USE / (2 * (1 - USE)) / rate:.2f} s on average",
        f"would wait {0.9 / (2 * 0.1) / rate:.2f} s",
        f"T = 120: {workers} workers",
        f"T = 120 costs {hours * PRICE:.0f} a day",
        f"({two} vCPU, {two * 24} vCPU-hours a day)",
        f"{films * 0.4:.0f} MB/s",
        f"Up to S = {workers * held._HELD_BYTES / VISITORS / 1e6:.2f} MB {workers} workers do",
        f"{workers} · ({Settings().max_waiting} + {service._AT_ONCE}) = {present} films",
        f"other {VISITORS - present:,} are told",
        f"10,000 / ({workers} · r) = {VISITORS / (workers * rate):.0f} s",
        f"({Settings().requests_per_minute:,} POST requests a minute",
        f"{2 * films:.0f} a second at T = 120",
        f"from 2 to {workers} takes {doublings} steps",
        f"`PNEUMONET_OPEN_REQUESTS`, {Settings().open_requests} by worker",
        f"the {Settings().open_requests + 1}st page",
        f"{workers} workers take some {int(workers) * Settings().open_requests:,} of its pages",
        f"{workers} · {MEMORY} GiB = {int(workers) * MEMORY} GiB must be there beside the {vcpu} vCPU",
    ):
        assert said in " ".join(PLAN.split()), said
    assert vcpu == workers * VCPU + REST


def test_the_autoscaler_may_go_as_far_as_the_plan() -> None:
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    [most] = [item["spec"]["maxReplicas"] for item in documents if item["kind"] == "HorizontalPodAutoscaler"]
    assert most == _workers(120)[4] + 3
    assert f"go to {most}," in PLAN
