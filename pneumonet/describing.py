"""A saliency map in words, for whoever cannot see its colours.

Sides are the picture's, as on the screen. On a frontal film the patient's left lies on its right, and which way a film
was laid nobody has told the model.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pneumonet.language import Said, said

# Where more of the picture than this has at least half the peak's influence, a place alone would mislead.
_SPREAD: Final = 0.5
# A second place is named where it comes this close to the first.
_NEARLY: Final = 0.8
# Row by row; each stands in a sentence that ends in "of the picture".
_PLACES: Final = (
    (said("upper left"), said("upper centre"), said("upper right")),
    (said("middle left"), said("centre"), said("middle right")),
    (said("lower left"), said("lower centre"), said("lower right")),
)


def map_in_words(saliency_map: NDArray[np.float32]) -> Said:
    """Say where in the picture a map is strongest.

    Args:
        saliency_map: (h, w) float32 in [0, 1], of any size.

    Returns:
        One sentence. Places are the ninths of the picture; one lies where most of its pixels do.

    >>> map_in_words(np.zeros((3, 3), dtype=np.float32))
    'No region stood out: the heatmap is empty.'
    >>> map_in_words(np.eye(4, dtype=np.float32)[::-1] * [0.1, 0.1, 0.1, 1])
    'Influence was strongest in the upper right of the picture.'
    """
    peak = float(saliency_map.max())
    if not peak > 0:
        return said("No region stood out: the heatmap is empty.")
    if (saliency_map >= _NEARLY * peak).all():
        return said("Influence was spread evenly over the picture: no region stood out.")
    ninths = _peaks_of_ninths(saliency_map) / peak
    # The peak itself, not the first of equal ninths: a map that is coarser than a ninth shares it among several.
    y, x = divmod(int(saliency_map.argmax()), saliency_map.shape[1])
    row, column = (int(3 * (i + 0.5) / side) for i, side in zip((y, x), saliency_map.shape, strict=True))
    place = _PLACES[row][column]
    if (saliency_map >= 0.5 * peak).mean() > _SPREAD:
        return said("Influence was spread over most of the picture, and strongest in its {place}.", place=place)
    # Neighbouring ninths share one spot; only what lies apart is a place of its own.
    apart = [(float(ninths[r, c]), r, c) for r in range(3) for c in range(3) if max(abs(r - row), abs(c - column)) > 1]
    second, r, c = max(apart, default=(0.0, 0, 0))
    if second < _NEARLY:
        return said("Influence was strongest in the {place} of the picture.", place=place)
    return said(
        "Influence was strongest in the {place} of the picture, and nearly as strong in the {second}.",
        place=place,
        second=_PLACES[r][c],
    )


def _peaks_of_ninths(saliency_map: NDArray[np.float32]) -> NDArray[np.float64]:
    height, width = saliency_map.shape
    rows, columns = (((np.arange(side) + 0.5) * 3 / side).astype(int) for side in (height, width))
    peaks = np.zeros((3, 3))
    np.maximum.at(peaks, (rows[:, None], columns[None, :]), saliency_map)
    return peaks
