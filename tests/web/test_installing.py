"""The web app manifest and the icons."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from pneumonet.finding import DISCLAIMER, RESEARCH_USE
from pneumonet.language import LANGUAGES
from pneumonet.web import installing, view
from tests.web.conftest import Running


def _pixels(name: str) -> np.ndarray:
    side, is_maskable = installing.ICONS[name]
    image = Image.open(io.BytesIO(installing.icon(side, is_maskable=is_maskable)))
    assert image.size == (side, side)
    return np.asarray(image.convert("RGBA"))


def test_the_manifest_is_ours_and_all_that_it_names_is_there(running: Running) -> None:
    with running.http() as http:
        answer = http.get("/manifest.json")
        assert answer.headers["content-type"] == "application/manifest+json"
        manifest = answer.json()
        assert (manifest["short_name"], manifest["display"]) == ("PneumoNet", "standalone")
        assert "Research use only" in manifest["name"]
        assert (manifest["lang"], manifest["dir"]) == ("en", "ltr")
        sizes = {(icon["sizes"], icon["purpose"]) for icon in manifest["icons"]}
        assert sizes == {("192x192", "any"), ("512x512", "any"), ("512x512", "maskable")}
        for icon in manifest["icons"]:
            picture = http.get(icon["src"])
            assert picture.headers["content-type"] == "image/png"
            side = int(icon["sizes"].split("x")[0])
            assert Image.open(io.BytesIO(picture.content)).size == (side, side)
            assert len(picture.content) < 30_000


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?lang=ar", {}), ("", {"Cookie": "pneumonet-language=ar"}), ("", {"Accept-Language": "ar-EG, de;q=0.5"})],
    ids=["address", "cookie", "browser"],
)
def test_the_manifest_is_in_the_visitor_s_language(running: Running, query: str, headers: dict[str, str]) -> None:
    arabic = LANGUAGES["ar"]
    with running.http() as http:
        answer = http.get(f"/manifest.json{query}", headers=headers)
    manifest = answer.json()
    assert (manifest["lang"], manifest["dir"]) == ("ar", "rtl")
    assert arabic(RESEARCH_USE) in manifest["name"]
    assert arabic(DISCLAIMER) in manifest["description"]
    assert not re.search("[A-Za-z]{4,} [A-Za-z]", manifest["description"])
    assert answer.headers["content-language"] == "ar"
    assert {"Accept-Language", "Cookie"} <= set(answer.headers["vary"].split(", "))


def test_no_address_leaves_the_prefix(running: Running) -> None:
    manifest = installing.manifest()
    addresses = [manifest[name] for name in ("id", "start_url", "scope")]
    addresses += [icon["src"] for icon in manifest["icons"]]  # type: ignore[attr-defined]
    assert not any(str(address).startswith(("/", "http")) for address in addresses)


def test_head_is_answered_and_nothing_else_is_taken(running: Running) -> None:
    with running.http() as http:
        for path in installing.PATHS:
            assert http.head(path).status_code == 200
            refused = http.post(path, content=b"x")
            assert (refused.status_code, refused.json()["code"]) == (405, "bad_request")


@pytest.mark.parametrize("name", ["maskable-512.png", "apple-touch-icon.png"])
def test_what_a_system_cuts_is_opaque_and_drawn_within_the_safe_zone(name: str) -> None:
    pixels = _pixels(name)
    assert (pixels[..., 3] == 255).all()
    side = len(pixels)
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    # W3C: a circle of two fifths of the side is never cut.
    outside = np.hypot(x, y) > 0.4 * side
    assert (pixels[outside] == pixels[0, 0]).all()
    assert (pixels[~outside] != pixels[0, 0]).any()


def test_the_plain_icon_has_round_corners_and_stands_out() -> None:
    pixels = _pixels("icon-192.png")
    assert pixels[0, 0, 3] == 0
    assert pixels[96, 0, 3] == 255
    assert {tuple(pixel) for pixel in pixels[100]} >= {(10, 92, 131, 255), (255, 255, 255, 255)}


def test_the_colours_are_the_page_s() -> None:
    css = (view.PAGE_FOLDER / "page.css").read_text()
    light, dark = css.split(".dark {")[:2]
    assert f"--pn-page: {installing.PAGE_LIGHT};" in light
    assert f"--pn-page: {installing.PAGE_DARK};" in dark
    assert "--pn-accent: #0a5c83;" in light
