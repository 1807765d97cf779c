"""The head of a backbone, from its last feature map to logits: small enough for numpy, the same under every engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pneumonet.errors import SnapshotError


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """Layer normalisation over channels (Ba et al., 2016): `scale` and `shift` (C,) float32, `epsilon` in variance."""

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    epsilon: float


@dataclass(frozen=True, eq=False)
class Head:
    """Global average pooling, layer normalisation where the backbone has one, and a linear layer.

    Attributes:
        weight: (K, C) float32, K classes.
        bias: (K,) float32.
        norm: What ConvNeXt has between pooling and the linear layer; None for EfficientNet.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    norm: LayerNorm | None = None

    @property
    def width(self) -> int:
        """Number of pooled features."""
        return int(self.weight.shape[1])

    def embed(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the linear layer sees, (N, C), of a feature map (N, C, h, w): the member's own space of films."""
        pooled: NDArray[np.float32] = features.mean(axis=(2, 3), dtype=np.float32)
        if self.norm is None:
            return pooled
        centred, deviation = _centred(pooled, self.norm)
        return centred / deviation * self.norm.scale + self.norm.shift

    def logits(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (N, K) of an embedding (N, C)."""
        logits: NDArray[np.float32] = embedding @ self.weight.T + self.bias
        return logits

    def channel_weights(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the derivative of each logit by each channel of a map (N, C, h, w), as (N, K, C).

        The head pools first, so that it is the same at every place: that by the pooled value, over the places' number.
        """
        count, _, height, width = features.shape
        rows = np.broadcast_to(self.weight, (count, *self.weight.shape))
        if self.norm is not None:
            centred, deviation = _centred(features.mean(axis=(2, 3), dtype=np.float32), self.norm)
            direction = (centred / deviation)[:, None]
            rows = self.weight * self.norm.scale
            along = (rows * direction).mean(axis=2, keepdims=True)
            rows = (rows - rows.mean(axis=1, keepdims=True) - direction * along) / deviation[:, None]
        weights: NDArray[np.float32] = rows / np.float32(height * width)
        return weights


def _centred(pooled: NDArray[np.float32], norm: LayerNorm) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    centred = pooled - pooled.mean(axis=1, keepdims=True)
    return centred, np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(norm.epsilon))


def save_heads(heads: Mapping[str, Head], path: Path) -> None:
    """Write heads by name to a safetensors file."""
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, head in heads.items():
        tensors |= {f"{name}.weight": np.ascontiguousarray(head.weight), f"{name}.bias": head.bias}
        if head.norm is not None:
            tensors |= {f"{name}.norm.scale": head.norm.scale, f"{name}.norm.shift": head.norm.shift}
            tensors[f"{name}.norm.epsilon"] = np.array([head.norm.epsilon], dtype=np.float32)
    save_file(tensors, path)


def load_heads(path: Path) -> dict[str, Head]:
    """Read heads by name.

    Raises:
        SnapshotError: If the file is missing, damaged, or lacks a tensor.
    """
    try:
        tensors = load_file(path)
        return {
            name: Head(tensors[f"{name}.weight"], tensors[f"{name}.bias"], _norm_of(tensors, name))
            for name in sorted(key.removesuffix(".weight") for key in tensors if key.endswith(".weight"))
        }
    except (OSError, KeyError, SafetensorError) as error:
        raise SnapshotError(f"The snapshot's {path.name} cannot be read.") from error


def _norm_of(tensors: Mapping[str, NDArray[np.float32]], name: str) -> LayerNorm | None:
    if f"{name}.norm.scale" not in tensors:
        return None
    scale, shift, epsilon = (tensors[f"{name}.norm.{part}"] for part in ("scale", "shift", "epsilon"))
    return LayerNorm(scale, shift, float(epsilon[0]))
