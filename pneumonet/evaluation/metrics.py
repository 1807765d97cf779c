r"""The figures of an evaluation, as functions of arrays, and their bootstrap intervals by patient.

Every figure is written once, for films that carry weights: with all weights 1 it is the point estimate, and with a
bootstrap resample's counts it is that resample's, so a thousand resamples are a few matrix products. The tests hold
each of them to scikit-learn's.

With $w_i$ the weight of film $i$, $y_i$ its class, $p_i$ its probabilities and $\hat y_i = \arg\max_c p_{ic}$:

- accuracy $\sum_i w_i [\hat y_i = y_i] / \sum_i w_i$;
- recall of a class $TP / (TP + FN)$, precision $TP / (TP + FP)$, F1 $2 TP / (2 TP + FP + FN)$; macro F1 is the plain
  mean over classes;
- AUROC, one class against the rest, the Mann-Whitney estimate with ties counted half (Hanley and McNeil, Radiology
  1982); macro is the plain mean over classes;
- ECE as `pneumonet.calibration` defines it (top label, 15 bins of equal mass); the Brier score is the mean of
  $\sum_c (p_{ic} - [y_i = c])^2$;
- binary figures: pneumonia of either cause is positive, the decision is "the label is not NORMAL", the score is
  $s_i = 1 - p_{NORMAL}$; ECE compares the mean score of each of 15 bins of equal mass with the share of pneumonia in
  it, and the Brier score is the mean of $(s_i - [y_i \ne NORMAL])^2$.

Bins are drawn once, of the films as they are, and kept in every resample.

A figure that the films cannot give (the recall of a class that none has, a three-class figure where a film's cause is
not stated) is nan, and null in a report.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pneumonet.calibration import ECE_BINS, equal_mass_bins
from pneumonet.taxonomy import CLASS_NAMES, NORMAL

CAUSE_NOT_STATED: Final = -1
INTERVAL: Final = 0.95
_NORMAL_INDEX: Final = CLASS_NAMES.index(NORMAL)
# Resamples are worked in blocks of about this many weights, so that large folders do not fill the memory.
_BLOCK: Final = 2_000_000

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def score(
    probabilities: Floats, labels: NDArray[np.integer], means: Mapping[str, Floats] | None = None
) -> dict[str, Any]:
    """Return the figures of some films, nested by the dots of their names.

    Args:
        probabilities: (N, 3), rows sum to 1.
        labels: (N,) indices into `CLASS_NAMES`, or `CAUSE_NOT_STATED` for pneumonia of either cause.
        means: (N,) values by name, whose means are figures too; nan where a film does not count.

    Returns:
        Floats, None where the films cannot give the figure; `per_class` and `binary` hold dicts of them.

    >>> score(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 2]))["accuracy"]
    0.5
    """
    return nested(flat_score(probabilities, labels, means))


def flat_score(
    probabilities: Floats, labels: NDArray[np.integer], means: Mapping[str, Floats] | None = None
) -> dict[str, float | None]:
    """Return the figures of `score` by their dotted names."""
    rows = figures(probabilities, labels, np.ones((1, len(labels))), means)
    return {name: None if np.isnan(row[0]) else float(row[0]) for name, row in rows.items()}


def bootstrap(
    probabilities: Floats,
    labels: NDArray[np.integer],
    patients: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 2026,
    means: Mapping[str, Floats] | None = None,
) -> dict[str, list[float] | None]:
    """Return the 95 % percentile interval of each figure of `score`, by resampling patients with replacement.

    A patient's films move together, since they are no independent draws (Efron and Tibshirani, "An Introduction to
    the Bootstrap", 1993, chapters 8 and 13). A resample that cannot give a figure, because it lacks a class, is left
    out of that figure's interval. The same seed gives the same resamples, so figures of several models over the same
    films are paired.

    Args:
        probabilities: As in `score`.
        labels: As in `score`.
        patients: N names.
        resamples: Number of resamples.
        seed: Seed of the resampling.
        means: As in `score`.

    Returns:
        [low, high] by dotted name; None where no resample gives the figure, or all films are one patient's.
    """
    blocks: dict[str, list[Floats]] = {}
    for weights in _resampled_weights(patients, resamples, seed):
        for name, row in figures(probabilities, labels, weights, means).items():
            blocks.setdefault(name, []).append(row)
    several = len(set(patients)) > 1
    return {name: _interval(np.concatenate(rows)) if several else None for name, rows in blocks.items()}


def figures(
    probabilities: Floats, labels: NDArray[np.integer], weights: Floats, means: Mapping[str, Floats] | None = None
) -> dict[str, Floats]:
    """Return each figure, by its dotted name, for each row of weights.

    Args:
        probabilities: As in `score`.
        labels: As in `score`.
        weights: (R, N), at least 0.
        means: As in `score`.

    Returns:
        (R,) float64 by name, nan where a row cannot give the figure.
    """
    result = _three_class(probabilities, labels, weights)
    if (labels == CAUSE_NOT_STATED).any():
        result = {name: np.full(len(weights), np.nan) for name in result}
    result |= {f"binary.{name}": row for name, row in _binary(probabilities, labels, weights).items()}
    for name, values in (means or {}).items():
        counted = ~np.isnan(values)
        result[name] = _ratio(weights @ np.where(counted, values, 0.0), weights @ counted)
    return result


def confusion_matrix(probabilities: Floats, labels: NDArray[np.integer]) -> list[list[int]]:
    """Return the counts of films, rows the truth and columns the answer, in the order of `CLASS_NAMES`.

    >>> confusion_matrix(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 2]))
    [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    """
    counts = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), dtype=int)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    return [[int(n) for n in row] for row in counts]


def auroc(scores: Floats, positive: Booleans, weights: Floats) -> Floats:
    """Return the area under the receiver operating characteristic for each row of weights.

    It is the chance that a positive film scores above a negative one, ties counted half.

    Args:
        scores: (N,), higher for positive.
        positive: (N,).
        weights: (R, N), at least 0.

    Returns:
        (R,) in [0, 1]; nan where a row has no positive or no negative film.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]), np.ones((1, 4))).tolist()
    [0.875]
    """
    order = np.argsort(scores, kind="stable")
    ordered, positive, weights = scores[order], positive[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    positives = np.add.reduceat(weights * positive, starts, axis=1)
    negatives = np.add.reduceat(weights * ~positive, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    won = (positives * (below + negatives / 2)).sum(axis=1)
    return _ratio(won, positives.sum(axis=1) * negatives.sum(axis=1))


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dict whose dotted names are dicts within dicts.

    >>> nested({"accuracy": 0.5, "binary.auroc": 0.9})
    {'accuracy': 0.5, 'binary': {'auroc': 0.9}}
    """
    result: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return result


def _three_class(probabilities: Floats, labels: NDArray[np.integer], weights: Floats) -> dict[str, Floats]:
    answers = probabilities.argmax(axis=1)
    per_class = {}
    for index, name in enumerate(CLASS_NAMES):
        truth, answered = labels == index, answers == index
        hits, n, n_answered = weights @ (truth & answered), weights @ truth, weights @ answered
        per_class[name] = {
            "recall": _ratio(hits, n),
            "precision": _ratio(hits, n_answered),
            # A class that no film has is no class to score, even where some film is answered as it.
            "f1": _ratio(2 * hits, np.where(n > 0, n + n_answered, 0)),
            "auroc": auroc(probabilities[:, index], truth, weights),
        }
    total = weights.sum(axis=1)
    errors = ((probabilities - np.eye(len(CLASS_NAMES))[labels]) ** 2).sum(axis=1)
    result = {
        "accuracy": _ratio(weights @ (answers == labels), total),
        "auroc_macro": np.mean([figures["auroc"] for figures in per_class.values()], axis=0),
        "f1_macro": np.mean([figures["f1"] for figures in per_class.values()], axis=0),
        "ece": _calibration_error(probabilities.max(axis=1), answers == labels, weights),
        "brier": _ratio(weights @ errors, total),
    }
    for name, of_class in per_class.items():
        result |= {f"per_class.{name}.{metric}": row for metric, row in of_class.items()}
    return result


def _binary(probabilities: Floats, labels: NDArray[np.integer], weights: Floats) -> dict[str, Floats]:
    truth, answers = labels != _NORMAL_INDEX, probabilities.argmax(axis=1) != _NORMAL_INDEX
    scores = 1 - probabilities[:, _NORMAL_INDEX]
    return {
        "accuracy": _ratio(weights @ (truth == answers), weights.sum(axis=1)),
        "sensitivity": _ratio(weights @ (truth & answers), weights @ truth),
        "specificity": _ratio(weights @ (~truth & ~answers), weights @ ~truth),
        "auroc": auroc(scores, truth, weights),
        "ece": _calibration_error(scores, truth, weights),
        "brier": _ratio(weights @ (scores - truth) ** 2, weights.sum(axis=1)),
    }


def _calibration_error(confidence: Floats, correct: Booleans, weights: Floats) -> Floats:
    in_bin = np.eye(ECE_BINS)[equal_mass_bins(confidence)]
    gaps = np.abs((weights * (correct - confidence)) @ in_bin)
    return _ratio(gaps.sum(axis=1), weights.sum(axis=1))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    result: Floats = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _resampled_weights(patients: Sequence[str], resamples: int, seed: int) -> Iterator[Floats]:
    """Yield blocks of (R, N): how often each film's patient is drawn."""
    names, patient_of_film = np.unique(np.asarray(patients), return_inverse=True)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(patients))
    for start in range(0, resamples, block):
        # A draw of as many patients with replacement is a multinomial draw of their counts.
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), min(block, resamples - start))
        yield counts[:, patient_of_film].astype(np.float64)


def _interval(values: Floats) -> list[float] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    tail = (1 - INTERVAL) / 2 * 100
    low, high = np.percentile(known, [tail, 100 - tail])
    return [float(low), float(high)]
