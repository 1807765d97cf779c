"""Temperature scaling, prediction sets, and how far probabilities may be believed."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

ECE_BINS: Final = 15
_TEMPERATURE_RANGE = (0.05, 20.0)
_GOLDEN = (math.sqrt(5) - 1) / 2


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probabilities (N, C) of logits (N, C) divided by a temperature; rows sum to 1.

    >>> softmax(np.array([[0.0, math.log(3.0)]])).round(2).tolist()
    [[0.25, 0.75]]
    """
    z = np.asarray(logits, dtype=np.float64) / temperature
    exponentials = np.exp(z - z.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def negative_log_likelihood(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the mean -log of the probability (N, C) that each label (N,) was given.

    >>> round(negative_log_likelihood(np.array([[0.5, 0.5]]), np.array([1])), 4)
    0.6931
    """
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, 1e-12, 1)).mean())


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Find the temperature that makes held-back labels most likely.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. The likelihood has one optimum over the
    inverse temperature, so a golden-section search over its logarithm finds it.

    Args:
        logits: (N, C), of films that the model was not trained on.
        labels: (N,) class indices.

    Returns:
        The temperature, between 0.05 and 20.
    """

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(softmax(logits, math.exp(log_temperature)), labels)

    low, high = (math.log(bound) for bound in _TEMPERATURE_RANGE)
    while high - low > 1e-5:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def equal_mass_bins(values: NDArray[np.floating], n_bins: int = ECE_BINS) -> NDArray[np.int64]:
    """Return the bin, counted from 0 at the lowest, of each value (N,), with as near as can be the same count in each.

    Equal values are told apart by their place in the array.

    >>> equal_mass_bins(np.array([0.9, 0.1, 0.5, 0.6]), n_bins=2).tolist()
    [1, 0, 0, 1]
    """
    bins = np.empty(len(values), dtype=np.int64)
    bins[np.argsort(values, kind="stable")] = np.arange(len(values)) * n_bins // max(1, len(values))
    return bins


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], n_bins: int = ECE_BINS
) -> float:
    """Return the top-label expected calibration error over bins that hold equally many films.

    Naeini et al., AAAI 2015, with bins of equal mass (Nguyen and O'Connor, EMNLP 2015): the mean of |accuracy -
    confidence| weighted by the bins' counts. Bins of equal width leave a few films alone in theirs, and the figure to
    chance.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,) class indices.
        n_bins: Number of bins.

    >>> round(expected_calibration_error(np.array([[0.9, 0.1], [0.7, 0.3]]), np.array([0, 1]), n_bins=1), 6)
    0.3
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = equal_mass_bins(confidence, n_bins)
    error = 0.0
    for b in np.unique(bins):
        members = bins == b
        error += members.mean() * abs(correct[members].mean() - confidence[members].mean())
    return float(error)


def total_variation(p: NDArray[np.floating], q: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the total variation distance (...), in [0, 1], of two sets of probabilities (..., C).

    >>> float(total_variation(np.array([0.8, 0.2]), np.array([0.5, 0.5])).round(6))
    0.3
    """
    distance: NDArray[np.float64] = np.abs(np.asarray(p, dtype=np.float64) - q).sum(axis=-1) / 2
    return distance


def conformal_thresholds(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], coverage: float
) -> tuple[float, ...]:
    """Find the least probability that each class must have to be in the prediction set.

    Class-conditional (Mondrian) split conformal prediction (Vovk, "Conditional validity of inductive conformal
    predictors", ACML 2012; Sadinle et al., JASA 2019, section 2) with the score 1 - p(label): on films exchangeable
    with these, the set holds the true class with a chance of at least `coverage` for films of each class, not only on
    the whole. A rare or hard class is then not paid for by an easy one.

    Args:
        probabilities: (N, C), of held-back films.
        labels: (N,) class indices.
        coverage: Share of the films of each class whose class the set must hold, in (0, 1).

    Returns:
        C thresholds in [0, 1]; 0 for a class of too few films to promise the coverage.
    """
    return tuple(_conformal_threshold(probabilities[labels == c, c], coverage) for c in range(probabilities.shape[1]))


def _conformal_threshold(probabilities_of_truth: NDArray[np.floating], coverage: float) -> float:
    # Probabilities rather than 1 - p, whose rounding could leave out the very film that sets the threshold.
    descending = -np.sort(-probabilities_of_truth)
    rank = math.ceil((len(descending) + 1) * coverage)
    return float(descending[rank - 1]) if rank <= len(descending) else 0.0


def prediction_set(probabilities: NDArray[np.floating], thresholds: Sequence[float]) -> tuple[int, ...]:
    """Return the class indices of at least their threshold of probability, and the likeliest one, most likely first.

    Args:
        probabilities: (C,), sum 1.
        thresholds: C, from `conformal_thresholds`.

    >>> prediction_set(np.array([0.5, 0.1, 0.4]), (0.6, 0.2, 0.3))
    (0, 2)
    """
    order = np.argsort(-probabilities, kind="stable")
    # The answer itself always belongs: without it a set could contradict the label, and more can only cover more.
    return tuple(int(c) for place, c in enumerate(order) if place == 0 or probabilities[c] >= thresholds[c])
