"""Phantoms: grey pictures with a body, two lungs and a blob. For plumbing, never for accuracy."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def phantom(
    height: int = 300, width: int = 260, blob: tuple[float, float] = (0.6, 0.3), seed: int = 1
) -> NDArray[np.uint8]:
    """Draw a chest-like picture, (height, width) uint8; `blob` is the (y, x) of a bright spot, as shares."""
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / height, x / width
    picture = np.full((height, width), 12.0)
    picture[((y - 0.55) / 0.52) ** 2 + ((x - 0.5) / 0.45) ** 2 < 1] = 170
    for centre in (0.32, 0.68):
        picture[((y - 0.5) / 0.3) ** 2 + ((x - centre) / 0.14) ** 2 < 1] = 60
    picture[(y - blob[0]) ** 2 + (x - blob[1]) ** 2 < 0.07**2] = 220
    noise = np.random.default_rng(seed).normal(0, 4, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def encoded(pixels: NDArray[np.generic], image_format: str = "PNG", **options: object) -> bytes:
    """Encode pixels in a Pillow format."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=image_format, **options)
    return buffer.getvalue()
