"""A finished run that teaches: probabilities and feature maps for each view."""

from pathlib import Path

import torch

from pneumonet.training.backbones import normalisation
from pneumonet.training.run_folder import HISTORY, load_averaged


class Teacher:
    """A run's averaged weights, ready to answer.

    Attributes:
        size: Side in pixels of the views that it was trained on last.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load a run.

        Raises:
            OSError: If the folder holds no run.
            ValueError: If the run is not finished.
        """
        self.model, self.recipe = load_averaged(folder)
        finished = len((folder / HISTORY).read_text().splitlines())
        if finished < self.recipe["epochs"]:
            raise ValueError(f"expected a finished teacher, got {folder.name} after {finished} epochs")
        self.name = folder.name
        self.size = int(self.recipe["sizes"][-1][1])
        self.model.requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.mean, self.std = (t.to(device) for t in normalisation(self.model))

    @torch.no_grad()
    def answer(self, views: torch.Tensor, levels: int = 1) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return probabilities (N, 3) and the feature maps (N, C, h, w) of the last levels, finest first, in float32.

        Args:
            views: (N, 1, S, S) float32 in [0, 1].
            levels: How many maps.
        """
        # In float32 whatever the student is in: on a CPU a small teacher is no slower for it.
        with torch.autocast(views.device.type, enabled=False):
            features, maps = self.model.forward_intermediates((views.float() - self.mean) / self.std, indices=levels)
            logits: torch.Tensor = self.model.forward_head(features)
        return logits.softmax(1), list(maps)
