"""What a student takes from its teachers: their answers, and one teacher's feature maps, level by level.

Student and teachers see the same view (Beyer et al., "Knowledge distillation: a good teacher is patient and
consistent", CVPR 2022). A label says one thing of a film, and a teacher's answer hardly more; its maps say something
of every place at every scale (Romero et al., "FitNets", ICLR 2015), which is what a backbone from random weights
lacks in a short schedule.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from pneumonet.training.augment import resized
from pneumonet.training.backbones import TimmModel
from pneumonet.training.teacher import Teacher

# Reductions 8, 16 and 32 of the backbones here: earlier maps are large and say little that a film's pixels do not.
LEVELS: Final = 3


class Distillation(nn.Module):
    """Teachers, and the linear projections that lay a student's last maps on the first teacher's."""

    def __init__(self, teachers: Sequence[Teacher], student: TimmModel) -> None:
        """Make projections for a student.

        Args:
            teachers: Finished runs, at least one.
            student: A timm model of as many levels.
        """
        super().__init__()
        # Outside the module's own parts: their weights are neither trained nor kept in the student's checkpoints.
        self.teachers = tuple(teachers)
        pairs = zip(_channels(student), _channels(teachers[0].model), strict=True)
        self.projections = nn.ModuleList(nn.Conv2d(own, other, 1) for own, other in pairs)

    @classmethod
    def of_runs(
        cls, folders: Sequence[Path], student: TimmModel, held_back_fold: int, device: torch.device
    ) -> "Distillation":
        """Return the distillation from some runs.

        Raises:
            OSError: If a folder holds no run.
            ValueError: If a run is not finished, or was trained on the films held back.
        """
        teachers = [Teacher(folder, device) for folder in folders]
        for teacher in teachers:
            if teacher.recipe["held_back_fold"] != held_back_fold:
                raise ValueError(f"expected teachers that have not seen the films held back here, got {teacher.name}")
        return cls(teachers, student).to(device)

    def forward(self, maps: list[torch.Tensor], views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the teachers' mean probabilities (N, 3), and the mean cosine distance of the maps, in [0, 2].

        Args:
            maps: The student's last `LEVELS` maps, (N, C, h, w), finest first.
            views: (N, 1, S, S) float32 in [0, 1]: what the student sees, mixed, before it was made smaller. Each
                teacher sees it at the size that it was trained at: at 128 px one of 192 calls sick films normal.
        """
        answers = [teacher.answer(resized(views, teacher.size), LEVELS) for teacher in self.teachers]
        distances = []
        for projection, own, teacher_map in zip(self.projections, maps, answers[0][1], strict=True):
            projected = projection(own).float()
            # Standardised by channel: else the channels' common mean makes all directions alike.
            std, mean = torch.std_mean(teacher_map, (0, 2, 3), keepdim=True)
            target = F.adaptive_avg_pool2d((teacher_map - mean) / (std + 1e-3), projected.shape[-2:])
            distances.append((1 - F.cosine_similarity(projected, target, dim=1)).mean())
        return torch.stack([probabilities for probabilities, _ in answers]).mean(0), torch.stack(distances).mean()


def _channels(model: TimmModel) -> list[int]:
    return [level["num_chs"] for level in model.feature_info][-LEVELS:]
