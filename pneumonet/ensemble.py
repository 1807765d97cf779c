"""The ensemble: members and their weights, from films to probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pneumonet.calibration import softmax, total_variation
from pneumonet.engines import Engine, open_engine
from pneumonet.errors import InternalError
from pneumonet.heads import Head
from pneumonet.preprocessing import to_batch
from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import AgreementConfig, InputConfig, MemberConfig, SnapshotConfig


@dataclass(frozen=True, eq=False)
class MemberPass:
    """What one member made of a batch.

    Attributes:
        config: Which member.
        head: Its head.
        features: (N, C, h, w) float32, the last feature map.
        logits: (N, 3) float32.
        pooled: (N, C) float32, what the last linear layer saw.
        probabilities: (N, 3) float64, softmax of the logits over the member's temperature.
    """

    config: MemberConfig
    head: Head
    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    pooled: NDArray[np.float32]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EnsemblePass:
    """What the ensemble made of a batch: each member's pass, and the weighted probabilities (N, 3) float64."""

    members: tuple[MemberPass, ...]
    probabilities: NDArray[np.float64]


class Ensemble:
    """Backbones whose softmax probabilities are averaged by fixed weights.

    Attributes:
        configs: The members.
        engine: What runs their backbones.
        heads: Each member's head, by its name.
    """

    def __init__(self, configs: Sequence[MemberConfig], input_config: InputConfig, engine: Engine) -> None:
        self.configs = tuple(configs)
        self.input_config = input_config
        self.engine = engine
        self.heads = dict(engine.heads)

    @classmethod
    def load(
        cls, snapshot_path: Path, config: SnapshotConfig, *, engine: str, device: str, cache_dir: Path
    ) -> "Ensemble":
        """Load every member of a snapshot.

        Args:
            snapshot_path: The snapshot's folder, its files already verified.
            config: The snapshot's config.
            engine: auto, torch or openvino; see `open_engine`.
            device: auto (an accelerator where there is one), cpu, cuda or mps.
            cache_dir: Where an engine keeps what it converts.

        Raises:
            SnapshotError: If a member's weights do not fit.
            ConfigError: If the engine or the device is not there.
        """
        return cls(config.members, config.input, open_engine(engine, device, snapshot_path, config, cache_dir))

    def forward(self, films: Sequence[Radiograph]) -> EnsemblePass:
        """Run one pass of each member over the films.

        Raises:
            InternalError: If a member answers with numbers that are not finite.
        """
        features = self.engine.features(to_batch(films, self.input_config))
        passes = tuple(_member_pass(config, self.heads[config.name], features[config.name]) for config in self.configs)
        weights = [config.weight for config in self.configs]
        return EnsemblePass(passes, combine([p.probabilities for p in passes], weights))


def combine(probabilities: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Average members' probabilities, each (N, C), by weights that sum to 1.

    >>> combine([np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])], [0.4, 0.6]).round(3).tolist()
    [[0.7, 0.3]]
    """
    total: NDArray[np.float64] = np.tensordot(np.asarray(weights, dtype=np.float64), np.stack(probabilities), axes=1)
    return total


def disagreement(probabilities: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return how far apart members' probabilities, each (N, C), lie: the largest total variation of a pair, (N,).

    >>> disagreement([np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])]).tolist()
    [0.5]
    """
    pairs = [total_variation(p, q) for p, q in combinations(probabilities, 2)]
    return np.max(pairs, axis=0) if pairs else np.zeros(len(probabilities[0]))


def members_agree(probabilities: Sequence[NDArray[np.float64]], config: AgreementConfig) -> NDArray[np.bool_]:
    """Return for each film, (N,), whether members' probabilities, each (N, C), name one class and lie near."""
    answers = np.stack([p.argmax(axis=1) for p in probabilities])
    agree: NDArray[np.bool_] = (answers == answers[0]).all(axis=0)
    return agree & (disagreement(probabilities) <= config.max_total_variation)


def _member_pass(config: MemberConfig, head: Head, features: NDArray[np.float32]) -> MemberPass:
    pooled = head.embed(features)
    logits = head.logits(pooled)
    probabilities = softmax(logits, config.temperature)
    if not np.isfinite(probabilities).all():
        raise InternalError(f"The backbone {config.name} gave numbers that are not finite.")
    return MemberPass(config, head, features, logits, pooled, probabilities)
