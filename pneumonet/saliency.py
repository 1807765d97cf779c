"""Grad-CAM for every class, from the features of the pass that gave the answer.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
The gradient of a logit with respect to the last feature map runs through the head alone, so the head is the whole
autograd graph: no second pass through a backbone, and no hook to leave behind.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pneumonet.members import Member


def grad_cam(member: Member, features: torch.Tensor) -> NDArray[np.float32]:
    """Compute the saliency map of each class.

    Args:
        member: The backbone whose head is explained.
        features: (N, C, h, w) float32, from `member.features`.

    Returns:
        (N, classes, h, w) float32 >= 0, in the units of logit: ReLU of the channels' sum, each weighted by the mean
        of its gradient. Not scaled; see `scaled`.
    """
    # Out of inference mode even where the caller is in it: a tensor made there can carry no gradient.
    with torch.inference_mode(False), torch.enable_grad():
        activations = features.detach().clone().requires_grad_(True)
        logits = member.head(activations)
        maps = []
        for target_class in range(logits.shape[1]):
            (gradients,) = torch.autograd.grad(logits[:, target_class].sum(), activations, retain_graph=True)
            weights = gradients.mean((2, 3), keepdim=True)
            maps.append((weights * activations.detach()).sum(1).relu())
    return torch.stack(maps, 1).cpu().numpy().astype(np.float32)


def scaled(saliency_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a map (..., h, w) to [0, 1] by its maximum; a map of zeros stays zeros.

    The minimum is not moved to zero: an even map then reads as even, not as noise stretched to full colour.
    """
    peak = saliency_map.max(axis=(-2, -1), keepdims=True)
    result: NDArray[np.float32] = np.divide(saliency_map, peak, out=np.zeros_like(saliency_map), where=peak > 0)
    return result


def lay_on_film(saliency_map: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Lay a map (h, w) back on the film's own pixels and aspect.

    Returns:
        (height, width) float32; bilinear, so within the map's own range.
    """
    # cv2 takes (width, height).
    resized = cv2.resize(saliency_map, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32)
