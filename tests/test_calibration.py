"""Calibration against values worked out by hand, by scikit-learn and by naive loops."""

import math

import numpy as np
import pytest
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import log_loss

from pneumonet.calibration import (
    conformal_threshold,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    prediction_set,
    softmax,
)


def _random_answers(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 3))
    labels = np.array([rng.choice(3, p=p) for p in scipy_softmax(logits, axis=1)])
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_softmax_equals_scipy(temperature: float) -> None:
    logits, _ = _random_answers(20)
    np.testing.assert_allclose(softmax(logits, temperature), scipy_softmax(logits / temperature, axis=1))


def test_softmax_of_extreme_logits_is_finite() -> None:
    probabilities = softmax(np.array([[1e4, -1e4, 0.0]]))
    np.testing.assert_allclose(probabilities, [[1, 0, 0]])


def test_likelihood_equals_scikit_learn() -> None:
    logits, labels = _random_answers(50)
    probabilities = softmax(logits)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5], ids=["underconfident", "right", "overconfident"])
def test_temperature_undoes_a_known_scaling(factor: float) -> None:
    logits, labels = _random_answers(20_000)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.05)


def test_temperature_is_the_best_of_a_fine_grid() -> None:
    logits, labels = _random_answers(300, seed=4)
    grid = np.exp(np.linspace(math.log(0.2), math.log(5), 2001))
    best = min(grid, key=lambda t: negative_log_likelihood(softmax(logits, t), labels))
    assert fit_temperature(logits, labels) == pytest.approx(best, rel=2e-3)


@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_calibration_error_equals_a_naive_loop(n_bins: int) -> None:
    logits, labels = _random_answers(400, seed=2)
    probabilities = softmax(logits)
    expected = 0.0
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        inside = [i for i in range(400) if low < probabilities[i].max() <= high]
        if inside:
            accuracy = sum(probabilities[i].argmax() == labels[i] for i in inside) / len(inside)
            confidence = sum(probabilities[i].max() for i in inside) / len(inside)
            expected += len(inside) / 400 * abs(accuracy - confidence)
    assert expected_calibration_error(probabilities, labels, n_bins) == pytest.approx(expected)


def test_conformal_sets_cover_new_films_as_promised() -> None:
    logits, labels = _random_answers(6000, seed=9)
    probabilities = softmax(logits)
    threshold = conformal_threshold(probabilities[:1000], labels[:1000], 0.9)
    covered = [labels[i] in prediction_set(probabilities[i], threshold) for i in range(1000, 6000)]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.025)


def test_conformal_threshold_by_hand() -> None:
    # Scores .1 .2 .3 .4; rank ceil(5 * .6) = 3, so the score .3 and the probability .7.
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    assert conformal_threshold(probabilities, np.zeros(4, dtype=int), 0.6) == pytest.approx(0.7)


def test_conformal_threshold_of_too_few_films_keeps_every_class() -> None:
    assert conformal_threshold(np.array([[0.9, 0.1]]), np.array([0]), 0.9) == 0.0


def test_prediction_set_is_ordered_and_never_empty() -> None:
    assert prediction_set(np.array([0.3, 0.1, 0.6]), 0.2) == (2, 0)
    assert prediction_set(np.array([0.34, 0.33, 0.33]), 0.9) == (0,)


@pytest.mark.parametrize("seed", range(20))
def test_conformal_sets_hold_the_very_films_that_set_the_threshold(seed: int) -> None:
    logits, labels = _random_answers(57, seed=seed)
    probabilities = softmax(logits)
    threshold = conformal_threshold(probabilities, labels, 0.9)
    held = sum(label in prediction_set(p, threshold) for p, label in zip(probabilities, labels, strict=True))
    assert held >= math.ceil(58 * 0.9)
