"""Whether films say the same in two forms, such as their published size and squashed: the reading path's own error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pneumonet.model import PneumoNet


def compare_forms(
    model: PneumoNet, films: Sequence[Path], others: Sequence[Path], *, progress: bool = True
) -> dict[str, Any]:
    """Answer films in two forms, paired by file name.

    Args:
        model: The model.
        films: Films in one form.
        others: Films in the other; those of other names are left out.
        progress: Show a progress bar.

    Returns:
        `n`, `same_answer` (films given one class in both), and of the difference in the probability of the first
        form's class `mean_difference` and `max_difference`; `differing`, the names of films whose class differs.

    Raises:
        ValueError: If a film has no counterpart.
        InputError: If a film cannot be read.
    """
    counterparts = {other.name: other for other in others}
    if missing := [film.name for film in films if film.name not in counterparts]:
        raise ValueError(f"expected a counterpart of every film, got none of {', '.join(missing[:5])}")
    differences, differing = [], []
    for film in tqdm(films, "pairs", unit="pair", disable=not progress):
        first, second = (model.predict(form, force=True, saliency=False) for form in (film, counterparts[film.name]))
        differences.append(abs(first.confidence - second.probabilities[first.label]))
        if first.label != second.label:
            differing.append(film.name)
    return {
        "n": len(films),
        "same_answer": len(films) - len(differing),
        "mean_difference": round(sum(differences) / len(differences), 6),
        "max_difference": round(max(differences), 6),
        "differing": differing,
    }
