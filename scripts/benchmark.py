"""Benchmark whole requests, the model alone, starts and many clients, side by side in one run with the usual way.

    python scripts/benchmark.py --json runs/benchmark.json     # a few minutes on two cores
    python scripts/benchmark.py --quick                        # within 50 seconds

Each call is measured in turn, round by round, so that a noisy machine disturbs all alike; the ratios are what to read.
Milliseconds are of this machine, now. The usual way is in scripts/usual_way.py.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import httpx
import numpy as np

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pneumonet.evaluation.provenance import write_report
from pneumonet.evaluation.table import aligned
from pneumonet.model import PneumoNet
from pneumonet.preprocessing import to_batch
from pneumonet.reading import read_radiograph
from pneumonet.rendering import data_uri, overlay
from pneumonet.settings import Settings
from pneumonet.web.examples import load_examples
from scripts.load_test import wait_until_healthy

_BATCHES: Final = (1, 8, 32)
_CLIENTS: Final = (1, 4, 16, 64)
Calls = dict[str, Callable[[bytes], object]]


def side_by_side(films: Sequence[bytes], calls: Calls, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each call on each film, in turn; a first round is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for film in films if turn else films[:1]:
            for name, call in calls.items():
                started = time.perf_counter()
                call(film)
                if turn:
                    taken[name].append((time.perf_counter() - started) * 1000)
    return taken


def enlarged(film: bytes) -> bytes:
    """Return a film at the size that a hospital stores, as JPEG."""
    pixels = cv2.imdecode(np.frombuffer(film, np.uint8), cv2.IMREAD_GRAYSCALE)
    large = cv2.resize(pixels, (1600, 1400), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def whole_request(model: PneumoNet, data: bytes) -> str:
    """Answer a film's bytes as POST /predict does: maps of every class and member, one drawn as PNG, all as JSON."""
    finding = model.predict(data, force=True)
    return json.dumps(finding.answer("benchmark", 0.0) | {"gradcam_image": data_uri(overlay(finding))})


def engines(cache_dir: Path) -> dict[str, PneumoNet]:
    """Return a model on each engine, and on OpenVINO in float32 too where it chose another precision by itself."""
    settings = Settings(cache_dir=cache_dir)
    models = {
        "torch": PneumoNet.from_pretrained(engine="torch", device="cpu", settings=settings),
        "openvino": PneumoNet.from_pretrained(engine="openvino", device="cpu", settings=settings),
    }
    return {f"{name}, {model.ensemble.engine.precision}": model for name, model in models.items()}


def figures(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 95th percentile."""
    return {"p50_ms": float(np.median(milliseconds)), "p95_ms": float(np.percentile(milliseconds, 95))}


def throughput(model: PneumoNet, films: Sequence[bytes], sizes: Sequence[int], rounds: int) -> dict[str, float]:
    """Return films a second, films read beforehand, in batches of several sizes."""
    read = [read_radiograph(film) for film in films]
    result = {}
    for size in sizes:
        batch = [read[i % len(read)] for i in range(size)]
        model.predict_batch(batch, force=True)
        seconds = []
        for _ in range(max(1, rounds // size)):
            started = time.perf_counter()
            model.predict_batch(batch, force=True)
            seconds.append(time.perf_counter() - started)
        result[str(size)] = size / statistics.median(seconds)
    return result


@contextlib.contextmanager
def started(cache_dir: Path, film: bytes) -> Iterator[tuple[str, int, float]]:
    """Start a server; yields its address, process id, and the seconds from the process's start to its first answer."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PNEUMONET_PORT": "0",
            "PNEUMONET_REQUESTS_PER_MINUTE": "0",
            "PNEUMONET_MAX_WAITING": "200",
            "PNEUMONET_CACHE_DIR": str(cache_dir),
            "GRADIO_TEMP_DIR": folder,
        }
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            address = process.stdout.readline().rsplit(" ", 1)[-1].strip()
            wait_until_healthy(address)
            httpx.post(f"{address}/predict", files={"file": ("film", film)}, timeout=120).raise_for_status()
            yield address, process.pid, time.perf_counter() - begun
        finally:
            process.terminate()
            process.wait(20)


def peak_memory_mib(pid: int) -> float:
    """Return the most memory that a process has held, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1024


def many_clients(address: str, films: Sequence[bytes], clients: int, seconds: float) -> dict[str, float]:
    """Return films a second and the latency of so many clients, each sending one film after the other."""
    taken: list[float] = []
    lock, deadline = threading.Lock(), time.perf_counter() + seconds

    def send(number: int) -> None:
        with httpx.Client(base_url=address, timeout=120) as http:
            for turn in range(10**9):
                begun = time.perf_counter()
                if begun >= deadline:
                    return
                film = films[(number + turn) % len(films)]
                http.post("/predict", files={"file": ("film", film)}, data={"force": "true"}).raise_for_status()
                with lock:
                    taken.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(taken) / (time.perf_counter() - begun)
    return {"films_per_second": rate, "p95_seconds": float(np.percentile(taken, 95)), "fair_seconds": clients / rate}


def measure(quick: bool) -> dict[str, Any]:
    """Run every measurement; returns the report."""
    from scripts.usual_way import UsualWay

    films = [example.read() for example in load_examples()]
    rounds = 2 if quick else 20
    sizes, clients_of = (_BATCHES[:2], _CLIENTS[::2]) if quick else (_BATCHES, _CLIENTS)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        with started(cache, films[0]) as (_, pid, cold):
            cold_memory = peak_memory_mib(pid)
        models = engines(cache)
        size = next(iter(models.values())).snapshot.config.input.size
        usual = UsualWay(size)
        best = list(models)[-1]
        calls: Calls = {"the usual way": usual.answer}
        calls |= {name: lambda data, m=model: whole_request(m, data) for name, model in models.items()}  # type: ignore[misc]
        requests = side_by_side(films, calls, rounds)
        large = side_by_side([enlarged(films[0])], calls, rounds)
        batch = to_batch([read_radiograph(films[0])], models[best].snapshot.config.input)
        alone: Calls = {"the usual way": lambda data: usual.classify_and_explain(batch)}
        alone |= {name: lambda data, m=model: m.ensemble.engine.features(batch) for name, model in models.items()}  # type: ignore[misc]
        passes = side_by_side(films[:1], alone, rounds * 2)
        explaining = side_by_side(
            films,
            {
                "explained": lambda data: models[best].predict(data, force=True),
                "predicted": lambda data: models[best].predict(data, force=True, saliency=False),
            },
            rounds,
        )
        with started(cache, films[0]) as (address, pid, warm):
            clients = {str(n): many_clients(address, films, n, 2 if quick else 15) for n in clients_of}
            memory = peak_memory_mib(pid)
        batches = {name: throughput(model, films, sizes, 4 if quick else 64) for name, model in models.items()}
    medians = {name: float(np.median(values)) for name, values in requests.items()}
    return {
        "speedup_whole_request": medians["the usual way"] / medians[best],
        "explain_over_predict": float(np.median(explaining["explained"]) / np.median(explaining["predicted"])),
        "warm_start_seconds": warm,
        "peak_memory_mib": memory,
        "films_per_second": max(of_clients["films_per_second"] for of_clients in clients.values()),
        "cold_start_seconds": cold,
        "cold_peak_memory_mib": cold_memory,
        "whole_request": {name: figures(values) for name, values in requests.items()},
        "whole_request_large_film": {name: figures(values) for name, values in large.items()},
        "model_alone": {name: figures(values) for name, values in passes.items()},
        "films_per_second_by_batch": batches,
        "clients": clients,
        "input_size": size,
        "films": [example.title for example in load_examples()],
        "machine": {"cpu": _cpu(), "threads": os.cpu_count(), "python": platform.python_version()},
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if match:
            return match[1]
    return platform.processor()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and clients")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    arguments = parser.parse_args(argv)
    report = measure(arguments.quick)
    tables = {
        "whole request, ms": [["way", "p50", "p95"], *_rows(report["whole_request"])],
        "whole request, film of 1600 x 1400, ms": [["way", "p50", "p95"], *_rows(report["whole_request_large_film"])],
        "model alone, ms": [["way", "p50", "p95"], *_rows(report["model_alone"])],
        "films a second by batch": [
            ["way", *next(iter(report["films_per_second_by_batch"].values()))],
            *([n, *(f"{v:.1f}" for v in r.values())] for n, r in report["films_per_second_by_batch"].items()),
        ],
        "clients": [
            ["clients", "films a second", "p95, s", "clients / rate, s"],
            *([n, *(f"{v:.2f}" for v in r.values())] for n, r in report["clients"].items()),
        ],
        "figures": [["figure", "value"], *([k, f"{v:.2f}"] for k, v in report.items() if isinstance(v, float))],
    }
    for title, rows in tables.items():
        print(f"{title}\n{aligned(rows)}\n")
    write_report(report, arguments.json)


def _rows(by_way: dict[str, dict[str, float]]) -> list[list[str]]:
    return [[name, *(f"{value:.1f}" for value in values.values())] for name, values in by_way.items()]


if __name__ == "__main__":
    main()
