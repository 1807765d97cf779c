from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image, ImageCms

from pneumonet.reading.tones import grey_of_picture, scale_floats, scale_to_range


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1.7e308])
def test_any_two_finite_numbers_make_a_range(scale):
    values = np.array([[-1.0, -0.5, 0.0, 1.0]]) * scale
    with np.errstate(all="raise"):
        for pixels in (scale_to_range(values, -scale, scale), scale_floats(values)[0]):
            assert pixels.dtype == np.float32
            np.testing.assert_allclose(pixels, [[0, 0.25, 0.5, 1]], atol=1e-6)


def test_what_lies_far_outside_the_range_is_clipped():
    with np.errstate(all="raise"):
        assert scale_to_range(np.array([[-1.7e308, 1.7e308]]), 1.6e308, 1.65e308).tolist() == [[0, 1]]


def test_the_values_are_left_as_they_were():
    values = np.array([[-1.7e308, np.nan, 1.7e308]])
    before = values.copy()
    scale_floats(values)
    np.testing.assert_array_equal(values, before)


def test_what_takes_long_to_make_ready_is_made_ready_once_a_picture() -> None:
    with patch.object(ImageCms, "buildTransform", wraps=ImageCms.buildTransform) as made:
        grey, colourfulness = grey_of_picture(Image.new("LAB", (600, 500), (128, 128, 128)))
    assert made.call_count == 1
    assert (grey.shape, len(np.unique(grey))) == ((500, 600), 1)
    assert colourfulness < 0.02
