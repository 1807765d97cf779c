"""What a phone needs to put the page among its apps: the web app manifest and the icons, which are drawn here.

W3C, "Web Application Manifest". Addresses in it are relative to its own, so that it holds behind a proxy's prefix.
"""

from functools import cache
from typing import Final

import cv2
import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

from pneumonet.finding import DISCLAIMER, RESEARCH_USE
from pneumonet.language import ENGLISH, Language
from pneumonet.rendering import png
from pneumonet.web.languages import language_asked, spoken

# As page.css has them: --pn-page, light and dark, and --pn-accent and --pn-on-accent.
PAGE_LIGHT: Final = "#f5f7f9"
PAGE_DARK: Final = "#0f151b"
_ACCENT: Final = (10, 92, 131)
_ON_ACCENT: Final = (255, 255, 255)

ICONS: Final = {
    "icon-192.png": (192, False),
    "icon-512.png": (512, False),
    "maskable-512.png": (512, True),
    "apple-touch-icon.png": (180, True),
}
PATHS: Final = ("/manifest.json", *(f"/icons/{name}" for name in ICONS))
_DAY: Final = {"Cache-Control": "max-age=86400"}
_OVERSAMPLING: Final = 4


def manifest(language: Language = ENGLISH) -> dict[str, object]:
    """Return the web app manifest.

    Args:
        language: Of its words.
    """
    reads = language(
        "Reads a frontal chest X-ray of a child as normal, bacterial or viral pneumonia, and shows what influenced the "
        "answer."
    )
    icons = [
        {
            "src": f"icons/{name}",
            "sizes": f"{side}x{side}",
            "type": "image/png",
            "purpose": "maskable" if is_maskable else "any",
        }
        for name, (side, is_maskable) in ICONS.items()
        if not name.startswith("apple")
    ]
    return {
        "name": f"PneumoNet. {language(RESEARCH_USE)}",
        "short_name": "PneumoNet",
        "description": " ".join(filter(None, (reads, language(DISCLAIMER), language.review_notice))),
        "id": "./",
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "lang": language.tag,
        "dir": language.direction,
        "background_color": PAGE_LIGHT,
        "theme_color": PAGE_LIGHT,
        "icons": icons,
    }


def head() -> str:
    """Return what the page's head says of it; Gradio's own head names the manifest, and page.js mends its address."""
    return (
        '<link rel="icon" type="image/png" href="icons/icon-192.png">'
        '<link rel="apple-touch-icon" href="icons/apple-touch-icon.png">'
        f'<meta name="theme-color" content="{PAGE_LIGHT}" media="(prefers-color-scheme: light)">'
        f'<meta name="theme-color" content="{PAGE_DARK}" media="(prefers-color-scheme: dark)">'
    )


@cache
def icon(side: int, *, is_maskable: bool = False) -> bytes:
    """Draw the icon: two lungs and a windpipe.

    Args:
        side: Pixels on a side.
        is_maskable: Whether the system cuts the icon to a shape of its own: then the ground fills the square, and the
            drawing stays within the middle four fifths, of which nothing is cut.

    Returns:
        A PNG, opaque where it is maskable.
    """
    large = side * _OVERSAMPLING
    ground, drawing = np.zeros((large, large), dtype=np.uint8), np.zeros((large, large), dtype=np.uint8)
    if is_maskable:
        ground[:] = 255
    else:
        _rounded_square(ground)
    _lungs(drawing, scale=0.62 if is_maskable else 0.78)
    alpha, share = (cv2.resize(layer, (side, side), interpolation=cv2.INTER_AREA) for layer in (ground, drawing))
    weight = (np.asarray(share, dtype=np.float32) / 255)[..., None]
    colour = np.round(weight * _ON_ACCENT + (1 - weight) * _ACCENT).astype(np.uint8)
    return png(colour if is_maskable else np.dstack([colour, np.asarray(alpha, dtype=np.uint8)]))


def _rounded_square(layer: NDArray[np.uint8]) -> None:
    side = len(layer)
    radius = round(0.2 * side)
    cv2.rectangle(layer, (radius, 0), (side - radius - 1, side - 1), 255, cv2.FILLED)
    cv2.rectangle(layer, (0, radius), (side - 1, side - radius - 1), 255, cv2.FILLED)
    for x in (radius, side - radius - 1):
        for y in (radius, side - radius - 1):
            cv2.circle(layer, (x, y), radius, 255, cv2.FILLED)


def _lungs(layer: NDArray[np.uint8], scale: float) -> None:
    side = len(layer)

    def at(x: float, y: float) -> tuple[int, int]:
        return round(side * (0.5 + scale * (x - 0.5))), round(side * (0.5 + scale * (y - 0.5)))

    def length(share: float) -> int:
        return max(1, round(side * scale * share))

    for sign in (-1, 1):
        # A lung is what an upright ellipse leaves of a lower, wider one: narrow above, broad below, hollow inside.
        outer = np.zeros_like(layer)
        centre, axes = at(0.5 + sign * 0.27, 0.62), (length(0.21), length(0.38))
        cv2.ellipse(outer, centre, axes, -sign * 8, 0, 360, 255, cv2.FILLED)
        cv2.rectangle(outer, at(-1, 0.94), at(2, 2), 0, cv2.FILLED)
        cv2.ellipse(outer, at(0.5 + sign * 0.02, 0.82), (length(0.16), length(0.24)), 0, 0, 360, 0, cv2.FILLED)
        np.maximum(layer, outer, out=layer)
        cv2.line(layer, at(0.5, 0.36), at(0.5 + sign * 0.16, 0.5), 255, length(0.06), cv2.LINE_AA)
    cv2.line(layer, at(0.5, 0.04), at(0.5, 0.36), 255, length(0.07), cv2.LINE_AA)


def routes() -> APIRouter:
    """Return the routes of the manifest and the icons, which stand before Gradio's own manifest."""
    router = APIRouter()

    @router.head("/manifest.json", include_in_schema=False)
    @router.get("/manifest.json", include_in_schema=False)
    async def get_manifest(request: Request) -> JSONResponse:
        language = language_asked(request)
        return JSONResponse(manifest(language), headers=spoken(language), media_type="application/manifest+json")

    def add(name: str, side: int, is_maskable: bool) -> None:
        async def get_icon() -> Response:
            return Response(icon(side, is_maskable=is_maskable), media_type="image/png", headers=_DAY)

        router.add_api_route(f"/icons/{name}", get_icon, methods=["GET", "HEAD"], include_in_schema=False)

    for name, (side, is_maskable) in ICONS.items():
        add(name, side, is_maskable)
    return router
