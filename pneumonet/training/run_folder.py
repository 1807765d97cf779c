"""What a training run leaves in its folder, and how its weights are read back."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from pneumonet.snapshot import MEMBER_WEIGHTS_FILE, SnapshotConfig
from pneumonet.training.backbones import TimmModel, build_backbone

CHECKPOINT: Final = "checkpoint.pt"
HISTORY: Final = "history.jsonl"
RECIPE: Final = "recipe.json"


def load_averaged(folder: Path) -> tuple[TimmModel, dict[str, Any]]:
    """Return a run's backbone with its averaged weights, on the CPU, and the run's recipe.

    Raises:
        OSError: If the folder holds no run.
    """
    recipe = json.loads((folder / RECIPE).read_text())
    model = build_backbone(recipe["arch"], "random")
    state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    model.load_state_dict(state["ema"])
    return model.eval(), recipe


def load_start(folder: Path) -> tuple[TimmModel, str, int]:
    """Return a backbone to go on from, on the CPU, its architecture and the fold that it has not seen.

    Args:
        folder: A run's, or a member's in a snapshot.

    Raises:
        OSError: If the folder holds neither.
        SnapshotError: If the snapshot around a member cannot be understood.
    """
    if not (folder / MEMBER_WEIGHTS_FILE).is_file():
        model, recipe = load_averaged(folder)
        return model, recipe["arch"], recipe["held_back_fold"]
    config = SnapshotConfig.read(folder.parent)
    arch = next(member.architecture for member in config.members if member.name == folder.name)
    model = build_backbone(arch, "random")
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / MEMBER_WEIGHTS_FILE).items()})
    return model, arch, config.held_back_fold
