"""Pictures for people: the film, the coloured heatmap, and one laid over the other."""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from pneumonet.finding import ENSEMBLE, Finding
from pneumonet.radiograph import Radiograph
from pneumonet.saliency import lay_on_film

MAX_SIDE = 1024
OVERLAY_OPACITY = 0.45
# Perceptually even, readable without red-green vision, and dark where nothing is.
COLOUR_MAP = cv2.COLORMAP_INFERNO


def film_image(film: Radiograph, max_side: int = MAX_SIDE) -> NDArray[np.uint8]:
    """Return the film as (h, w) uint8, its aspect kept, made smaller where a side is over `max_side`."""
    height, width = fitted(film.height, film.width, max_side)
    pixels = film.pixels
    if (height, width) != pixels.shape:
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
    levels: NDArray[np.uint8] = np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8)
    return levels


def fitted(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Return (height, width) scaled down to `max_side` on the longer side, never up.

    >>> fitted(2000, 1000, 500)
    (500, 250)
    """
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def heatmap(saliency_map: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a map (h, w) float32 in [0, 1]; returns (h, w, 3) uint8 RGB."""
    levels = np.clip(saliency_map * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, COLOUR_MAP), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def overlay(finding: Finding, label: str | None = None, source: str = ENSEMBLE) -> NDArray[np.uint8]:
    """Lay the heatmap of a class over the film; returns (h, w, 3) uint8 RGB, at most 1024 pixels on a side.

    Where the map is zero the film shows unchanged: the colour's opacity grows with the map.
    """
    film = film_image(finding.film)
    saliency_map = lay_on_film(finding.saliency[source][label or finding.label], *film.shape)
    opacity = (OVERLAY_OPACITY * np.clip(saliency_map * 2, 0, 1))[..., None]
    blend = film[..., None] * (1 - opacity) + heatmap(saliency_map) * opacity
    return np.clip(blend + 0.5, 0, 255).astype(np.uint8)


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
