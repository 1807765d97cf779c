"""Grad-CAM for every class, from the features of the pass that gave the answer.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
The gradient of a logit with respect to the last feature map runs through the head alone, and the head is small enough
to write its derivative down: no second pass through a backbone, no gradient kept, no hook to leave behind.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pneumonet.heads import Head


def grad_cam(head: Head, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the saliency map of each class.

    Args:
        head: The head that is explained.
        features: (N, C, h, w) float32, the last feature map.

    Returns:
        (N, classes, h, w) float32 >= 0, in the units of logit: ReLU of the channels' sum, each weighted by the mean
        of its gradient. Not scaled; see `scaled`.
    """
    maps = np.einsum("nkc,nchw->nkhw", head.channel_weights(features), features, optimize=True)
    positive: NDArray[np.float32] = np.maximum(maps, 0, dtype=np.float32)
    return positive


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
