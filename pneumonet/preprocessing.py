"""How a film becomes a backbone's input."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import InputConfig

_REDUCED_SIDE: Final = 512


def squash(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resize a film to a square, its aspect not kept, as the training set was published.

    Args:
        pixels: (H, W) float32 in [0, 1].
        size: Side of the square in pixels.

    Returns:
        (size, size) float32 in [0, 1], by Pillow's antialiased bilinear filter.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)


def reduced(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a film (H, W) at no more than 512 pixels on a side, its aspect kept: to judge the whole needs no more."""
    height, width = pixels.shape
    scale = _REDUCED_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def to_batch(films: Sequence[Radiograph], config: InputConfig) -> NDArray[np.float32]:
    """Turn films into a backbone's input.

    Returns:
        (N, 3, size, size) float32: squashed, repeated to three channels, less the mean, over the deviation.
    """
    squashed = np.stack([squash(film.pixels, config.size) for film in films])[:, None]
    mean, std = (np.array(values, dtype=np.float32).reshape(1, 3, 1, 1) for values in (config.mean, config.std))
    batch: NDArray[np.float32] = (squashed - mean) / std
    return batch
