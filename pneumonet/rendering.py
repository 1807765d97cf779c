"""Pictures for people: the film, the coloured heatmap, and one laid over the other."""

import base64
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pneumonet.finding import ENSEMBLE, Finding
from pneumonet.radiograph import Radiograph
from pneumonet.saliency import lay_on_film

MAX_SIDE = 1024
# Drawing and packing the picture is what a request costs beside the backbones, and the map has but a few cells a side.
OVERLAY_SIDE = 768
OVERLAY_OPACITY = 0.45
# Perceptually even, readable without red-green vision, and dark where nothing is.
COLOUR_MAP = cv2.COLORMAP_INFERNO


_COLOURS: Final[NDArray[np.uint8]] = np.ascontiguousarray(
    cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLOUR_MAP)[:, 0, ::-1]
)
_OPACITY: Final = OVERLAY_OPACITY * np.clip(np.arange(256) / 255 * 2, 0, 1)
_SHARE_OF_FILM: Final = np.round(255 * (1 - _OPACITY)).astype(np.uint8)
_SHARE_OF_COLOUR: Final = np.round(_COLOURS * _OPACITY[:, None]).astype(np.uint8)[None]


def _levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(cv2.convertScaleAbs(values, alpha=255), dtype=np.uint8)


def film_image(film: Radiograph, max_side: int = MAX_SIDE) -> NDArray[np.uint8]:
    """Return the film as (h, w) uint8, its aspect kept, made smaller where a side is over `max_side`."""
    height, width = fitted(film.height, film.width, max_side)
    pixels = film.pixels
    if (height, width) != pixels.shape:
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
    return _levels(pixels)


def fitted(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Return (height, width) scaled down to `max_side` on the longer side, never up.

    >>> fitted(2000, 1000, 500)
    (500, 250)
    """
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def heatmap(saliency_map: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a map (h, w) float32 in [0, 1]; returns (h, w, 3) uint8 RGB."""
    return _COLOURS[_levels(saliency_map)]


def overlay(finding: Finding, label: str | None = None, source: str = ENSEMBLE) -> NDArray[np.uint8]:
    """Lay the heatmap of a class over the film; returns (h, w, 3) uint8 RGB, at most 768 pixels on a side.

    Where the map is zero the film shows unchanged: the colour's opacity grows with the map.
    """
    return _laid_over(film_image(finding.film, OVERLAY_SIDE), finding.saliency[source][label or finding.label])


def overlays(finding: Finding) -> dict[str, dict[str, str]]:
    """Return what `overlay` draws of every map as PNG data URIs, by source and class; the film is reduced but once."""
    film = film_image(finding.film, OVERLAY_SIDE)
    return {
        source: {label: data_uri(_laid_over(film, saliency_map)) for label, saliency_map in by_class.items()}
        for source, by_class in finding.saliency.items()
    }


def _laid_over(film: NDArray[np.uint8], saliency_map: NDArray[np.float32]) -> NDArray[np.uint8]:
    levels = _levels(lay_on_film(saliency_map, *film.shape))
    # Colour and opacity follow from the level alone: looked up, in bytes, it is several times as fast as in floats.
    shown = cv2.multiply(film, cv2.LUT(levels, _SHARE_OF_FILM), scale=1 / 255)
    colour = cv2.LUT(cv2.cvtColor(levels, cv2.COLOR_GRAY2RGB), _SHARE_OF_COLOUR)
    return np.asarray(cv2.add(cv2.cvtColor(shown, cv2.COLOR_GRAY2RGB), colour), dtype=np.uint8)


def heatmap_layer(saliency_map: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Return the heatmap alone as (height, width, 4) uint8 RGBA, clear where the map is zero, to lay over a film."""
    laid = lay_on_film(saliency_map, height, width)
    alpha = np.clip(laid * 2 * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.dstack([heatmap(laid), alpha])


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode (h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA uint8 as PNG, without metadata."""
    if image.ndim == 3:
        image = np.asarray(
            cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA), dtype=np.uint8
        )
    _, encoded = cv2.imencode(".png", image)
    return bytes(encoded)


def data_uri(image: NDArray[np.uint8]) -> str:
    """Encode a picture as a PNG data URI."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")
