"""Measure `python -m pneumonet batch`: films a second, and what it costs to grow, on this machine and on Ray.

    python scripts/measure_batch.py [--films 1000 20000] [--engines local ray] [--workers N] [--json OUT]

The films are made by code: the page's synthetic examples, each turned, lit and blurred a little in its own way. Each
run is the command itself, in a process of its own; memory is the most that it and all its children were seen to hold at
once, counted page by page, pages that they share once where the system tells (PSS), else in each (RSS).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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
SEED = 2026
_SECONDS_BETWEEN_LOOKS = 0.5
_MEBIBYTE = 2**20


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
    """Write `count` synthetic films as JPEG."""
    rng = np.random.default_rng(seed)
    examples = [
        np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
        for path in sorted(FOLDER.glob("synthetic_*.png"))
    ]
    for index in range(count):
        film = synthetic_film(examples[index % len(examples)], rng)
        (folder / f"{index:06}.jpg").write_bytes(
            cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        )


def measured(source: Path, out: Path, count: int, engine: str, workers: int | None) -> dict[str, Any]:
    """Run the command over films and return its seconds, films a second and peak memory in MiB."""
    command = [sys.executable, "-m", "pneumonet", "batch", str(source), "--out", str(out), *ENGINES[engine]]
    command += ["--workers", str(workers)] if workers else []
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[1], stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    seconds = time.perf_counter() - started
    printed = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"the batch of {count} films by {engine} ended with exit code {process.returncode}")
    return {
        "engine": engine,
        "films": count,
        "seconds": round(seconds, 1),
        "films_per_second": round(count / seconds, 2),
        "peak_memory_mib": round(peak / _MEBIBYTE),
        "result": printed.splitlines()[0],
    }


def _memory(pid: int) -> int:
    """Return the bytes that a process and its descendants hold."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def growth(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each engine how many times the films, the seconds and the memory of its first run its last has."""
    grown = {}
    for engine in dict.fromkeys(run["engine"] for run in runs):
        first, *_, last = [run for run in runs if run["engine"] == engine] * 2
        grown[engine] = {
            key: round(last[key] / max(first[key], 1e-9), 2) for key in ("films", "seconds", "peak_memory_mib")
        }
    return grown


def main() -> None:
    """Make the films, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(prefix="pneumonet-batch-") as temporary:
        films = Path(temporary) / "films"
        films.mkdir()
        write_films(films, max(arguments.films))
        for count in sorted(arguments.films):
            # The few films are the first of the many.
            source = Path(temporary) / f"{count}.csv"
            source.write_text("".join(f"films/{index:06}.jpg\n" for index in range(count)))
            for engine in arguments.engines:
                out = Path(temporary) / f"{engine}-{count}.parquet"
                runs.append(measured(source, out, count, engine, arguments.workers))
                print(json.dumps(runs[-1]), flush=True)
    columns = ("engine", "films", "seconds", "films_per_second", "peak_memory_mib")
    print(
        aligned([[name.replace("_", " ") for name in columns], *([str(run[name]) for name in columns] for run in runs)])
    )
    report = {"cores": len(os.sched_getaffinity(0)), "runs": runs, "growth": growth(runs)}
    print(json.dumps(report["growth"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
