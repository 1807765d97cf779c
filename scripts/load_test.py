"""Send films from many clients at once to a real server, some of them broken, one cancelling and one reading slowly.

One more asks by Gradio's own client, as a new visitor for each film. All ask for the heatmap, as the page does.

    python scripts/load_test.py --seconds 60 --clients 16

Every good film must get the answer that it gets alone, every broken or refused one its own error, /health must answer
in under a second throughout, and the server must hold no more memory afterwards than after its warm-up, but for a
tenth. The exit code is 1 where any of this fails.

Films a second are those that were analysed, over the time until the last answer: what was refused, cut short, cancelled
or told "busy" costs time and counts for nothing.
"""

import argparse
import contextlib
import io
import itertools
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import httpx
import numpy as np
from gradio_client import Client, handle_file  # type: ignore[import-untyped]  # it has none
from PIL import Image

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pneumonet.evaluation.provenance import command_line, machine, today, write_report
from pneumonet.training.card_tables import markdown_table
from pneumonet.web.examples import load_examples

_SPOILT_SHARE: Final = 0.05
_OK: Final = "ok"
_OK_BY_GRADIO: Final = "ok by Gradio"
# httpx would load every certificate anew for each call, in the time that is measured, for an address without TLS.
TLS: Final = ssl.create_default_context()
_SETTINGS: Final = ("PNEUMONET_", "OTEL_")
_HEALTH_SECONDS: Final = 1.0
_MEMORY_GROWTH: Final = 1.10
_MEBIBYTE: Final = 2**20


@dataclass
class Tally:
    """What the clients saw; shared by their threads.

    Attributes:
        codes: How many answers had which code.
        seconds: How long each analysed film took its client.
        health_seconds: How long each look at /health took.
        faults: What must not be.
    """

    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    health_seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, code: str, seconds: float) -> None:
        """Count an answer; only an analysed film's time is kept."""
        with self.lock:
            self.codes[code] += 1
            if code == _OK:
                self.seconds.append(seconds)

    def fault(self, what: str) -> None:
        """Note what must not be."""
        with self.lock:
            self.faults.append(what)


def example_films() -> list[bytes]:
    """Return the page's example films, each as it is and a little changed, so that no two answers are one."""
    films = []
    for example in load_examples():
        data = example.read()
        films.append(data)
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        for shift in (4, 9):
            moved = cv2.copyMakeBorder(pixels[shift:], 0, shift, 0, 0, cv2.BORDER_REPLICATE)
            films.append(cv2.imencode(".png", moved)[1].tobytes())
    return films


@contextlib.contextmanager
def server(**settings: str) -> Iterator[tuple[str, int]]:
    """Start a server of its own, without a limit of one address; yields its address and process id.

    Args:
        settings: Environment variables. What this shell has set of PneumoNet's is left out: a figure is of what stands
            here.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        environment |= {
            "PNEUMONET_PORT": "0",
            "PNEUMONET_REQUESTS_PER_MINUTE": "0",
            "PNEUMONET_OPEN_REQUESTS": "0",
            "GRADIO_TEMP_DIR": folder,
        }
        environment |= settings
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().rsplit(" ", 1)[-1].strip()
            wait_until_healthy(address)
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(20)


def wait_until_healthy(address: str, seconds: float = 120) -> None:
    """Wait until films are answered.

    Raises:
        TimeoutError: If they are not in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{address}/health", timeout=5, verify=TLS).status_code == 200:
                return
        time.sleep(0.2)
    raise TimeoutError("the server is not healthy")


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def what_is_said(answer: httpx.Response) -> dict[str, Any]:
    """Return an answer less what differs from request to request."""
    return {"status": answer.status_code} | _less_what_differs(answer.json())


def _less_what_differs(answer: dict[str, Any]) -> dict[str, Any]:
    own = {"request_id", "duration_ms", "timings", "gradcam_image"}
    return {key: value for key, value in answer.items() if key not in own}


def ask(address: str, film: bytes) -> httpx.Response:
    """Send a film to the plain door."""
    return httpx.post(f"{address}/predict", files={"file": ("film", film)}, timeout=120, verify=TLS)


def answers_by_gradio(address: str, films: Sequence[bytes]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Send films by Gradio's client, each as a new visitor; yields each with what is said of it, without end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        client = Client(address, verbose=False, analytics_enabled=False, download_files=folder)
        try:
            for film in itertools.cycle(films):
                path.write_bytes(film)
                client.reset_session()
                answer, _ = client.predict(handle_file(path), api_name="/predict")
                yield film, _less_what_differs(answer)
        finally:
            client.close()


def load(
    address: str, pid: int, films: Sequence[bytes], *, clients: int, seconds: float, seed: int = 7
) -> dict[str, Any]:
    """Put a load on a server and return what was seen of it.

    Args:
        address: Of the server.
        pid: Of the server's process.
        films: Pictures that can be read; each is also sent cut short. Those that are refused go among the spoilt.
        clients: Threads that send one film after the other; three more, one that cancels, one that reads slowly and one
            that is Gradio's.
        seconds: How long.
        seed: Of who sends what.
    """
    cut = [film[: len(film) // 2] for film in films]
    alone = {film: what_is_said(ask(address, film)) for film in (*films, *cut)}
    analysed = [film for film in films if alone[film]["status"] == 200]
    spoilt = [film for film in alone if alone[film]["status"] != 200]
    for film in films:  # the warm-up: every path of the server has been taken once
        ask(address, film)
    next(answers_by_gradio(address, analysed))
    before, tally, begun = resident_bytes(pid), Tally(), time.monotonic()
    deadline = begun + seconds

    def send(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        while time.monotonic() < deadline:
            film = rng.choice(spoilt if rng.random() < _SPOILT_SHARE else analysed)
            started = time.perf_counter()
            try:
                answer = ask(address, film)
            except httpx.HTTPError as error:
                tally.fault(f"a client got no answer: {type(error).__name__}")
                continue
            tally.add(str(answer.json().get("code", _OK)), time.perf_counter() - started)
            if what_is_said(answer) != alone[film]:
                tally.fault(f"another answer than alone: {answer.status_code} {answer.json().get('code')}")

    def look_at_health() -> None:
        while time.monotonic() < deadline:
            started = time.perf_counter()
            status = httpx.get(f"{address}/health", timeout=30, verify=TLS).status_code
            tally.health_seconds.append(time.perf_counter() - started)
            if status != 200:
                tally.fault(f"/health answered {status}")
            time.sleep(0.2)

    def ask_gradio() -> None:
        for film, answer in answers_by_gradio(address, analysed):
            with tally.lock:
                tally.codes[_OK_BY_GRADIO] += 1
            if {"status": 200} | answer != alone[film]:
                tally.fault("another answer by Gradio's client than alone")
            if time.monotonic() > deadline:
                return

    tasks: list[Callable[[], None]] = [lambda number=number: send(number) for number in range(clients)]  # type: ignore[misc]
    tasks += [
        look_at_health,
        ask_gradio,
        lambda: _cancel(address, analysed[0], deadline),
        lambda: _read_slowly(address, analysed[0], deadline),
    ]

    def watched(task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:
            tally.fault(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=watched, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return summary(tally, before, resident_bytes(pid), time.monotonic() - begun)


def _request(film: bytes) -> bytes:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + film + b"\r\n--b--\r\n"
    head = ["POST /predict HTTP/1.1", "Host: x", "Content-Type: multipart/form-data; boundary=b"]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


def _connected(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=60)


def _cancel(address: str, film: bytes, deadline: float) -> None:
    """Send a film and hang up before the answer, again and again."""
    while time.monotonic() < deadline:
        with _connected(address) as connection:
            connection.sendall(_request(film))
            time.sleep(0.05)
        time.sleep(0.2)


def _read_slowly(address: str, film: bytes, deadline: float) -> None:
    """Send a film and read its answer a few bytes at a time."""
    while time.monotonic() < deadline:
        with _connected(address) as connection:
            connection.sendall(_request(film))
            while time.monotonic() < deadline and connection.recv(64):
                time.sleep(0.1)


def summary(tally: Tally, before: int, after: int, seconds: float) -> dict[str, Any]:
    """Return what was seen, and what of it must not be.

    Args:
        tally: Of the clients.
        before: Bytes that the server held after its warm-up.
        after: Bytes that it held at the end.
        seconds: From the first request to the last answer.
    """
    if max(tally.health_seconds) > _HEALTH_SECONDS:
        tally.fault(f"/health took {max(tally.health_seconds):.2f} s")
    if after > before * _MEMORY_GROWTH:
        tally.fault(f"the server held {before / _MEBIBYTE:.0f} MiB before and {after / _MEBIBYTE:.0f} MiB afterwards")
    p50, p95 = np.percentile(tally.seconds, [50, 95])
    return {
        "films_per_second": (tally.codes[_OK] + tally.codes[_OK_BY_GRADIO]) / seconds,
        "p50_seconds": float(p50),
        "p95_seconds": float(p95),
        "median_health_seconds": float(np.median(tally.health_seconds)),
        "slowest_health_seconds": max(tally.health_seconds),
        "memory_before_mib": before / _MEBIBYTE,
        "memory_after_mib": after / _MEBIBYTE,
        "seconds": seconds,
        "answers": dict(tally.codes),
        "faults": dict(Counter(tally.faults)),
    }


def as_table(report: dict[str, Any]) -> str:
    """Return a summary as the Markdown table of docs/performance.md."""
    answers = ", ".join(f"{count} {code}" for code, count in report["answers"].items())
    faults = ", ".join(f"{count} x {what}" for what, count in report["faults"].items())
    rows = {
        "analysed films a second, with heatmaps": f"{report['films_per_second']:.1f}",
        "a film's answer, p50 and p95, s": f"{report['p50_seconds']:.2f}, {report['p95_seconds']:.2f}",
        "/health, median and slowest, s": (
            f"{report['median_health_seconds']:.2f}, {report['slowest_health_seconds']:.2f}"
        ),
        "memory after the warm-up and at the end, MiB": (
            f"{report['memory_before_mib']:.0f}, {report['memory_after_mib']:.0f}"
        ),
        "seconds": f"{report['seconds']:.1f}",
        "answers": answers,
        "faults": faults or "none",
    }
    return markdown_table([("what", "figure"), *rows.items()])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--model", help="a snapshot folder; the committed one by default")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    arguments = parser.parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    settings = {"PNEUMONET_MODEL": arguments.model} if arguments.model else {}
    with server(**settings) as (address, pid):
        of = {key: httpx.get(f"{address}/health").json()[key] for key in ("model", "engine")}
        report = load(address, pid, example_films(), clients=arguments.clients, seconds=arguments.seconds)
    made = of | {"command": command_line("load_test", given), "date": today()} | machine()
    print(as_table(report))
    print(f"\n{made['command']}, weights {made['model']['version']}, {made['cpu']}, {made['date']}")
    write_report(report | {"provenance": made}, arguments.json)
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
