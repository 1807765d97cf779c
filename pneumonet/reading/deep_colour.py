"""Colour of 16 bits a channel, of which Pillow keeps the upper byte alone."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

# Read in the other byte order, the lower byte is the upper one. "N" is this machine's order.
_OTHER_ORDER: Final = {
    "RGB;16L": "RGB;16B",
    "RGB;16B": "RGB;16L",
    "RGB;16N": "RGB;16B" if np.little_endian else "RGB;16L",
}


def whole_channels(upper: ImageFile, again: ImageFile) -> tuple[NDArray[Any], int] | None:
    """Join both bytes of a 16-bit RGB picture whose upper bytes alone say little.

    Args:
        upper: The picture, loaded.
        again: The same picture, opened a second time and not loaded.

    Returns:
        (H, W, 3) uint16 and the top of the bit depth that they use. None where the picture is no such one, or where
        half of the upper bytes' range is in use, so that they alone are as good as a picture of 8 bits.
    """
    if upper.mode != "RGB" or np.asarray(upper).max() >= 128 or not _swap_byte_order(again):
        return None
    channels = np.asarray(upper).astype(np.uint16) << 8 | np.asarray(again)
    return channels, max(0xFF, 2 ** int(channels.max()).bit_length() - 1)


def _swap_byte_order(picture: ImageFile) -> bool:
    tiles = list(picture.tile)
    if not tiles or any(_raw_mode(tile) not in _OTHER_ORDER for tile in tiles):
        return False
    picture.tile = [tile._replace(args=_in_other_order(tile)) for tile in tiles]
    return True


def _raw_mode(tile: Any) -> str:
    """Return the first of a decoder's arguments, which may also stand alone."""
    return tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0])


def _in_other_order(tile: Any) -> Any:
    swapped = _OTHER_ORDER[_raw_mode(tile)]
    return swapped if isinstance(tile.args, str) else (swapped, *tile.args[1:])
