"""What an archive leaves on a film: borders, letters burned in, JPEG's blocks. None of it may carry the answer."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch

_TEXTS: Final = ("R", "L", "D", "I", "AP", "PA", "ERECT", "SUPINE", "PORTABLE", "R SUPINE", "+")
_FONTS: Final = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
_BORDER_SHARE: Final = 0.2
_LETTER_SHARE: Final = 0.35
_JPEG_SHARE: Final = 0.3

Film = npt.NDArray[np.uint8]


def leave_marks(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw borders, letters and JPEG artefacts on a part of the films.

    Args:
        pixels: (N, 1, H, W) uint8, on the CPU; not changed.
        generator: Source of every random number.

    Returns:
        (N, 1, H, W) uint8.
    """
    # One seed from the run's generator: NumPy draws the many small numbers of a single film far faster.
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    films = pixels.numpy().copy()
    for film in films[:, 0]:
        if rng.random() < _BORDER_SHARE:
            _border(film, rng)
        if rng.random() < _LETTER_SHARE:
            _letters(film, rng)
        if rng.random() < _JPEG_SHARE:
            _, encoded = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 90))])
            film[:] = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    return torch.from_numpy(films)


def _border(film: Film, rng: np.random.Generator) -> None:
    """Paint a frame over one to four sides, black, white or grey: collimation, scanner beds, letterboxing."""
    height, width = film.shape
    grey = int(rng.choice([0, 0, 255, int(rng.integers(256))]))
    top, bottom, left, right = rng.uniform(0, 0.1, 4) * (rng.random(4) < 0.5)
    film[: round(top * height)] = grey
    film[height - round(bottom * height) :] = grey
    film[:, : round(left * width)] = grey
    film[:, width - round(right * width) :] = grey


def _letters(film: Film, rng: np.random.Generator) -> None:
    """Burn a side marker or a technician's words into a part near the edge, on some with a plate below them."""
    height, width = film.shape
    text, font = str(rng.choice(_TEXTS)), int(rng.choice(_FONTS))
    scale = float(rng.uniform(0.3, 0.9)) * height / 224 * (1 if len(text) < 3 else 0.6)
    thickness = int(rng.integers(1, 3))
    (text_width, text_height), _ = cv2.getTextSize(text, font, scale, thickness)
    along = float(rng.uniform(0.02, 0.98))
    near = float(rng.choice([rng.uniform(0.02, 0.16), rng.uniform(0.84, 0.98)]))
    x_share, y_share = (near, along) if rng.random() < 0.6 else (along, near)
    x = round(np.clip(x_share * width - text_width / 2, 1, max(1, width - text_width - 1)))
    y = round(np.clip(y_share * height + text_height / 2, text_height + 1, height - 1))
    if rng.random() < 0.25:
        plate = int(rng.choice([0, 255]))
        cv2.rectangle(film, (x - 2, y - text_height - 2), (x + text_width + 2, y + 2), plate, -1)
        ink = 255 - plate
    else:
        ink = int(rng.integers(150, 256))
    cv2.putText(film, text, (x, y), font, scale, ink, thickness, cv2.LINE_AA)
