"""One backbone of the ensemble as PyTorch has it: its timm model, and its two halves, features and head."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from pneumonet.errors import SnapshotError
from pneumonet.heads import Head, LayerNorm
from pneumonet.snapshot import CONFIG_FILE, MEMBER_WEIGHTS_FILE, MemberConfig
from pneumonet.taxonomy import CLASS_NAMES

# timm knows a thousand architectures, and a stranger's repo may name any.
_FAMILIES: Final = {"convnext": "ConvNeXt", "efficientnet": "EfficientNet"}


def _check_family(config: MemberConfig) -> None:
    if not any(family in config.architecture for family in _FAMILIES):
        raise SnapshotError(
            f"The snapshot's {CONFIG_FILE} gives {config.name} the architecture {config.architecture}, "
            f"which is no {' or '.join(_FAMILIES.values())}."
        )


def _has_its_tensors(path: Path, architecture: str) -> bool:
    """Whether a file holds just a backbone's tensors, by name and shape: told without memory for either's values."""
    with torch.device("meta"):
        model = timm.create_model(architecture, pretrained=False, num_classes=len(CLASS_NAMES))
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return bool(expected == {name: list(file.get_slice(name).get_shape()) for name in names})


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
            SnapshotError: If the architecture is of no known family, or the weights are not exactly its tensors.
        """
        _check_family(config)
        path = snapshot_path / config.name / MEMBER_WEIGHTS_FILE
        try:
            if not _has_its_tensors(path, config.architecture):
                raise RuntimeError("other tensors")
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

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, the output of the target layer.

        Args:
            batch: (N, 3, S, S) float32, from `to_batch`.

        Returns:
            (N, C, S / 32, S / 32) float32.
        """
        features: torch.Tensor = self.model.forward_features(batch)
        return features

    def head(self) -> Head:
        """Return the head as the engines share it.

        Raises:
            SnapshotError: If the backbone's own head is not pooling, perhaps a layer norm, and a linear layer.
        """
        linear, norm = self.model.get_classifier(), getattr(getattr(self.model, "head", None), "norm", None)
        head = None
        if isinstance(linear, nn.Linear) and linear.bias is not None:
            head = Head(_array(linear.weight), _array(linear.bias), _layer_norm(norm))
        if head is None or not self._has_head(head):
            message = (
                f"The head of {self.config.architecture} is not pooling, a layer norm or none, and a linear layer."
            )
            raise SnapshotError(message)
        return head

    def _has_head(self, head: Head) -> bool:
        """Whether a head gives the logits and the derivatives that autograd finds for the model's own."""
        generator = torch.Generator().manual_seed(0)
        device = next(self.model.parameters()).device
        features = torch.rand(2, head.width, 2, 3, generator=generator).to(device).requires_grad_(True)
        with torch.enable_grad():
            logits = self.model.forward_head(features)
        gradients = [
            torch.autograd.grad(logits[:, k].sum(), features, retain_graph=True)[0].mean((2, 3))
            for k in range(logits.shape[1])
        ]
        drawn = _array(features)
        return np.allclose(head.logits(head.embed(drawn)), _array(logits), rtol=1e-3, atol=1e-3) and np.allclose(
            head.channel_weights(drawn), _array(torch.stack(gradients, 1)), rtol=1e-3, atol=1e-4
        )


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


def _layer_norm(module: Any) -> LayerNorm | None:
    if not isinstance(module, nn.LayerNorm):
        return None
    return LayerNorm(_array(module.weight), _array(module.bias), module.eps)
