"""The loss of a student: it follows the teachers' probabilities, and place by place a teacher's feature map."""

import torch
import torch.nn.functional as F
from torch import nn

from pneumonet.training.views import Lesson


class FeatureDistance(nn.Module):
    """Distance between a student's last feature map, through a linear projection, and the teacher's.

    Every place of the map is a lesson of its own, where pooled features give one a film: from random weights, that is
    what a short schedule lacks.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(student_channels, teacher_channels, 1)

    def forward(self, features: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Return the mean cosine distance, in [0, 2], of (N, C, h, w) features to (N, D, H, W) teacher's maps."""
        projected = self.projection(features).float()
        # The student's views are smaller than the teacher's, and so is its map.
        target = F.adaptive_avg_pool2d(maps, projected.shape[-2:])
        return (1 - F.cosine_similarity(projected, target, dim=1)).mean()


def distillation_loss(
    logits: torch.Tensor, targets: torch.Tensor, lesson: Lesson, weights: torch.Tensor, label_share: float
) -> torch.Tensor:
    """Return the cross-entropy with the labels and the divergence from the teachers, weighted by class.

    Args:
        logits: (N, 3) float32 of the student.
        targets: (N, 3) float32 label distributions, smoothed and mixed.
        lesson: What the teachers say of the views.
        weights: (N,) float32.
        label_share: Weight of the labels; the teachers have the rest.
    """
    log_probabilities = F.log_softmax(logits, 1)
    from_labels = -(targets * log_probabilities).sum(1)
    from_teachers = F.kl_div(log_probabilities, lesson.probabilities, reduction="none").sum(1)
    return ((label_share * from_labels + (1 - label_share) * from_teachers) * weights).mean()
