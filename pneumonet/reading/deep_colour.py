"""Colour and alpha of 16 bits a channel, of which Pillow keeps the upper byte alone."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from pneumonet.reading.tones import Pixels, grey_of_channels, scale_integers

# Read in the other byte order, the lower byte is the upper one. "N" is this machine's order.
_OTHER_ORDER: Final = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}
# What Pillow calls a layout -> the layout that gives each byte as it stands: it divides the alpha out of "RGBa".
_AS_STORED: Final = {"RGB": "RGB", "RGBX": "RGBX", "RGBA": "RGBA", "RGBa": "RGBA"}


def deep_tones(upper: ImageFile, reopen: Callable[[], ImageFile]) -> tuple[Pixels, float] | None:
    """Read a picture of 16 bits a channel, laid over black, from both bytes of each channel.

    Args:
        upper: The picture, loaded.
        reopen: Opens the same picture once more.

    Returns:
        As `tones.grey_of_picture`. None where the picture is no such one, or where its upper bytes alone are as good.
    """
    raw_mode = _raw_mode(reopen)
    if raw_mode == "LA;16B":
        return _grey_with_alpha(reopen), 0.0
    layout, _, order = raw_mode.partition(";16")
    if layout not in _AS_STORED or order not in _OTHER_ORDER:
        return None
    as_stored = _AS_STORED[layout]
    high = np.asarray(upper) if layout == as_stored else _read_as(reopen, f"{as_stored};16{order}")
    if _visible(high, high, layout).max() >= 128:
        return None
    low = _read_as(reopen, f"{as_stored};16{_OTHER_ORDER[order]}")
    return _colour_over_black(high, low, layout)


def _grey_with_alpha(reopen: Callable[[], ImageFile]) -> Pixels:
    # Four channels of 8 bits are as many bytes, and Pillow keeps all of those.
    both = _read_as(reopen, "RGBA").view(">u2").astype(np.uint16)
    return scale_integers(_visible(both[..., :1], both >> 8, "LA")[..., 0]) * _opacity(both)[..., 0]


def _colour_over_black(high: NDArray[Any], low: NDArray[Any], layout: str) -> tuple[Pixels, float] | None:
    """Scale by the bit depth in use; None where the picture is an 8-bit one that was widened."""
    both = high.astype(np.uint16) << 8 | low
    channels = _visible(both, high, layout)
    if not (channels % 257).any():
        return None
    top = max(0xFF, 2 ** int(channels.max()).bit_length() - 1)
    return grey_of_channels(channels * _opacity(both) if layout == "RGBA" else channels, top)


def _visible(channels: NDArray[Any], high: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return the channels without alpha, and 0 where it is clear: what hides there says nothing about the depth."""
    if layout in ("RGB", "RGBX", "RGBa"):
        return channels[..., :3]
    return np.where(high[..., -1:] > 0, channels[..., :3], 0)


def _opacity(both: NDArray[Any]) -> Pixels:
    return both[..., -1:].astype(np.float32) / np.float32(0xFFFF)


def _raw_mode(reopen: Callable[[], ImageFile]) -> str:
    """Return what Pillow calls the layout of the picture's bytes; "" where its parts have several."""
    with reopen() as picture:
        raw_modes = {_first_argument(tile.args) for tile in picture.tile}
    return raw_modes.pop() if len(raw_modes) == 1 else ""


def _first_argument(args: Any) -> str:
    """Return the first of a decoder's arguments, which may also stand alone."""
    return args if isinstance(args, str) else str((args or ("",))[0])


def _read_as(reopen: Callable[[], ImageFile], raw_mode: str) -> NDArray[Any]:
    with reopen() as picture:
        picture.tile = [
            tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *(tile.args or ())[1:]))
            for tile in picture.tile
        ]
        return np.asarray(picture)
