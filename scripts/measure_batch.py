"""Measure `python -m pneumonet batch`: films a second, and what it costs to grow, on this machine and on Ray.

    python scripts/measure_batch.py [--films 1000] [--tiny 1000 20000] [--engines local ray] [--workers N]
        [--folder DIR] [--json OUT]

`--films` are answered by the model that PNEUMONET_MODEL names, `--tiny` by random backbones that cost next to nothing:
what is left is the machinery, whose growth is then known in minutes. The films are made by code: the page's synthetic
examples, each turned, lit and blurred a little in its own way; after the first 1,000 come links to them, each of which
is a film to the batch. `--folder` keeps them for the next time. Each run is the command itself, in a process of its
own, after one over a single film, which has converted the model.

Printed is a table, a line a run, and as JSON how it grows; `--json` writes both:

    cores   how many this process may use
    runs    model, engine, films, seconds, films_per_second (the start included), parent_mib (the most that the
            command's own process held), workers_mib (all that it started, with Ray's own processes), peak_memory_mib
            (the most of both at once), result (the command's first line). Memory is counted page by page, pages that
            processes share once where the system tells (PSS), else in each (RSS).
    growth  of each model and engine its run of the most films over that of the fewest: films, seconds,
            seconds_per_film, peak_memory_mib. With a start that costs the same for any number, seconds_per_film is at
            most 1 where the machinery grows no faster than the films.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.evaluation.table import aligned
from pneumonet.web.examples import FOLDER

ENGINES = {"local": [], "ray": ["--ray"]}
MODELS = ("chosen", "tiny")
SEED = 2026
# So many films differ; the others are links to them, which saves gigabytes and the minutes to make them.
DISTINCT = 1000
_SECONDS_BETWEEN_LOOKS = 0.5
_MEBIBYTE = 2**20
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """What one run is of: which model, by which engine, over how many films, by how many workers (None: as usual)."""

    model: str
    engine: str
    films: int
    workers: int | None


def synthetic_film(example: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a film (H, W) uint8 like an example (H, W) uint8, and like no other: turned, scaled, lit, with noise."""
    side = int(rng.integers(512, 1025))
    height, width = example.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-3, 3), rng.uniform(1.0, 1.08))
    film = cv2.warpAffine(example, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    film = cv2.resize(film, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    film = film * rng.uniform(0.9, 1.1) + rng.normal(0, 3, film.shape)
    return np.asarray(np.clip(film, 0, 255), dtype=np.uint8)


def write_films(folder: Path, count: int, seed: int = SEED) -> None:
    """See that a folder has `count` synthetic films as JPEG; those that are there are kept."""
    examples = [
        np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
        for path in sorted(FOLDER.glob("synthetic_*.png"))
    ]
    for index in range(count):
        path, first = folder / _name(index), folder / _name(index % DISTINCT)
        if path.exists():
            continue
        if path != first:
            os.link(first, path)
            continue
        film = synthetic_film(examples[index % len(examples)], np.random.default_rng([seed, index]))
        temporary = path.with_suffix(".partial")
        temporary.write_bytes(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        temporary.replace(path)


def _name(index: int) -> str:
    return f"{index:06}.jpg"


def measured(run: Run, films: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run the command over the first films of a folder and return its seconds, films a second and memory in MiB."""
    with tempfile.TemporaryDirectory(prefix="pneumonet-batch-") as temporary:
        source = Path(temporary) / "films.csv"
        source.write_text("".join(f"{films.absolute() / _name(index)}\n" for index in range(run.films)))
        command = [sys.executable, "-m", "pneumonet", "batch", str(source), "--out", f"{temporary}/out.parquet"]
        command += [*ENGINES[run.engine], *(["--workers", str(run.workers)] if run.workers else [])]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        parent, workers, peak = 0, 0, 0
        while process.poll() is None:
            own, others = _memory(process.pid)
            parent, workers, peak = max(parent, own), max(workers, others), max(peak, own + others)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        seconds = time.perf_counter() - started
        printed = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"the batch of {run.films} films by {run.engine} ended with exit code {process.returncode}")
    return {
        "model": run.model,
        "engine": run.engine,
        "films": run.films,
        "seconds": round(seconds, 1),
        "films_per_second": round(run.films / seconds, 2),
        "parent_mib": round(parent / _MEBIBYTE),
        "workers_mib": round(workers / _MEBIBYTE),
        "peak_memory_mib": round(peak / _MEBIBYTE),
        "result": printed.splitlines()[0],
    }


def _memory(pid: int) -> tuple[int, int]:
    """Return the bytes that a process holds, and those that its descendants hold."""
    try:
        process = psutil.Process(pid)
        return _held(process), sum(map(_held, process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0, 0


def _held(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return int(getattr(memory, "pss", memory.rss))


def growth(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each model and engine how many times what its first run took its last took."""
    grown = {}
    for model, engine in dict.fromkeys((run["model"], run["engine"]) for run in runs):
        first, *_, last = [
            run | {"seconds_per_film": run["seconds"] / run["films"]}
            for run in runs
            if (run["model"], run["engine"]) == (model, engine)
        ] * 2
        grown[f"{model}, {engine}"] = {
            key: round(last[key] / max(first[key], 1e-9), 2)
            for key in ("films", "seconds", "seconds_per_film", "peak_memory_mib")
        }
    return grown


def main(argv: Sequence[str] | None = None) -> None:
    """Make the films, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, nargs="*", default=[1000])
    parser.add_argument("--tiny", type=int, nargs="*", default=[1000, 20000])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--folder", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args(argv)
    counts = {"chosen": sorted(arguments.films), "tiny": sorted(arguments.tiny)}
    runs = []
    with tempfile.TemporaryDirectory(prefix="pneumonet-batch-") as temporary:
        films = arguments.folder or Path(temporary) / "films"
        films.mkdir(parents=True, exist_ok=True)
        write_films(films, max([*counts["chosen"], *counts["tiny"]]))
        for model in (name for name in MODELS if counts[name]):
            environment = dict(os.environ) | (_tiny(Path(temporary)) if model == "tiny" else {})
            measured(Run(model, "local", 1, 1), films, environment)
            for count, engine in product(counts[model], arguments.engines):
                runs.append(measured(Run(model, engine, count, arguments.workers), films, environment))
                print(json.dumps(runs[-1]), flush=True)
    columns = [name for name in runs[0] if name != "result"]
    print(
        aligned([[name.replace("_", " ") for name in columns], *([str(run[name]) for name in columns] for run in runs)])
    )
    report = {"cores": len(os.sched_getaffinity(0)), "runs": runs, "growth": growth(runs)}
    print(json.dumps(report["growth"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _tiny(folder: Path) -> dict[str, str]:
    """Write a snapshot of tiny random backbones and return the settings that choose it."""
    from tests.support.snapshots import write_tiny_snapshot

    write_tiny_snapshot(folder / "tiny")
    return {"PNEUMONET_MODEL": str(folder / "tiny"), "PNEUMONET_CACHE_DIR": str(folder / "cache")}


if __name__ == "__main__":
    main()
