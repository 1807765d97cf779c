"""Colour and alpha of 16 bits a channel, of which Pillow keeps the upper byte alone."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from pneumonet.reading.tones import Block, Pixels, blocks, grey_of_channels, part_of, scale_integers

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
        # Four channels of 8 bits are as many bytes, and Pillow keeps all of those.
        return _grey_with_alpha(_read_as(reopen, "RGBA")), 0.0
    layout, _, order = raw_mode.partition(";16")
    if layout not in _AS_STORED or order not in _OTHER_ORDER:
        return None
    as_stored = _AS_STORED[layout]
    high = upper if layout == as_stored else _read_as(reopen, f"{as_stored};16{order}")
    parts = (np.asarray(part_of(high, block)) for block in blocks(upper.height, upper.width))
    if any(_visible(part, part, layout).max() >= 128 for part in parts):
        return None
    return _colour_over_black(high, _read_as(reopen, f"{as_stored};16{_OTHER_ORDER[order]}"), layout)


def _grey_with_alpha(picture: Image.Image) -> Pixels:
    def part_at(block: Block) -> NDArray[np.uint16]:
        return np.asarray(part_of(picture, block)).view(">u2").astype(np.uint16)

    values = np.empty((picture.height, picture.width), np.uint16)
    for block in blocks(*values.shape):
        both = part_at(block)
        values[block] = _visible(both[..., :1], both >> 8, "LA")[..., 0]
    pixels = scale_integers(values)
    for block in blocks(*values.shape):
        pixels[block] *= _opacity(part_at(block))[..., 0]
    return pixels


def _colour_over_black(high: Image.Image, low: Image.Image, layout: str) -> tuple[Pixels, float] | None:
    """Scale by the bit depth in use; None where the picture is an 8-bit one that was widened."""
    shape = high.height, high.width

    def part_at(block: Block) -> tuple[NDArray[np.uint16], NDArray[Any]]:
        upper = np.asarray(part_of(high, block))
        both = upper.astype(np.uint16) << 8 | np.asarray(part_of(low, block))
        return both, _visible(both, upper, layout)

    def channels_at(block: Block) -> NDArray[Any]:
        both, visible = part_at(block)
        return visible * _opacity(both) if layout == "RGBA" else visible

    largest, is_widened = 0, True
    for block in blocks(*shape):
        visible = part_at(block)[1]
        largest, is_widened = max(largest, int(visible.max())), is_widened and not (visible % 257).any()
    return None if is_widened else grey_of_channels(shape, channels_at, max(0xFF, 2 ** largest.bit_length() - 1))


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


def _read_as(reopen: Callable[[], ImageFile], raw_mode: str) -> Image.Image:
    with reopen() as picture:
        picture.tile = [
            tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *(tile.args or ())[1:]))
            for tile in picture.tile
        ]
        picture.load()
        return picture
