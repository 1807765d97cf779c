"""How far a confidence may be believed: the bins of a reliability diagram, and the selective-risk curve."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pneumonet.calibration import ECE_BINS, equal_mass_bins
from pneumonet.evaluation.metrics import CAUSE_NOT_STATED, Booleans, Floats
from pneumonet.taxonomy import CLASS_NAMES, NORMAL

_COVERAGES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_NORMAL_INDEX: Final = CLASS_NAMES.index(NORMAL)


def reliability(probabilities: Floats, labels: NDArray[np.integer]) -> list[dict[str, float]]:
    """Return the bins of the calibration error: least and most confidence, count, mean confidence and share right.

    Where a film states no cause, the confidence is the probability of pneumonia and the share is that of pneumonia.

    Args:
        probabilities: (N, 3), rows sum to 1.
        labels: (N,) indices into `CLASS_NAMES`, or `CAUSE_NOT_STATED`.
    """
    values, right = _outcomes(probabilities, labels)
    bins = equal_mass_bins(values)
    return [
        {
            "from": float(values[bins == b].min()),
            "to": float(values[bins == b].max()),
            "n": int((bins == b).sum()),
            "confidence": float(values[bins == b].mean()),
            "accuracy": float(right[bins == b].mean()),
        }
        for b in np.unique(bins)
    ]


def error_if_calibrated(
    probabilities: Floats, labels: NDArray[np.integer], draws: int = 500, seed: int = 2026
) -> float:
    """Return the calibration error that chance alone would give answers of these confidences, were they calibrated.

    An expected calibration error is a sum of absolute gaps, so it is above 0 for the best calibrated model, the more so
    the fewer the films: the measured one is to be read beside this.

    Args:
        probabilities: (N, 3), rows sum to 1.
        labels: (N,); only whether a film states no cause counts, as in `reliability`.
        draws: How often the films' outcomes are drawn by their confidences.
        seed: Seed of the draws.
    """
    values, _ = _outcomes(probabilities, labels)
    in_bin = np.eye(ECE_BINS)[equal_mass_bins(values)]
    outcomes = np.random.default_rng(seed).random((draws, len(values))) < values
    gaps = np.abs((outcomes - values) @ in_bin)
    return float(gaps.sum(axis=1).mean() / len(values))


def _outcomes(probabilities: Floats, labels: NDArray[np.integer]) -> tuple[Floats, Booleans]:
    """Return the value that each film's answer is held to, and whether it came true."""
    if (labels == CAUSE_NOT_STATED).any():
        return 1 - probabilities[:, _NORMAL_INDEX], labels != _NORMAL_INDEX
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def selective_risk(probabilities: Floats, labels: NDArray[np.integer]) -> list[dict[str, float]]:
    """Return how many answers are wrong among the surest share of films, for rising shares.

    El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR 2010. Where a film states no
    cause, only normal or pneumonia is judged.

    Args:
        probabilities: (N, 3), rows sum to 1.
        labels: (N,) indices into `CLASS_NAMES`, or `CAUSE_NOT_STATED`.

    Returns:
        For each share `coverage`, the count `n`, the least `confidence` among them and their `error`.
    """
    confidence, right = _decisions(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order])
    counts = [max(1, round(share * len(labels))) for share in _COVERAGES]
    return [
        {
            "coverage": share,
            "n": n,
            "confidence": float(confidence[order[n - 1]]),
            "error": float(wrong[n - 1] / n),
        }
        for share, n in zip(_COVERAGES, counts, strict=True)
    ]


def _decisions(probabilities: Floats, labels: NDArray[np.integer]) -> tuple[Floats, Booleans]:
    """Return the confidence of each decision and whether it is right."""
    answers = probabilities.argmax(axis=1)
    if not (labels == CAUSE_NOT_STATED).any():
        return probabilities.max(axis=1), answers == labels
    sick = 1 - probabilities[:, _NORMAL_INDEX]
    confidence: Floats = np.where(answers == _NORMAL_INDEX, 1 - sick, sick)
    return confidence, (answers != _NORMAL_INDEX) == (labels != _NORMAL_INDEX)
