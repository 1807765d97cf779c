"""Benchmark the road: what each stop costs, as ratios measured side by side in one run.

    python scripts/benchmark.py [--rounds 20]

Each pair is measured in turn, round by round, so that a noisy machine disturbs both alike; the medians' ratio is what
to read. Milliseconds are of this machine, now.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from pneumonet.ensemble import Ensemble
from pneumonet.members import to_batch
from pneumonet.model import PneumoNet
from pneumonet.radiograph import Radiograph
from pneumonet.reading import read_radiograph
from pneumonet.web.examples import FOLDER

_FILM = FOLDER / "synthetic_normal_1.png"


def side_by_side(rounds: int, first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Return the median milliseconds of two calls, measured in turn; the first round of each is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for call, taken in zip((first, second), times, strict=True):
            started = time.perf_counter()
            call()
            taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def explain_by_second_pass(ensemble: Ensemble, film: Radiograph) -> None:
    """Explain every class with the grad-cam package: a pass forward and back for each class and backbone."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    batch = to_batch([film], ensemble.input_config)
    for member in ensemble.members:
        layer = member.model.get_submodule(member.config.target_layer)
        with GradCAM(model=member.model.requires_grad_(True), target_layers=[layer]) as cam:
            for target_class in range(3):
                cam(input_tensor=batch, targets=[ClassifierOutputTarget(target_class)])
        member.model.requires_grad_(False).zero_grad(set_to_none=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    model = PneumoNet.from_pretrained(device="cpu")
    data = _FILM.read_bytes()
    film = read_radiograph(data)
    pairs: list[tuple[str, Callable[[], object], str, Callable[[], object]]] = [
        (
            "answer with heatmaps",
            lambda: model.predict(film),
            "answer alone",
            lambda: model.predict(film, saliency=False),
        ),
        (
            "heatmaps by the grad-cam package",
            lambda: explain_by_second_pass(model.ensemble, film),
            "answer with heatmaps",
            lambda: model.predict(film),
        ),
        (
            "eight films one by one",
            lambda: [model.predict(film, saliency=False) for _ in range(8)],
            "eight films in a batch",
            lambda: model.predict_batch([film] * 8, saliency=False),
        ),
        (
            "answer alone",
            lambda: model.predict(film, saliency=False),
            "reading the file",
            lambda: read_radiograph(data),
        ),
    ]
    print(f"{torch.get_num_threads()} threads, {rounds} rounds, medians in milliseconds")
    for first_name, first, second_name, second in pairs:
        a, b = side_by_side(rounds, first, second)
        print(f"{first_name:>34} {a:8.1f}   {second_name:<24} {b:8.1f}   ratio {a / b:6.2f}")


if __name__ == "__main__":
    main()
