"""Trained backbones to the folders that timm loads by itself."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from pneumonet.snapshot import MEMBER_CONFIG_FILE, MEMBER_WEIGHTS_FILE, InputConfig
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.backbones import TimmModel


def export_member(model: TimmModel, architecture: str, input_config: InputConfig, folder: Path) -> None:
    """Write a backbone as timm's Hub form: config.json and model.safetensors, in float16.

    Written by hand rather than by timm's exporter, which copies the ImageNet record (size, mean, crop, tag) of the
    architecture; ours is another input.

    Args:
        model: A timm model with a three-class head.
        architecture: Its timm name, without a tag.
        input_config: The input that it was trained for.
        folder: Where to write; made if missing.

    Raises:
        ValueError: If a weight is out of float16's range.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cfg = model.pretrained_cfg
    config = {
        "architecture": architecture,
        "num_classes": len(CLASS_NAMES),
        "num_features": model.num_features,
        "label_names": list(CLASS_NAMES),
        "pretrained_cfg": {
            "input_size": [3, input_config.size, input_config.size],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(input_config.mean),
            "std": list(input_config.std),
            "num_classes": len(CLASS_NAMES),
            "pool_size": [max(1, input_config.size // 32)] * 2,
            "first_conv": cfg["first_conv"],
            "classifier": cfg["classifier"],
            "license": "apache-2.0",
        },
    }
    (folder / MEMBER_CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    save_file({name: _half(name, t) for name, t in model.state_dict().items()}, folder / MEMBER_WEIGHTS_FILE)


def _half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor.contiguous()
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise ValueError(f"expected {name} to be within float16's range, got {tensor.abs().max().item()}")
    return half.contiguous()
