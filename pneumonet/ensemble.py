"""The ensemble: members and their weights, from films to probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pneumonet.calibration import softmax, total_variation
from pneumonet.errors import ConfigError, InternalError
from pneumonet.members import Member, to_batch
from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import AgreementConfig, InputConfig, SnapshotConfig


@dataclass(frozen=True, eq=False)
class MemberPass:
    """What one member made of a batch.

    Attributes:
        member: The backbone.
        features: (N, C, h, w) float32, the last feature map, on the member's device.
        logits: (N, 3) float32.
        pooled: (N, C) float32, what the last linear layer saw.
        probabilities: (N, 3) float64, softmax of the logits over the member's temperature.
    """

    member: Member
    features: torch.Tensor
    logits: NDArray[np.float32]
    pooled: NDArray[np.float32]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EnsemblePass:
    """What the ensemble made of a batch: each member's pass, and the weighted probabilities (N, 3) float64."""

    members: tuple[MemberPass, ...]
    probabilities: NDArray[np.float64]


class Ensemble:
    """Backbones whose softmax probabilities are averaged by fixed weights."""

    def __init__(self, members: Sequence[Member], input_config: InputConfig, device: torch.device) -> None:
        self.members = tuple(members)
        self.input_config = input_config
        self.device = device

    @classmethod
    def load(cls, snapshot_path: Path, config: SnapshotConfig, device: str = "auto") -> "Ensemble":
        """Load every member of a snapshot.

        Args:
            snapshot_path: The snapshot's folder, its files already verified.
            config: The snapshot's config.
            device: auto (an accelerator where there is one), cpu, cuda or mps.

        Raises:
            SnapshotError: If a member's weights do not fit.
            ConfigError: If the device is not there.
        """
        place = _device(device)
        members = [Member.load(member, snapshot_path, place) for member in config.members]
        return cls(members, config.input, place)

    @torch.inference_mode()
    def forward(self, films: Sequence[Radiograph]) -> EnsemblePass:
        """Run one pass of each member over the films.

        Raises:
            InternalError: If a member answers with numbers that are not finite.
        """
        batch = to_batch(films, self.input_config).to(self.device)
        passes = tuple(_member_pass(member, batch) for member in self.members)
        weights = [p.member.config.weight for p in passes]
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


def _member_pass(member: Member, batch: torch.Tensor) -> MemberPass:
    features = member.features(batch)
    logits = member.head(features).cpu().numpy().astype(np.float32)
    probabilities = softmax(logits, member.config.temperature)
    if not np.isfinite(probabilities).all():
        raise InternalError(f"The backbone {member.config.name} gave numbers that are not finite.")
    pooled = member.pooled(features).cpu().numpy().astype(np.float32)
    return MemberPass(member, features, logits, pooled, probabilities)


def _device(name: str) -> torch.device:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(place for place in ("cuda", "mps", "cpu") if available[place])
    if not available.get(name, False):
        raise ConfigError(f"Expected a device that this machine has, got {name!r}; it has no such device.")
    return torch.device(name)
