"""What the training runs were and cost, for metrics.json and the model card."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pneumonet.snapshot import CONFIG_FILE
from pneumonet.training.backbones import INITS
from pneumonet.training.films import label_of, patient_of, split_films
from pneumonet.training.run_folder import HISTORY, RECIPE

# Rated power of today's server CPUs over their cores; the runs' own draw was not measured.
WATTS_PER_CORE: Final = 15
_RECIPE_KEYS: Final = (
    "arch", "epochs", "sizes", "batch_size", "learning_rate", "weight_decay", "mixup", "label_smoothing",
    "label_share", "feature_weight", "drop_path", "ema_decay", "precision", "held_back_fold", "seed",
)  # fmt: skip


def summarise_runs(runs: Mapping[Path, float], earlier: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return each run's recipe, cost and last figures, and the cost of all.

    Args:
        runs: The CPU cores that each run had, by its folder.
        earlier: Summaries of runs that these go on from, whose folders need not be there any more.

    Raises:
        OSError: If a folder holds no run.
        ValueError: If a run has no finished epoch.
    """
    summaries = [*earlier, *(_summarise(folder, cores) for folder, cores in runs.items())]
    core_hours = sum(run["core_hours"] for run in summaries)
    return {
        "runs": summaries,
        "core_hours": round(core_hours, 2),
        "watts_per_core": WATTS_PER_CORE,
        "kwh": round(core_hours * WATTS_PER_CORE / 1000, 3),
    }


def summarise_split(folder: Path, held_back_fold: int) -> dict[str, Any]:
    """Return the films of each class and the patients on either side of the committed split."""
    training, held_back = split_films(folder, held_back_fold)
    known, other = ({patient_of(film) for film in films} for films in (training, held_back))
    return {
        "training": {"films": _counts(training), "patients": len(known)},
        "held_back": {"films": _counts(held_back), "patients": len(other)},
        "patients_in_both": len(known & other),
    }


def _counts(films: list[Path]) -> dict[str, int]:
    return dict(sorted(Counter(str(label_of(film)) for film in films).items()))


def _teachers(recipe: Mapping[str, Any]) -> list[str]:
    """Return a run's teachers, also of the two forms of recipe that runs of weights 0.2.0 had on the way.

    Raises:
        ValueError: If the recipe is of no form known.
    """
    if "teachers" in recipe:
        return list(recipe["teachers"])
    if recipe.get("hints"):
        return [recipe["hints"]]
    if recipe.get("views"):
        return list(json.loads((Path(recipe["views"]) / "views.json").read_text())["teachers"])
    raise ValueError(f"expected a recipe with teachers, got {', '.join(recipe)}")


def _start(init: str) -> str:
    if init in INITS or not (Path(init).parent / CONFIG_FILE).is_file():
        return Path(init).name
    return f"published {Path(init).name}"


def _summarise(folder: Path, cores: float) -> dict[str, Any]:
    recipe = json.loads((folder / RECIPE).read_text())
    history = [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]
    if not history:
        raise ValueError(f"expected a run with a finished epoch in {folder.name}")
    seconds = sum(line["seconds"] for line in history)
    return {
        "name": folder.name,
        **{key: recipe[key] for key in _RECIPE_KEYS},
        "init": _start(recipe["init"]),
        "teachers": [Path(teacher).name for teacher in _teachers(recipe)],
        "epochs_finished": len(history),
        "seconds": round(seconds, 1),
        "cores": cores,
        "core_hours": round(seconds * cores / 3600, 3),
        **{key: round(history[-1][key], 6) for key in ("loss", "accuracy", "binary_accuracy")},
        "recalls": [round(recall, 6) for recall in history[-1]["recalls"]],
    }
