"""Feature spaces: where the training films lie, and how far from them another one does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pneumonet.errors import SnapshotError


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """Where the training films lie in a space of D features: a Gaussian of a few directions and a rest.

    Tipping and Bishop, "Probabilistic principal component analysis", JRSS B 1999.

    Attributes:
        mean: (D,) float32.
        components: (K, D) float32, orthonormal rows.
        deviations: (K,) float32, of the training films along each component.
        rest: Deviation along each direction that is not a component.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    deviations: NDArray[np.float32]
    rest: float

    def __post_init__(self) -> None:
        width, count = len(self.mean), len(self.deviations)
        if self.components.shape != (count, width) or not (self.rest > 0 and (self.deviations > 0).all()):
            raise SnapshotError("A feature space's parts do not fit each other, or a deviation is not above 0.")

    @classmethod
    def fit(cls, features: NDArray[np.float32], n_components: int) -> "FeatureSpace":
        """Fit the space to training films, features (N, D) float32."""
        mean = features.mean(axis=0)
        _, singular, rows = np.linalg.svd(features - mean, full_matrices=False)
        variances = singular**2 / (len(features) - 1)
        k = min(n_components, len(variances) - 1)
        rest = float(variances[k:].sum() / (features.shape[1] - k))
        return cls(
            mean.astype(np.float32),
            rows[:k].astype(np.float32),
            np.sqrt(variances[:k]).astype(np.float32),
            float(np.sqrt(rest)),
        )

    def distance(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the Mahalanobis distance (N,) of films (N, D), divided by sqrt(D): about 1 for a training film."""
        centred = (features - self.mean).astype(np.float64)
        scores = centred @ self.components.T
        squared_rest = np.clip((centred**2).sum(axis=1) - (scores**2).sum(axis=1), 0, None)
        squared = ((scores / self.deviations) ** 2).sum(axis=1) + squared_rest / self.rest**2
        distance: NDArray[np.float64] = np.sqrt(squared / features.shape[1])
        return distance


def save_spaces(spaces: Mapping[str, FeatureSpace], path: Path) -> None:
    """Write feature spaces by name to a safetensors file."""
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, space in spaces.items():
        tensors[f"{name}.mean"] = space.mean
        tensors[f"{name}.components"] = np.ascontiguousarray(space.components)
        tensors[f"{name}.deviations"] = space.deviations
        tensors[f"{name}.rest"] = np.array([space.rest], dtype=np.float32)
    save_file(tensors, path)


def load_spaces(path: Path) -> dict[str, FeatureSpace]:
    """Read feature spaces by name.

    Raises:
        SnapshotError: If the file is missing, damaged, or lacks a tensor.
    """
    try:
        tensors = load_file(path)
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise SnapshotError(f"The snapshot's {path.name} holds values that are not finite.")
        names = sorted({key.rsplit(".", 1)[0] for key in tensors})
        return {
            name: FeatureSpace(
                tensors[f"{name}.mean"],
                tensors[f"{name}.components"],
                tensors[f"{name}.deviations"],
                float(tensors[f"{name}.rest"][0]),
            )
            for name in names
        }
    except (OSError, KeyError, SafetensorError) as error:
        raise SnapshotError(f"The snapshot's {path.name} cannot be read.") from error
