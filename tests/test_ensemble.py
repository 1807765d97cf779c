"""The ensemble's rule by hand, and that a batch answers as its films alone do."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from pneumonet.ensemble import Ensemble, combine
from pneumonet.errors import ConfigError, InternalError
from pneumonet.model import PneumoNet
from pneumonet.radiograph import Radiograph
from pneumonet.settings import DEFAULT_SNAPSHOT
from pneumonet.snapshot import SnapshotConfig
from tests.support.films import phantom


def _films(count: int) -> list[Radiograph]:
    return [Radiograph(phantom(200 + 20 * i, 240, seed=i).astype(np.float32) / 255, "PNG") for i in range(count)]


def test_combine_by_hand() -> None:
    first, second = np.array([[0.5, 0.25, 0.25]]), np.array([[0.0, 0.5, 0.5]])
    np.testing.assert_allclose(combine([first, second], [0.4, 0.6]), [[0.2, 0.4, 0.4]])


def test_probabilities_are_the_weighted_softmax_over_each_temperature(tiny_model: PneumoNet) -> None:
    films = _films(3)
    passed = tiny_model.ensemble.forward(films)
    z1, z2 = (p.logits for p in passed.members)
    expected = 0.4 * softmax(z1 / 1.3, axis=1) + 0.6 * softmax(z2 / 0.8, axis=1)
    np.testing.assert_allclose(passed.probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(passed.probabilities.sum(axis=1), 1)


def test_a_batch_answers_as_its_films_alone(tiny_model: PneumoNet) -> None:
    films = _films(4)
    together = tiny_model.ensemble.forward(films).probabilities
    alone = np.concatenate([tiny_model.ensemble.forward([film]).probabilities for film in films])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_committed_snapshot_is_the_ensemble_that_was_ordered() -> None:
    config = SnapshotConfig.read(DEFAULT_SNAPSHOT)
    assert [(m.architecture, m.weight) for m in config.members] == [
        ("convnext_tiny", 0.4),
        ("tf_efficientnetv2_s", 0.6),
    ]


def test_numbers_that_are_not_finite_are_an_error_not_an_answer(tiny_model: PneumoNet) -> None:
    ensemble = tiny_model.ensemble

    class Broken:
        name, device, precision, heads = "broken", "cpu", "float32", ensemble.heads

        def features(self, batch: np.ndarray) -> dict[str, np.ndarray]:
            return {name: np.full((len(batch), head.width, 3, 3), np.nan, "f4") for name, head in self.heads.items()}

    broken = Ensemble(ensemble.configs, ensemble.input_config, Broken())
    with pytest.raises(InternalError, match="not finite"):
        broken.forward(_films(1))


def test_a_device_that_is_not_there_is_a_clear_error(tiny_snapshot: object) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device that the test asks for in vain")
    with pytest.raises(ConfigError, match="cuda"):
        PneumoNet.from_pretrained(str(tiny_snapshot), device="cuda")
