"""Temperature scaling, prediction sets, and how far probabilities may be believed."""

import math

import numpy as np
from numpy.typing import NDArray

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


def confidence_bins(confidence: NDArray[np.floating], n_bins: int = 15) -> NDArray[np.int64]:
    """Return the bin, (0, 1/n], (1/n, 2/n], ... counted from 0, of each confidence (N,).

    >>> confidence_bins(np.array([0.1, 0.11, 1.0]), n_bins=10).tolist()
    [0, 1, 9]
    """
    bins: NDArray[np.int64] = np.clip(np.ceil(confidence * n_bins - 1e-9).astype(np.int64) - 1, 0, n_bins - 1)
    return bins


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], n_bins: int = 15
) -> float:
    """Return the top-label expected calibration error.

    Naeini et al., AAAI 2015, as in Guo et al.: films are binned by confidence into `n_bins` bins of equal width,
    (0, 1/n], ..., and the error is the mean of |accuracy - confidence| weighted by the bins' counts.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,) class indices.
        n_bins: Number of bins.

    >>> expected_calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]), n_bins=10)
    0.4
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = confidence_bins(confidence, n_bins)
    error = 0.0
    for b in np.unique(bins):
        members = bins == b
        error += members.mean() * abs(correct[members].mean() - confidence[members].mean())
    return float(error)


def conformal_threshold(probabilities: NDArray[np.floating], labels: NDArray[np.integer], coverage: float) -> float:
    """Find the least probability that a class of the prediction set must have.

    Split conformal prediction with the score 1 - p(label) (Sadinle et al., JASA 2019): on exchangeable films, the set
    of classes of at least this probability holds the true one with a chance of at least `coverage`.

    Args:
        probabilities: (N, C), of held-back films.
        labels: (N,) class indices.
        coverage: Share of films whose class the set must hold, in (0, 1).
    """
    # Probabilities rather than 1 - p, whose rounding could leave out the very film that sets the threshold.
    descending = -np.sort(-probabilities[np.arange(len(labels)), labels])
    rank = math.ceil((len(descending) + 1) * coverage)
    return float(descending[rank - 1]) if rank <= len(descending) else 0.0


def prediction_set(probabilities: NDArray[np.floating], threshold: float) -> tuple[int, ...]:
    """Return the class indices of at least `threshold` probability, most likely first; never empty.

    Args:
        probabilities: (C,), sum 1.
        threshold: From `conformal_threshold`.

    >>> prediction_set(np.array([0.5, 0.1, 0.4]), 0.3)
    (0, 2)
    """
    order = np.argsort(-probabilities, kind="stable")
    chosen = [int(c) for c in order if probabilities[c] >= threshold]
    return tuple(chosen) or (int(order[0]),)
