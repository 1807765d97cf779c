"""What scripts/benchmark.py times, each by itself."""

import contextlib
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray

from pneumonet.model import PneumoNet
from pneumonet.radiograph import Radiograph
from pneumonet.rendering import data_uri, overlay, overlays
from pneumonet.saliency import grad_cam, scaled
from scripts.load_test import ROOT, TLS, server

Calls = Mapping[str, Callable[[bytes], object]]
Read = TypeVar("Read")
_FORCED: Final = {"force": "true"}


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


def figures(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 95th percentile."""
    return {"p50_ms": float(np.median(milliseconds)), "p95_ms": float(np.percentile(milliseconds, 95))}


def enlarged(film: bytes, shape: tuple[int, int], quality: int) -> bytes:
    """Return a film at another size (rows, columns), as JPEG in colour, as phones and viewers store it."""
    pixels = cv2.imdecode(np.frombuffer(film, np.uint8), cv2.IMREAD_COLOR)
    large = cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def whole_request(model: PneumoNet, data: bytes, maps: bool = True) -> str:
    """Answer a film's bytes as POST /predict does.

    Args:
        model: Answers.
        data: The film.
        maps: Of every class and member, one drawn as PNG; else as with `disable_cam`.
    """
    finding = model.predict(data, force=True, saliency=maps)
    picture = data_uri(overlay(finding)) if maps else None
    return json.dumps(finding.answer("benchmark", 0.0) | {"gradcam_image": picture})


def every_map(model: PneumoNet, data: bytes) -> str:
    """Answer a film's bytes as /explain does: each class's map of each backbone and of both, drawn as PNG."""
    finding = model.predict(data, force=True)
    return json.dumps(finding.answer("benchmark", 0.0) | {"maps": overlays(finding)})


def stops(model: PneumoNet, films: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each stop of a whole request."""
    taken: dict[str, list[float]] = {}
    for film in [films[0], *(film for _ in range(rounds) for film in films)]:
        finding = model.predict(film, force=True)
        marks = [time.perf_counter()]
        drawn = overlay(finding)
        marks.append(time.perf_counter())
        picture = data_uri(drawn)
        marks.append(time.perf_counter())
        json.dumps(finding.answer("benchmark", 0.0) | {"gradcam_image": picture})
        marks.append(time.perf_counter())
        drawing = dict(zip(("overlay", "png", "json"), (np.diff(marks) * 1000).tolist(), strict=True))
        for name, value in (finding.timings | drawing).items():
            taken.setdefault(name, []).append(value)
    return {name: float(np.median(values[1:])) for name, values in taken.items()}


def explained(model: PneumoNet, films: Sequence[Radiograph]) -> list[NDArray[np.float32]]:
    """Return each member's maps of films read before, (N, classes, h, w), after the probabilities: what models cost."""
    passed = model.ensemble.forward(films)
    return [scaled(grad_cam(member.head, member.features)) for member in passed.members]


def throughput(
    call: Callable[[list[Read]], object], read: Sequence[Read], sizes: Sequence[int], films: int
) -> dict[str, float]:
    """Return films a second in batches of several sizes.

    Args:
        call: Takes a batch.
        read: Films, read beforehand.
        sizes: Of the batches.
        films: How many films are measured at each size, in one batch at least.
    """
    result = {}
    for size in sizes:
        batch = [read[i % len(read)] for i in range(size)]
        call(batch)
        seconds = []
        for _ in range(max(1, films // size)):
            started = time.perf_counter()
            call(batch)
            seconds.append(time.perf_counter() - started)
        result[str(size)] = size / statistics.median(seconds)
    return result


@contextlib.contextmanager
def started(cache_dir: Path, film: bytes, **settings: str) -> Iterator[tuple[str, int, float]]:
    """Start a server; yields its address, process id, and the seconds from the process's start to its first answer."""
    own = {"PNEUMONET_MAX_WAITING": "200", "PNEUMONET_CACHE_DIR": str(cache_dir)}
    begun = time.perf_counter()
    with server(**own, **settings) as (address, pid):
        ask(address, film)
        yield address, pid, time.perf_counter() - begun


def ask(address: str, film: bytes) -> None:
    """Have a film answered, whatever it is.

    Raises:
        httpx.HTTPStatusError: If it is not.
    """
    answer = httpx.post(f"{address}/predict", files={"file": ("film", film)}, data=_FORCED, timeout=120, verify=TLS)
    answer.raise_for_status()


def usual_start(size: int, film: bytes) -> dict[str, float]:
    """Return the seconds from the usual way's start to its first answer, without a server, and its memory by then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        path.write_bytes(film)
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.usual_way", str(size), str(path)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "answered\n":
                raise RuntimeError("the usual way has not answered")
            return {"start_seconds": time.perf_counter() - begun, "peak_memory_mib": peak_memory_mib(process.pid)}
        finally:
            process.communicate()


def peak_memory_mib(pid: int) -> float:
    """Return the most memory that a process has held, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1024


def many_clients(address: str, films: Sequence[bytes], clients: int, seconds: float) -> dict[str, float]:
    """Return films a second and the latency of so many clients, each sending one film after the other, one at least."""
    taken: list[float] = []
    lock = threading.Lock()
    begun = time.perf_counter()

    def send(number: int) -> None:
        with httpx.Client(base_url=address, timeout=120, verify=TLS) as http:
            for turn in itertools.count(number):
                asked = time.perf_counter()
                film = films[turn % len(films)]
                http.post("/predict", files={"file": ("film", film)}, data=_FORCED).raise_for_status()
                ended = time.perf_counter()
                with lock:
                    taken.append(ended - asked)
                if ended - begun >= seconds:
                    return

    # Not threads of our own: a client that got no answer is to fail the measurement.
    with ThreadPoolExecutor(clients) as pool:
        for sending in [pool.submit(send, number) for number in range(clients)]:
            sending.result()
    rate = len(taken) / (time.perf_counter() - begun)
    return {"films_per_second": rate, "p95_seconds": float(np.percentile(taken, 95)), "fair_seconds": clients / rate}
