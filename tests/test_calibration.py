"""Calibration against values worked out by hand, by scikit-learn and by naive loops."""

import math

import numpy as np
import pytest
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import log_loss

from pneumonet.calibration import (
    conformal_thresholds,
    equal_mass_bins,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    prediction_set,
    softmax,
    total_variation,
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
    films = sorted(range(400), key=lambda i: probabilities[i].max())
    expected = 0.0
    for b in range(n_bins):
        inside = [film for place, film in enumerate(films) if place * n_bins // 400 == b]
        right = sum(probabilities[i].argmax() == labels[i] for i in inside)
        expected += abs(right - sum(probabilities[i].max() for i in inside)) / 400
    assert expected_calibration_error(probabilities, labels, n_bins) == pytest.approx(expected)


def test_bins_of_equal_mass_hold_equally_many_in_order() -> None:
    values = np.random.default_rng(0).permutation(150) / 150
    bins = equal_mass_bins(values)
    assert np.bincount(bins).tolist() == [10] * 15
    assert (np.diff(bins[np.argsort(values)]) >= 0).all()


def test_fewer_films_than_bins_each_have_one() -> None:
    assert sorted(equal_mass_bins(np.array([0.5, 0.5, 0.9]), 15)) == [0, 5, 10]


def test_conformal_sets_cover_new_films_of_each_class_as_promised() -> None:
    # A rare class of weak logits: a single threshold for all would cover it far less than the others.
    rng = np.random.default_rng(9)
    labels = rng.choice(3, size=24_000, p=[0.6, 0.3, 0.1])
    logits = rng.normal(0, 1, (24_000, 3)) + np.eye(3)[labels] * np.array([3.0, 2.0, 0.5])[labels][:, None]
    probabilities = softmax(logits)
    thresholds = conformal_thresholds(probabilities[:8000], labels[:8000], 0.9)
    covered = np.array([labels[i] in prediction_set(probabilities[i], thresholds) for i in range(8000, 24_000)])
    for c in range(3):
        # The answer always belongs, so an easy class may be covered more often, never less.
        assert covered[labels[8000:] == c].mean() > 0.875


def test_conformal_thresholds_by_hand() -> None:
    # Of class 0 the probabilities .9 .8 .7 .6; rank ceil(5 * .6) = 3. Of class 1 .5 alone; rank ceil(2 * .6) = 2, none.
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.5, 0.5]])
    assert conformal_thresholds(probabilities, np.array([0, 0, 0, 0, 1]), 0.6) == pytest.approx((0.7, 0.0))


def test_prediction_set_is_ordered_and_holds_the_answer() -> None:
    assert prediction_set(np.array([0.3, 0.1, 0.6]), (0.2, 0.2, 0.2)) == (2, 0)
    assert prediction_set(np.array([0.34, 0.33, 0.33]), (0.9, 0.9, 0.9)) == (0,)
    assert prediction_set(np.array([0.3, 0.5, 0.2]), (0.25, 0.8, 0.3)) == (1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_conformal_sets_hold_the_very_films_that_set_the_thresholds(seed: int) -> None:
    logits, labels = _random_answers(157, seed=seed)
    probabilities = softmax(logits)
    thresholds = conformal_thresholds(probabilities, labels, 0.9)
    for c in range(3):
        sets = [prediction_set(p, thresholds) for p in probabilities[labels == c]]
        assert sum(c in chosen for chosen in sets) >= math.ceil((len(sets) + 1) * 0.9)


def test_total_variation_is_half_the_sum_of_differences() -> None:
    p, q = np.array([[0.7, 0.2, 0.1], [1, 0, 0]]), np.array([[0.1, 0.2, 0.7], [0, 1, 0]])
    assert total_variation(p, q) == pytest.approx([0.6, 1.0])
