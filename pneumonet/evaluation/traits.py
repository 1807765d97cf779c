"""What a film's file is like, apart from what it shows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image

from pneumonet.radiograph import Radiograph

_SHARPNESS_SIDE: Final = 224
# What Pillow raises for a file that it does not read, though another reader of ours does.
_NOT_PILLOWS: Final = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Traits:
    """What a film's file is like.

    Attributes:
        mode: Pillow's mode of the file ("L", "RGB", ...), or the format's name where Pillow does not read it.
        width: Pixels.
        height: Pixels.
        sharpness: Mean absolute Laplacian at 224 x 224 pixels, in grey levels of 255.
    """

    mode: str
    width: int
    height: int
    sharpness: float

    @classmethod
    def of(cls, film: Path, radiograph: Radiograph) -> "Traits":
        """Measure a film that was read."""
        try:
            with Image.open(film) as image:
                mode = image.mode
        except _NOT_PILLOWS:
            mode = radiograph.format
        side = (_SHARPNESS_SIDE, _SHARPNESS_SIDE)
        small = cv2.resize(radiograph.pixels * np.float32(255), side, interpolation=cv2.INTER_AREA)
        laplacian = cv2.Laplacian(small, cv2.CV_32F)[1:-1, 1:-1]
        return cls(mode, radiograph.width, radiograph.height, float(np.abs(laplacian).mean()))
