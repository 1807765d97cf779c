"""Saliency maps in words."""

import numpy as np
import pytest

from pneumonet.describing import map_in_words


def _map(*spots: tuple[int, int, float], shape: tuple[int, int] = (6, 6), ground: float = 0.0) -> np.ndarray:
    saliency_map = np.full(shape, ground, dtype=np.float32)
    for row, column, value in spots:
        saliency_map[row, column] = value
    return saliency_map


_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_each_ninth_has_its_name(row: int, column: int) -> None:
    place = "centre" if (row, column) == (1, 1) else f"{_ROWS[row]} {_COLUMNS[column]}"
    words = map_in_words(_map((2 * row, 2 * column + 1, 1.0)))
    assert words == f"Influence was strongest in the {place} of the picture."


def test_the_sides_are_the_picture_s_and_turn_with_it() -> None:
    saliency_map = _map((5, 5, 1.0))
    assert "lower right of the picture" in map_in_words(saliency_map)
    assert "lower left of the picture" in map_in_words(saliency_map[:, ::-1])
    assert "patient" not in map_in_words(saliency_map)


def test_height_and_width_are_not_mixed_up() -> None:
    assert "lower left" in map_in_words(_map((8, 0, 1.0), shape=(9, 4)))
    assert "upper right" in map_in_words(_map((0, 8, 1.0), shape=(4, 9)))


def test_a_second_place_is_named_where_it_comes_close_and_lies_apart() -> None:
    assert map_in_words(_map((5, 5, 1.0), (5, 0, 0.9))) == (
        "Influence was strongest in the lower right of the picture, and nearly as strong in the lower left."
    )
    for second in ((5, 0, 0.7), (3, 3, 0.9)):
        assert "nearly" not in map_in_words(_map((5, 5, 1.0), second))


def test_a_map_without_a_place_is_given_none() -> None:
    assert map_in_words(_map()) == "No region stood out: the heatmap is empty."
    even = map_in_words(_map((0, 0, 1.0), ground=0.9))
    assert even == "Influence was spread evenly over the picture: no region stood out."
    wide = map_in_words(_map((0, 0, 1.0), ground=0.6))
    assert wide == "Influence was spread over most of the picture, and strongest in its upper left."


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (7, 10)])
def test_any_size_has_words(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    assert map_in_words(noise).endswith(".")
