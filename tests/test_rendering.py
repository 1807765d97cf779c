"""Pictures: right size, right place, unchanged where nothing is to be said."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from pneumonet import rendering
from pneumonet.admission import Admission
from pneumonet.finding import ENSEMBLE, Finding, ModelInfo
from pneumonet.radiograph import Radiograph
from pneumonet.taxonomy import Risk


def _finding(pixels: np.ndarray, saliency_map: np.ndarray) -> Finding:
    return Finding(
        label="NORMAL",
        probabilities={"NORMAL": 1.0},
        confidence=1.0,
        prediction_set=("NORMAL",),
        risk=Risk.NONE_DETECTED,
        admission=Admission(True),
        model=ModelInfo(None, "local-0", "0"),
        film=Radiograph(pixels.astype(np.float32), "PNG"),
        saliency={ENSEMBLE: {"NORMAL": saliency_map.astype(np.float32)}},
    )


def _ramp(height: int, width: int) -> np.ndarray:
    return np.tile(np.linspace(0, 1, width), (height, 1))


@pytest.mark.parametrize(("height", "width"), [(300, 500), (500, 300)], ids=["wide", "tall"])
def test_heat_lies_on_its_spot_and_leaves_the_rest_alone(height: int, width: int) -> None:
    saliency_map = np.zeros((4, 4))
    saliency_map[0, 3] = 1
    film = np.full((height, width), 0.5)
    picture = rendering.overlay(_finding(film, saliency_map))
    assert picture.shape == (height, width, 3)
    changed = (picture != rendering.film_image(Radiograph(film.astype(np.float32), "PNG"))[..., None]).any(axis=2)
    assert changed[: height // 8, -width // 8 :].all()
    assert not changed[height // 2 :].any()
    assert not changed[:, : width // 2].any()


def test_an_empty_map_leaves_the_film_as_it_is() -> None:
    film = _ramp(64, 80)
    picture = rendering.overlay(_finding(film, np.zeros((4, 4))))
    np.testing.assert_array_equal(picture, np.repeat(np.round(film * 255)[..., None], 3, axis=2))


def test_every_map_s_overlay_is_the_one_that_is_drawn_alone() -> None:
    one, other = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[::-1].copy()
    finding = replace(_finding(_ramp(900, 1000), one), saliency={ENSEMBLE: {"NORMAL": one}, "member": {"VIRAL": other}})
    drawn = rendering.overlays(finding)
    assert {source: list(by_class) for source, by_class in drawn.items()} == {ENSEMBLE: ["NORMAL"], "member": ["VIRAL"]}
    for source, label in ((ENSEMBLE, "NORMAL"), ("member", "VIRAL")):
        assert drawn[source][label] == rendering.data_uri(rendering.overlay(finding, label, source))
    assert drawn[ENSEMBLE]["NORMAL"] != drawn["member"]["VIRAL"]


def test_a_large_film_is_made_smaller_with_its_aspect() -> None:
    assert rendering.film_image(Radiograph(_ramp(2000, 3000).astype(np.float32), "PNG")).shape == (683, 1024)
    assert rendering.fitted(10, 4000, 1024) == (3, 1024)


def test_png_round_trips_in_rgb_order_and_carries_no_metadata() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    decoded = Image.open(io.BytesIO(rendering.png(picture)))
    np.testing.assert_array_equal(np.asarray(decoded), picture)
    assert not decoded.info


def test_heatmap_goes_from_dark_to_bright_as_influence_grows() -> None:
    coloured = rendering.heatmap(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).astype(int)
    luma = coloured @ np.array([299, 587, 114]) / 1000
    assert luma[0, 0] < 10
    assert luma[0, 0] < luma[0, 1] < luma[0, 2]


def test_layer_is_clear_where_the_map_is_zero() -> None:
    layer = rendering.heatmap_layer(np.array([[0.0, 1.0]], dtype=np.float32), 10, 20)
    assert layer.shape == (10, 20, 4)
    assert layer[0, 0, 3] == 0
    assert layer[0, -1, 3] == 255


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), at
# severity 1, on linear sRGB.
_DICHROMATS = {
    "trichromat": np.eye(3),
    "protanope": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranope": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def _lightness(colours: np.ndarray, sight: str) -> np.ndarray:
    """CIE L* of (n, 3) uint8 sRGB colours, as somebody sees them."""
    srgb = colours / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ _DICHROMATS[sight].T, 0, 1)
    y = seen @ np.array([0.2126, 0.7152, 0.0722])
    return np.asarray(np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3))


@pytest.mark.parametrize("sight", _DICHROMATS)
def test_more_influence_is_lighter_whatever_colours_one_sees(sight: str) -> None:
    levels = np.linspace(0, 1, 256, dtype=np.float32)[None]
    lightness = _lightness(rendering.heatmap(levels)[0], sight)
    # Neighbours may round to the same bytes; over a sixteenth of the scale it always grows.
    assert (np.diff(lightness) > -0.3).all()
    assert (np.diff(lightness[::16]) > 3).all()
    assert lightness[-1] - lightness[0] > 90
    rainbow = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_JET)[:, 0, ::-1]
    assert (np.diff(_lightness(rainbow, sight)[::16]) < -3).any()
