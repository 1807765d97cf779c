"""One backbone of the ensemble: its timm model, its input, and its two halves, features and head."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from pneumonet.errors import SnapshotError
from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import MEMBER_WEIGHTS_FILE, InputConfig, MemberConfig
from pneumonet.taxonomy import CLASS_NAMES


def squash(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resize a film to a square, its aspect not kept, as the training set was published.

    Args:
        pixels: (H, W) float32 in [0, 1].
        size: Side of the square in pixels.

    Returns:
        (size, size) float32 in [0, 1], by Pillow's antialiased bilinear filter.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)


def to_batch(films: Sequence[Radiograph], config: InputConfig) -> torch.Tensor:
    """Turn films into a backbone's input.

    Returns:
        (N, 3, size, size) float32: squashed, repeated to three channels, less the mean, over the deviation.
    """
    squashed = torch.from_numpy(np.stack([squash(film.pixels, config.size) for film in films]))
    mean = torch.tensor(config.mean).view(1, 3, 1, 1)
    std = torch.tensor(config.std).view(1, 3, 1, 1)
    return (squashed.unsqueeze(1).expand(-1, 3, -1, -1) - mean) / std


def _ends_features(model: Any, target_layer: str) -> bool:
    """Whether a layer's output is what `forward_features` returns, so that the map explained is the map pooled."""
    outputs: list[torch.Tensor] = []
    handle = model.get_submodule(target_layer).register_forward_hook(lambda *call: outputs.append(call[2]))
    try:
        with torch.inference_mode():
            features = model.eval().forward_features(torch.zeros(1, 3, 64, 64))
    finally:
        handle.remove()
    return bool(outputs) and outputs[-1].shape == features.shape and bool(torch.equal(outputs[-1], features))


def _check_finite(config: MemberConfig, model: Any) -> None:
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise SnapshotError(
                f"The snapshot's {config.name}/{MEMBER_WEIGHTS_FILE} holds values that are not finite, in {name}."
            )


class Member:
    """A backbone that answers with features, and with logits for features.

    The split at the last feature map is what lets Grad-CAM use the forward pass that gave the answer.
    """

    def __init__(self, config: MemberConfig, model: Any, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.model = model.eval().requires_grad_(False).to(device)

    @classmethod
    def load(cls, config: MemberConfig, snapshot_path: Path, device: torch.device | str = "cpu") -> "Member":
        """Load a member's weights from its folder in a snapshot, every tensor matched by name and shape.

        Raises:
            SnapshotError: If timm does not know the architecture, or the weights are not exactly its tensors.
        """
        path = snapshot_path / config.name / MEMBER_WEIGHTS_FILE
        try:
            model = timm.create_model(config.architecture, pretrained=False, num_classes=len(CLASS_NAMES))
            model.load_state_dict(load_file(path), strict=True)
            explained = _ends_features(model, config.target_layer)
        except (RuntimeError, SafetensorError, OSError, AttributeError) as error:
            raise SnapshotError(
                f"The weights of {config.name} are not those of a {config.architecture} with three classes."
            ) from error
        _check_finite(config, model)
        if not explained:
            raise SnapshotError(f"The target layer {config.target_layer} of {config.name} is not its last feature map.")
        return cls(config, model, device)

    @property
    def width(self) -> int:
        """Number of pooled features."""
        return int(self.model.head_hidden_size)

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, the output of the target layer.

        Args:
            batch: (N, 3, S, S) float32, from `to_batch`.

        Returns:
            (N, C, S / 32, S / 32) float32.
        """
        features: torch.Tensor = self.model.forward_features(batch)
        return features

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, 3) of a feature map (N, C, h, w)."""
        logits: torch.Tensor = self.model.forward_head(features)
        return logits

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Return the vector (N, C) that the last linear layer sees: the member's own space of films."""
        pooled: torch.Tensor = self.model.forward_head(features, pre_logits=True)
        return pooled
