"""Benchmark whole requests, the models alone, starts, memory and many clients, side by side with the usual way.

    python scripts/benchmark.py --json runs/benchmark.json     # some minutes on two cores
    python scripts/benchmark.py --quick                        # within 50 seconds, once the weights are converted

Each call is measured in turn, round by round, so that a noisy machine disturbs all alike; the ratios are what to read.
Milliseconds are of this machine, now. The usual way is in scripts/usual_way.py. Servers take 200 films in the queue and
any number from one address, as no server does by default: 64 clients would be told "busy".

--quick leaves out a film, torch, the models alone, what drawing costs, the stops of a request, the first start that
converts, the usual way's own start, larger films, batches, 4 and 64 clients, gathering and kept answers, and takes from
PNEUMONET_CACHE_DIR what was converted before. Its names are the same. `command_seconds` is from numpy's import to the
report; the interpreter's start and end come to it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

_BEGUN: Final = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.engines.graph import open_graph
from pneumonet.engines.openvino import OpenVinoEngine
from pneumonet.ensemble import Ensemble
from pneumonet.evaluation.provenance import machine, provenance, write_report
from pneumonet.model import PneumoNet
from pneumonet.preprocessing import to_batch
from pneumonet.reading import read_radiograph
from pneumonet.settings import Settings
from pneumonet.training.card_tables import markdown_table
from pneumonet.web.examples import load_examples
from scripts.timed import (
    Calls,
    ask,
    enlarged,
    every_map,
    explained,
    figures,
    many_clients,
    peak_memory_mib,
    side_by_side,
    started,
    stops,
    throughput,
    usual_start,
    whole_request,
)

USUAL: Final = "the usual way"
CHOSEN: Final = "openvino"
# Rows and columns of a film as a hospital stores it, and of the largest that is taken.
_LARGE: Final = (1400, 1600)
_LARGEST: Final = (5479, 7300)
_GATHERING: Final = {"one by one": "0", "gathered for 10 ms": "10"}
# At most so many times what each client would wait if all were served in turn.
_FAIR: Final = 2.0
_BARS: Final = {
    "speedup_whole_request": ("at least", 8.0),
    "explain_over_predict": ("at most", 1.10),
    "warm_start_seconds": ("at most", 5.0),
    "peak_memory_mib": ("at most", 1536.0),
}


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        films: How many of the page's examples are measured.
        rounds: How often each call is measured on each of them.
        clients: How many clients at once, in turn.
        seconds: How long each number of them asks.
        batches: Sizes of the batches.
        is_whole: Whether the arms are measured that take minutes.
    """

    films: int
    rounds: int
    clients: tuple[int, ...]
    seconds: float
    batches: tuple[int, ...]
    is_whole: bool


WHOLE: Final = Effort(films=4, rounds=20, clients=(1, 4, 16, 64), seconds=15, batches=(1, 8, 32), is_whole=True)
QUICK: Final = Effort(films=3, rounds=2, clients=(1, 16), seconds=1, batches=(), is_whole=False)


def engines(cache_dir: Path, is_whole: bool) -> dict[str, PneumoNet]:
    """Return models by their engine's name and precision; the one that is chosen on a CPU by itself comes last.

    Args:
        cache_dir: Where conversions are kept.
        is_whole: Whether the reference comes too, and OpenVINO in float32 where it chose another precision.
    """
    settings = Settings(cache_dir=cache_dir)
    chosen = PneumoNet.from_pretrained(engine=CHOSEN, device="cpu", settings=settings)
    models = [chosen]
    if is_whole:
        models.insert(0, PneumoNet.from_pretrained(engine="torch", device="cpu", settings=settings))
    if is_whole and chosen.ensemble.engine.precision != "float32":
        config = chosen.snapshot.config
        engine = OpenVinoEngine(open_graph(chosen.snapshot.path, config, cache_dir), "float32")
        ensemble = Ensemble(config.members, config.input, engine)
        models.insert(1, PneumoNet(chosen.snapshot, ensemble, chosen.admission, chosen.limits))
    return {f"{model.ensemble.engine.name}, {model.ensemble.engine.precision}": model for model in models}


def measure(effort: Effort, given: Sequence[str]) -> dict[str, Any]:
    """Run every measurement; returns the report.

    Args:
        effort: How much of them.
        given: The command's arguments, which the report repeats.
    """
    examples = load_examples()[: effort.films]
    films = [example.read() for example in examples]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) if effort.is_whole else Settings.from_environment().cache_dir
        cold = _cold_start(cache, films[0]) if effort.is_whole else {}
        models = engines(cache, effort.is_whole)
        alone = _in_this_process(models, films, effort)
        served = _served(cache, films, effort)
    report: dict[str, Any] = alone | served | cold
    chosen = list(models.values())[-1]
    report["bars"] = bars(report)
    report["input_size"] = chosen.snapshot.config.input.size
    if effort.is_whole:
        report["usual_start"] = usual_start(report["input_size"], films[0])
    report["films"] = [example.title for example in examples]
    report["provenance"] = provenance(chosen, "benchmark", given) | machine()
    report["command_seconds"] = time.perf_counter() - _BEGUN
    return report


def _cold_start(cache: Path, film: bytes) -> dict[str, float]:
    with started(cache, film) as (_, pid, seconds):
        return {"cold_start_seconds": seconds, "cold_peak_memory_mib": peak_memory_mib(pid)}


def _in_this_process(models: Mapping[str, PneumoNet], films: Sequence[bytes], effort: Effort) -> dict[str, Any]:
    """Return what is measured without a server: requests, the models alone, their stops, batches."""
    from scripts.usual_way import UsualWay

    chosen, rounds = list(models)[-1], effort.rounds
    best = models[chosen]
    usual = UsualWay(best.snapshot.config.input.size)
    calls: Calls = {USUAL: usual.answer} | {
        name: lambda data, m=model: whole_request(m, data)  # type: ignore[misc]
        for name, model in models.items()
    }
    every = f"{chosen}, every map drawn"
    ways: dict[str, Callable[[bytes], object]] = {
        "explained": lambda data: best.predict(data, force=True),
        "predicted": lambda data: best.predict(data, force=True, saliency=False),
    }
    if effort.is_whole:
        calls = {**calls, every: lambda data: every_map(best, data)}
        ways["with maps"] = lambda data: whole_request(best, data)
        ways["with disable_cam"] = lambda data: whole_request(best, data, maps=False)
    requests = side_by_side(films, calls, rounds)
    # They differ by a hundredth, which takes more rounds to tell.
    explaining = {name: float(np.median(values)) for name, values in side_by_side(films, ways, 2 * rounds).items()}
    medians = {name: float(np.median(values)) for name, values in requests.items()}
    report: dict[str, Any] = {
        "speedup_whole_request": medians[USUAL] / medians[chosen],
        "explain_over_predict": explaining["explained"] / explaining["predicted"],
        "whole_request": {name: figures(values) for name, values in requests.items()},
        "explaining_ms": explaining,
    }
    if effort.is_whole:
        report["speedup_every_map_drawn"] = medians[USUAL] / medians[every]
        report["request_with_maps_over_disable_cam"] = explaining["with maps"] / explaining["with disable_cam"]
        report["model_alone"] = _models_alone(usual, models, films[0], rounds)
        report["stops_ms"] = {"films": stops(best, films, rounds)}
        large = enlarged(films[0], _LARGE, quality=95)
        taken = side_by_side([large], calls, rounds)
        report["whole_request_large_film"] = {name: figures(values) for name, values in taken.items()}
        report["stops_ms"]["large film"] = stops(best, [large], rounds)
        report["films_per_second_by_batch"] = _batches(usual, models, films, effort.batches)
    return report


def _models_alone(usual: Any, models: Mapping[str, PneumoNet], film: bytes, rounds: int) -> dict[str, dict[str, float]]:
    """Return what each way's models take from pixels to probabilities and heatmaps; ours without heads and maps too."""
    image, radiograph = usual.read(film), read_radiograph(film)
    batch = to_batch([radiograph], next(iter(models.values())).snapshot.config.input)
    calls: dict[str, Callable[[bytes], object]] = {USUAL: lambda _: usual.explained([image])}
    for name, model in models.items():
        calls[name] = lambda _, m=model: explained(m, [radiograph])  # type: ignore[misc]
        calls[f"{name}, features alone"] = lambda _, m=model: m.ensemble.engine.features(batch)  # type: ignore[misc]
    return {name: figures(values) for name, values in side_by_side([film], calls, rounds).items()}


def _batches(
    usual: Any, models: Mapping[str, PneumoNet], films: Sequence[bytes], sizes: Sequence[int]
) -> dict[str, dict[str, float]]:
    most = 2 * max(sizes)
    read = [read_radiograph(film) for film in films]
    rates = {USUAL: throughput(usual.explained, [usual.read(film) for film in films], sizes, most)}
    for name, model in models.items():
        rates[name] = throughput(lambda batch, m=model: m.predict_batch(batch, force=True), read, sizes, most)  # type: ignore[misc]
    return rates


def _served(cache: Path, films: Sequence[bytes], effort: Effort) -> dict[str, Any]:
    """Return what is measured of servers: the start of one converted before, memory, many clients, kept answers."""
    clients: dict[str, dict[str, dict[str, float]]] = {}
    report: dict[str, Any] = {}
    for way, wait_ms in _GATHERING.items() if effort.is_whole else [("one by one", "0")]:
        with started(cache, films[0], PNEUMONET_BATCH_WAIT_MS=wait_ms) as (address, pid, seconds):
            clients[way] = {str(n): many_clients(address, films, n, effort.seconds) for n in effort.clients}
            if not report:
                report = {"warm_start_seconds": seconds, "peak_memory_mib": peak_memory_mib(pid)}
                if effort.is_whole:
                    ask(address, enlarged(films[0], _LARGEST, quality=80))
                    report["peak_memory_with_largest_film_mib"] = peak_memory_mib(pid)
    # The least of all numbers of clients; that it does not fall as they grow is a bar of its own.
    report["films_per_second"] = min(row["films_per_second"] for row in clients["one by one"].values())
    report["clients"] = clients
    if effort.is_whole:
        report["same_film_again"] = _kept(cache, films, effort.rounds)
    return report


def _kept(cache: Path, films: Sequence[bytes], rounds: int) -> dict[str, dict[str, float]]:
    """Return what a film costs over HTTP the first time, and again where answers are kept."""
    with started(cache, films[0]) as (plain, *_), started(cache, films[0], PNEUMONET_CACHE_SECONDS="600") as (kept, *_):
        for film in films:
            ask(kept, film)
        calls = {"every time": lambda film: ask(plain, film), "kept": lambda film: ask(kept, film)}
        return {name: figures(values) for name, values in side_by_side(films, calls, rounds).items()}


def bars(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for, what was measured, and whether the one meets the other."""
    rows = []
    for name, (direction, asked) in _BARS.items():
        value = report[name]
        met = value >= asked if direction == "at least" else value <= asked
        rows.append({"bar": name, "asked": f"{direction} {asked:g}", "measured": value, "met": met})
    for way, by_clients in report["clients"].items():
        most = 0.0
        for clients, row in by_clients.items():
            if most:
                rate = row["films_per_second"]
                rows.append(
                    {
                        "bar": f"films a second of {clients} clients, {way}",
                        "asked": f"at least {most:.2f}, the most of fewer clients",
                        "measured": rate,
                        "met": rate >= most,
                    }
                )
            most = max(most, row["films_per_second"])
            asked = _FAIR * row["fair_seconds"]
            rows.append(
                {
                    "bar": f"p95 of {clients} clients, {way}, s",
                    "asked": f"at most {asked:.2f}, {_FAIR:g} x clients / throughput: fair, whatever the speed",
                    "measured": row["p95_seconds"],
                    "met": row["p95_seconds"] <= asked,
                }
            )
    return rows


def tables(report: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Return a report's tables by their titles, each a heading and rows."""
    timed = {
        "whole request, ms": "whole_request",
        "whole request, film of 1600 x 1400, ms": "whole_request_large_film",
        "models alone, from pixels to probabilities and heatmaps, ms": "model_alone",
        "the same film again over HTTP, ms": "same_film_again",
    }
    shown = {title: [["way", "p50", "p95"], *_rows(report[key], 1)] for title, key in timed.items() if key in report}
    if by_stop := report.get("stops_ms"):
        shown["stops of a request, median ms"] = [
            ["stop", *by_stop],
            *([stop, *(f"{of[stop]:.1f}" for of in by_stop.values())] for stop in by_stop["films"]),
        ]
    if batches := report.get("films_per_second_by_batch"):
        shown["films a second by batch"] = [["way", *next(iter(batches.values()))], *_rows(batches, 1)]
    shown["clients"] = [
        ["way", "clients", "films a second", "p95, s", "clients / throughput, s"],
        *([way, *row] for way, of_way in report["clients"].items() for row in _rows(of_way, 2)),
    ]
    shown["figures"] = [["figure", "value"], *([k, f"{v:.2f}"] for k, v in report.items() if isinstance(v, float))]
    if usual := report.get("usual_start"):
        shown["figures"] += [[f"{USUAL}: {name}", f"{value:.2f}"] for name, value in usual.items()]
    shown["bars"] = [
        ["bar", "asked", "measured", "met"],
        *([row["bar"], row["asked"], f"{row['measured']:.2f}", "met" if row["met"] else "missed"]
          for row in report["bars"]),
    ]  # fmt: skip
    return shown


def _rows(by_way: Mapping[str, Mapping[str, float]], digits: int) -> list[list[str]]:
    return [[name, *(f"{value:.{digits}f}" for value in values.values())] for name, values in by_way.items()]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and clients, and none of the slow arms")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    arguments = parser.parse_args(argv)
    report = measure(QUICK if arguments.quick else WHOLE, sys.argv[1:] if argv is None else argv)
    for title, rows in tables(report).items():
        print(f"{title}\n\n{markdown_table(rows)}\n")
    made = report["provenance"]
    print(f"{made['command']}, weights {made['model']['version']}, {made['cpu']}, {made['date']}")
    write_report(report, arguments.json)


if __name__ == "__main__":
    main()
