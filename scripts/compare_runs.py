"""Compare training recipes on the patients that each run held back, before export and calibration.

    python scripts/compare_runs.py "Lite0, 128 px: runs/folds/1 runs/folds/2 runs/folds/3" \
        "both teachers: runs/teacher_lite0+runs/teacher_lite2" --json docs/ablation.json

A recipe's runs differ in fold or seed: their figures are given as mean and standard deviation. Runs joined by + are
scored as one, by the mean of their probabilities. A film is squashed to the side that its run was trained at last, or
to the one that follows: runs/teacher_lite0@128.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.evaluation.metrics import flat_score
from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES
from pneumonet.training.augment import resized
from pneumonet.training.card_tables import markdown_table
from pneumonet.training.films import FilmSet, split_films
from pneumonet.training.teacher import Teacher

_FIGURES = {
    "accuracy": "accuracy",
    "binary.accuracy": "normal or pneumonia",
    "auroc_macro": "AUROC",
    "brier": "Brier",
    **{f"per_class.{name}.recall": f"recall, {DISPLAY_NAMES[name].lower()}" for name in CLASS_NAMES},
}


def _run(name: str) -> Teacher:
    folder, _, size = name.partition("@")
    run = Teacher(Path(folder), torch.device("cpu"))
    run.size = int(size) if size else run.size
    return run


def _probabilities(run: Teacher, films: FilmSet) -> np.ndarray[Any, np.dtype[np.float64]]:
    answers = [run.answer(resized(pixels.float() / 255, run.size))[0] for pixels in films.pixels.split(64)]
    return torch.cat(answers).double().numpy()


def _figures(together: list[str], data: Path) -> dict[str, float]:
    runs = [_run(name) for name in together]
    folds = {run.recipe["held_back_fold"] for run in runs}
    if len(folds) != 1:
        raise ValueError(f"expected runs that held back the same fold, got {', '.join(together)}")
    films = FilmSet.read(split_films(data, folds.pop())[1])
    probabilities = np.mean([_probabilities(run, films) for run in runs], axis=0)
    scored = flat_score(probabilities, films.labels.numpy())
    return {name: float(value) for name in _FIGURES if (value := scored[name]) is not None}


def _recipe(text: str) -> tuple[str, list[list[str]]]:
    name, _, runs = text.rpartition(":")
    if not name or not runs.split():
        raise argparse.ArgumentTypeError(f"expected 'NAME: RUN RUN+RUN ...', got {text!r}")
    return name.strip(), [run.split("+") for run in runs.split()]


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def main() -> None:
    """Score every run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=_recipe, nargs="+", metavar="NAME: RUN ...")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"))
    parser.add_argument("--json", type=Path, metavar="OUT", help="write each run's figures here")
    arguments = parser.parse_args()
    rows = [["recipe", "runs", *_FIGURES.values()]]
    report: dict[str, Any] = {}
    for name, runs in arguments.recipes:
        scored = [_figures(together, arguments.data) for together in runs]
        report[name] = {
            "runs": ["+".join(Path(name).name for name in together) for together in runs],
            "figures": {key: [round(figures[key], 6) for figures in scored] for key in _FIGURES},
        }
        rows.append([name, str(len(runs)), *(_spread([figures[key] for figures in scored]) for key in _FIGURES)])
    print(markdown_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
