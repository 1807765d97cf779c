"""Figures by what a film's file is like, where a set's habits would show: its mode, size, shape and sharpness."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pneumonet.evaluation.answers import Answer
from pneumonet.evaluation.metrics import Booleans, Floats, bootstrap, flat_score, nested
from pneumonet.taxonomy import CLASS_NAMES, NORMAL

_FEWEST_FILMS: Final = 10
_FIGURES: Final = ("accuracy", "binary.accuracy", "binary.sensitivity", "binary.specificity")


def subgroups(
    answers: Sequence[Answer], probabilities: Floats, labels: NDArray[np.integer], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return the figures of each group of films, by factor and group; a factor that does not divide them is left out.

    Args:
        answers: Films with traits; without, none of the file's factors.
        probabilities: (N, 3) of the ensemble.
        labels: (N,) as in `pneumonet.evaluation.metrics.score`.
        resamples: Of the bootstrap, by patient.
        seed: Of the resampling.

    Returns:
        Factor -> group -> `n`, `n_normal`, `patients`, `accuracy` (three classes), `binary` accuracy, sensitivity and
        specificity, and `intervals` by dotted name. Groups of under ten films are left out.
    """
    result: dict[str, Any] = {}
    for factor, groups in _factors(answers).items():
        kept = {name: row for name, row in groups.items() if row.sum() >= _FEWEST_FILMS}
        if len(kept) > 1:
            result[factor] = {
                name: _figures([a.patient for a, own in zip(answers, row, strict=True) if own], probabilities[row],
                               labels[row], resamples, seed)
                for name, row in kept.items()
            }  # fmt: skip
    return result


def _factors(answers: Sequence[Answer]) -> dict[str, dict[str, Booleans]]:
    """Return factor -> group -> which films are of it."""
    films_of = Counter(answer.patient for answer in answers)
    count = np.array([films_of[answer.patient] for answer in answers])
    factors = {"films of the patient": {"1": count == 1, "2 or 3": (count > 1) & (count < 4), "4 or more": count > 3}}
    traits = [answer.traits for answer in answers if answer.traits is not None]
    if len(traits) == len(answers):
        modes = np.array([t.mode for t in traits])
        factors["image mode"] = {str(mode): modes == mode for mode in np.unique(modes)}
        millions = np.array([t.width * t.height / 1e6 for t in traits])
        factors["megapixels"] = _bands(millions, 0.5, 1.5)
        factors["width over height"] = _bands(np.array([t.width / t.height for t in traits]), 1.2, 1.5)
        sharpness = np.array([t.sharpness for t in traits])
        factors["sharpness"] = _bands(sharpness, *np.round(np.quantile(sharpness, (1 / 3, 2 / 3)), 2))
    return factors


def _bands(values: Floats, low: float, high: float) -> dict[str, Booleans]:
    middle = (values >= low) & (values < high)
    return {f"under {low:g}": values < low, f"{low:g} to {high:g}": middle, f"{high:g} and over": values >= high}


def _figures(
    patients: list[str], probabilities: Floats, labels: NDArray[np.integer], resamples: int, seed: int
) -> dict[str, Any]:
    scored = flat_score(probabilities, labels)
    intervals = bootstrap(probabilities, labels, patients, resamples=resamples, seed=seed)
    return {
        "n": len(labels),
        "n_normal": int((labels == CLASS_NAMES.index(NORMAL)).sum()),
        "patients": len(set(patients)),
        **nested({name: scored[name] for name in _FIGURES}),
        "intervals": {name: intervals[name] for name in _FIGURES},
    }
