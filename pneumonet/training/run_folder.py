"""What a training run leaves in its folder, and how its weights are read back."""

import json
from pathlib import Path
from typing import Any, Final

import torch

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
