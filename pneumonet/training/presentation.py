"""The presentation classifier, learnt from training films turned, cut and doubled on purpose."""

from collections.abc import Callable, Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pneumonet.presentation import PRESENTATIONS, UPRIGHT, PresentationClassifier, thumbnail
from pneumonet.radiograph import Radiograph

# Strong, so that the classifier leans on the chest's broad shape and not on habits of the archive: adults pass too.
_INVERSE_REGULARISATION: Final = 1e-4

Pixels = NDArray[np.float32]


def fit_presentation(films: Iterable[Radiograph], seed: int = 2026) -> PresentationClassifier:
    """Fit the classifier to films, each shown in every presentation.

    Args:
        films: Upright films of whole chests.
        seed: Seed of every draw.
    """
    rng = np.random.default_rng(seed)
    thumbnails, shown = [], []
    for film in films:
        for name, present in _PRESENT.items():
            thumbnails.append(thumbnail(np.ascontiguousarray(present(film.pixels, rng))))
            shown.append(name.partition(" ")[0])
    order = [PRESENTATIONS.index(name) for name in shown]
    model = LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=1000).fit(np.stack(thumbnails), order)
    return PresentationClassifier(model.coef_.astype(np.float32), model.intercept_.astype(np.float32))


def _cropped(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape
    share = rng.uniform(0.7, 1)
    y, x = (int(rng.uniform(0, 1 - share) * side) for side in (height, width))
    return pixels[y : y + int(share * height), x : x + int(share * width)]


def _rotated(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-15, 15)), 1)
    return np.asarray(cv2.warpAffine(pixels, turn, (width, height)), dtype=np.float32)


def _corner(at_bottom: bool, at_right: bool) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def cut(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        share = rng.uniform(0.25, 0.4)
        height, width = (int(share * side) for side in pixels.shape)
        rows = slice(-height, None) if at_bottom else slice(height)
        return pixels[rows, -width:] if at_right else pixels[rows, :width]

    return cut


# Upright is shown three times, as films vary most there; a word behind a name tells the three apart.
_PRESENT: Final[dict[str, Callable[[Pixels, np.random.Generator], Pixels]]] = {
    UPRIGHT: lambda pixels, rng: pixels,
    f"{UPRIGHT} cropped": _cropped,
    f"{UPRIGHT} rotated": _rotated,
    "upside_down": lambda pixels, rng: pixels[::-1, ::-1],
    "mirrored_top_to_bottom": lambda pixels, rng: pixels[::-1],
    "on_its_left_side": lambda pixels, rng: np.rot90(pixels, 1),
    "on_its_right_side": lambda pixels, rng: np.rot90(pixels, -1),
    "inverted": lambda pixels, rng: 1 - pixels,
    "side_by_side": lambda pixels, rng: np.hstack([pixels, pixels]),
    "stacked": lambda pixels, rng: np.vstack([pixels, pixels]),
    "top_left": _corner(at_bottom=False, at_right=False),
    "top_right": _corner(at_bottom=False, at_right=True),
    "bottom_left": _corner(at_bottom=True, at_right=False),
    "bottom_right": _corner(at_bottom=True, at_right=True),
}
